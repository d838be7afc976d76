"""What a node does with signed releases: take them, check them, keep them, say which it holds.

An edge's egress runs `ReleaseHolder`. Each release that the fleet's metadata has for this node comes from
the parent by digest, is held against its target and read as a release with every digest in it, and is
then kept; what does not hold is refused, and the releases before it stay. Nothing is switched over here: the
agent does that, by what it is told in STATE/choices.state (`reuna.exchange.choices`).

STATE/releases/DIGEST   the files            STATE/releases.state   which of them were accepted

What a node holds goes up as an event ``releases`` (kind `log` of the site's policy): a word of the node,
as other events are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from pathlib import Path

import msgspec

from reuna.adapters.checked_file import CheckedFile
from reuna.core.errors import (
    BadMessage,
    BlobNotFound,
    PermissionDenied,
    ReunaError,
    StorageError,
    Unreachable,
    Untrusted,
)
from reuna.core.foreign import UNREADABLE
from reuna.core.ports import Blob, Blobs, BlobStore, Clock, Offload
from reuna.core.records import Event, Holding, Setting
from reuna.exchange.choices import choices, choices_file
from reuna.exchange.trust import TrustGuard
from reuna.trust.releases import MOST, kept, listed, offered, wanted
from reuna.trust.stages import Stage, read, stages_for
from reuna.trust.targets import Target, check_bytes
from reuna.wire.release import MAX_RELEASE, decode

log = logging.getLogger("reuna.releases")
WHAT = "releases"  #: what the event is called
FIELD = "held"  #: its one field: JSON of a list of `Holding`
STATE = "releases.state"
MAX_STATE = 65_536  #: bytes
FIRST_S, LAST_S = 1.0, 60.0  #: between two tries at what could not be fetched or stored
AGAIN_S = 60.0  #: until a report that the site's policy kept here is offered again


class Kept(msgspec.Struct, frozen=True):
    """A release that was accepted, and the digest of its file among the blobs."""

    blob: str
    holding: Holding


_holdings = msgspec.json.Decoder(list[Holding])

#: Passes an event on; False when the site's policy keeps it here.
Emit = Callable[[Event], Awaitable[bool]]


def accepted_file(state: Path) -> CheckedFile[list[Kept]]:
    """Which releases a node has accepted; a damaged file is read as none.

    What the metadata names is then checked and accepted again; what it does not name is dropped.
    """
    return CheckedFile(state / STATE, list[Kept], MAX_STATE)


class ReleaseHolder:
    """One node's releases. ``names``: its own and its site's; ``boot`` tells this start from others."""

    def __init__(
        self,
        names: tuple[str, ...],
        boot: str,
        guard: TrustGuard,
        store: BlobStore,
        shelf: Blobs,
        state: Path,
        emit: Emit,
        clock: Clock,
        offload: Offload,
    ) -> None:
        self._names = names
        self._boot = boot
        self._guard = guard
        self._store = store
        self._shelf = shelf
        self._accepted = accepted_file(state)
        self._choices = choices_file(state)
        self._emit = emit
        self._clock = clock
        self._offload = offload
        self._held: dict[str, Kept] = {}  #: by the release's digest
        self._refused: dict[str, Holding] = {}  #: by path
        self._own: tuple[Stage, ...] = ()
        self._bad: set[str] = set()  #: digests of whole files that are no releases; they stay so
        self._changed = asyncio.Event()

    # --- taking ----------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Take what the metadata names, again whenever that changes or a try failed. Until cancelled."""
        await self._offload(self._recall)
        wait = 0.0
        while True:
            await self._until_moved(wait)
            wait = 0.0 if await self.take() else min(max(FIRST_S, 2 * wait), LAST_S)

    async def _until_moved(self, seconds: float) -> None:
        """Until other metadata was accepted, or so long when that is more than 0."""
        waits = [asyncio.ensure_future(self._guard.moved())]
        if seconds:
            waits.append(asyncio.ensure_future(self._clock.sleep(seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    async def take(self) -> bool:
        """One look at the list; False when something is worth another try."""
        own = self._stages()
        asked = wanted(self._listed(), self._names, {each.sha256 for each in own})
        self._refused = {path: no for path, no in self._refused.items() if path in {e.path for e in asked}}
        whole = True
        for each in reversed(asked):  # the oldest first, so that there is one to go back to
            if each.sha256 not in self._held:
                whole = await self._try(each) and whole
        whole = await self._tidy({each.sha256 for each in asked}) and whole
        whole = await self._choose(own, asked) and whole
        self._changed.set()
        return whole

    def _listed(self) -> tuple[Target, ...]:
        try:
            return listed(self._guard.state)
        except Untrusted as error:
            log.error("the list of releases cannot be read: %s %s", error.code, error)
            return ()

    def _stages(self) -> tuple[Stage, ...]:
        """The stages that count for this node; those before stay while new ones cannot be read."""
        try:
            self._own = stages_for(read(self._guard.state), self._listed(), self._names)
        except Untrusted as error:
            log.error("stages cannot be read: %s %s", error.code, error)
        return self._own

    async def _choose(self, own: tuple[Stage, ...], asked: Collection[Target]) -> bool:
        """Tell the agent what is wanted and what is here. False when the disk did not take that."""
        told = choices(own, asked, {digest: each.blob for digest, each in self._held.items()})

        def write() -> None:
            if self._choices.read() != told:
                self._choices.write(told)

        try:
            await self._offload(write)
        except StorageError as error:
            log.error("what is to run is not written down: %s %s", error.code, error)
            return False
        return True

    async def _try(self, each: Target) -> bool:
        """Take one; False when it may work later."""
        try:
            blob = await self._fetch(each)
            await self._offload(lambda: self._check(each, blob))
        except Untrusted as error:
            self._refuse(each, error.reason, error)
            return True
        except (BlobNotFound, PermissionDenied, StorageError) as error:
            self._refuse(each, error.code, error)
            return False
        except Unreachable as error:
            log.warning("%s waits: %s", each.path, error)
            return False
        holding = Holding(each.path, each.project, each.number, each.sha256, self._clock.now())
        self._held[each.sha256] = Kept(each.digest, holding)
        self._refused.pop(each.path, None)
        log.info("holds %s %d, verified: %s", each.project, each.number, each.sha256)
        return True

    async def _fetch(self, each: Target) -> Blob:
        """The file, checked block by block against the target's digest. Raises `Untrusted` and as `fetch`."""
        self._guard.target(each.path)  # nothing new is taken under metadata whose time is over
        if each.size > MAX_RELEASE:
            raise Untrusted(
                "oversized", f"{each.path} has {each.size} bytes, a release at most {MAX_RELEASE}"
            )
        if each.digest in self._bad:
            raise Untrusted("mismatch", f"{each.path} was no release when it was read before")
        blob = await self._offload(lambda: self._shelf.get(each.digest))
        return blob or await self._store.fetch(each.digest, each.size)

    def _check(self, each: Target, blob: Blob) -> None:
        """The file is the target's, and a whole release of that project and number. Raises `Untrusted`."""
        try:
            about = decode(check_bytes(each, blob.read(0, each.size + 1))).manifest.about
            if (about.project, about.version) != (each.project, each.number):
                said = f"{about.project} {about.version}"
                raise Untrusted("mismatch", f"{each.path} is {said}, not {each.project} {each.number}")
        except Untrusted:
            self._bad.add(each.digest)
            raise

    def _refuse(self, each: Target, why: str, error: ReunaError) -> None:
        now = self._clock.now()
        before = self._refused.get(each.path)
        if before is not None and (before.digest, before.refused) == (each.sha256, why):
            return
        log.error("refused %s: %s %s", each.path, error.code, error)
        self._refused[each.path] = Holding(each.path, each.project, each.number, each.sha256, now, why)

    async def _tidy(self, asked: Collection[str]) -> bool:
        """Drop what is too much, and write down what stays. False when the disk did not take that."""
        holdings = kept((each.holding for each in self._held.values()), asked)
        stay = [self._held[each.digest] for each in holdings]
        try:
            await self._offload(lambda: self._keep_only(stay))
        except StorageError as error:
            log.error("which releases are held is not written down: %s %s", error.code, error)
            return False
        return True

    def _keep_only(self, stay: Collection[Kept]) -> None:
        if list(self._accepted.read() or []) != list(stay):
            self._accepted.write(list(stay))  # first: what is named and gone is fetched again
        self._shelf.prune([each.blob for each in stay])
        self._held = {each.holding.digest: each for each in stay}

    def _recall(self) -> None:
        """What was accepted before, as far as it is still whole."""
        for each in self._accepted.read() or []:
            held = each.holding
            if self._shelf.get(each.blob) is None:
                log.warning("%s %d is damaged or gone; it is fetched again", held.project, held.version)
            else:
                self._held[held.digest] = each

    # --- saying ----------------------------------------------------------------------------------

    def report(self) -> list[Holding]:
        """What is held, and what was refused."""
        held = sorted((each.holding for each in self._held.values()), key=_order)
        return [*held, *sorted(self._refused.values(), key=_order)]

    async def tell(self) -> None:
        """Say what is held, whenever that changes. Until cancelled."""
        told: list[Holding] = []
        number = 0
        while True:
            await self._changed.wait()
            self._changed.clear()
            now = self.report()
            if now == told:
                continue
            event = event_of(self._names[0], self._boot, number, self._clock.now(), now)
            if await self._emit(event):
                told, number = now, number + 1
            else:  # the policy keeps it here; perhaps another one comes
                await self._clock.sleep(AGAIN_S)
                self._changed.set()


def _order(each: Holding) -> tuple[str, int, str]:
    return each.project, each.version, each.path


def event_of(node: str, boot: str, number: int, now: float, held: Collection[Holding]) -> Event:
    """What a node says it holds; the newest one counts."""
    fields: dict[str, Setting] = {FIELD: msgspec.json.encode(list(held)).decode()}
    return Event(node, f"{boot}/{WHAT}", number, now, WHAT, fields=fields)


def read_event(event: Event) -> list[Holding]:
    """What a node said that it holds. Raises `BadMessage`."""
    try:
        held = _holdings.decode(str(event.fields.get(FIELD)))
    except UNREADABLE as error:
        raise BadMessage(f"what {event.node} holds cannot be read: {error}") from error
    if len(held) > 2 * MOST:
        raise BadMessage(f"{event.node} says that it holds {len(held)} releases, more than {MOST} can be")
    return held


def passed_on(guard: TrustGuard) -> frozenset[str]:
    """Digests of the releases that a fog's edges may ask for."""
    try:
        return offered(listed(guard.state), {each.sha256 for each in read(guard.state)})
    except Untrusted:  # it is said when an edge asks
        return frozenset()


async def drop_old(
    guard: TrustGuard, cache: Blobs, offload: Offload, expected: Callable[[Collection[str]], None]
) -> None:
    """At a fog: let go of releases that no edge may ask for any more. Until cancelled.

    ``expected`` is told the digests of those that one may.
    """
    before: frozenset[str] = frozenset()
    while True:
        await guard.moved()
        now = passed_on(guard)
        expected(now)
        for digest in before - now:
            await offload(partial(cache.drop, digest))
        before = now
