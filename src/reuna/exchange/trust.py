"""What a node accepts from above: the metadata it keeps, the plans it lets through.

The egress asks `TrustGuard` about each plan; what is fetched, and from whom, is an argument.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from reuna.adapters.trust_store import TrustStore
from reuna.core.errors import KeyProblem, Refused, StorageError, Unreachable, Untrusted
from reuna.core.ports import Clock
from reuna.core.records import News
from reuna.loop.plan import shared
from reuna.trust.gate import plan_gate
from reuna.trust.metadata import TrustState, begin, complete, refresh, take, wanted
from reuna.trust.plans import About, Accepted, PlanGate, verify_plan
from reuna.trust.requests import Hidden
from reuna.trust.targets import Target, among, target, unsigned
from reuna.wire import decode_plan

log = logging.getLogger("reuna.trust")

#: Name of a metadata file and the most bytes that may be read of it -> its bytes, None when the
#: parent has none. Raises `Unreachable`.
Fetch = Callable[[str, int], Awaitable[bytes | None]]
FIRST_S = 0.2  #: between two walks of a node that has not accepted any metadata yet
LOOKED = 64  #: bundles that were looked for once; what waits longer waits for the ordinary walk
SOON_S = 10.0  #: at least so long between two walks that refused plans ask for
HASTY_S = 0.5  #: and that news ask for; twice as long each time that one brought nothing, up to `SOON_S`
WORTH_A_WALK = {"signature", "expired", "missing"}  #: refusals that newer metadata may cure


class TrustGuard:
    """Holds what this node trusts, and moves it on."""

    def __init__(self, store: TrustStore, state: TrustState, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._asked = asyncio.Event()
        self._heard = asyncio.Event()
        self._moved = asyncio.Event()
        self._complete = asyncio.Event()
        self._walking = asyncio.Lock()
        self._floor = store.floor()
        self._take_over(state)

    @classmethod
    def open(cls, store: TrustStore, fleet: str, pin: bytes | None, clock: Clock) -> TrustGuard:
        """Go on with what was accepted before; a new node begins with the root brought to it.

        Raises `KeyProblem` when there is neither, `Untrusted` when the root is not the fleet's.
        """
        state = store.state()
        if state is None:
            if pin is None:
                raise KeyProblem("this node has no root to trust", "Bring it the fleet's root.json.")
            state = begin(fleet, pin)
            store.keep(state, {f"{state.root.version}.root.json": pin})
        if state.fleet != fleet:
            raise KeyProblem(f"this node trusts fleet {state.fleet!r}, its settings say {fleet!r}")
        return cls(store, state, clock)

    def _take_over(self, state: TrustState) -> None:
        self.state = state
        self._moved.set()
        self._gate: PlanGate | None = plan_gate(state) if complete(state) else None
        if self._gate is not None:
            self._complete.set()

    async def refresh(self, fetch: Fetch) -> None:
        """Walk to the newest metadata. A refusal leaves all as it was, but for new roots.

        Raises `Untrusted`, `DiskFull` and what ``fetch`` raises.
        """
        async with self._walking:  # the slower of two would bring back what is older
            step, files = refresh(self.state, self._clock.now()), {}
            while (file := wanted(step)) is not None:
                data = await fetch(file.name, file.limit)
                step = take(step, data)
                if data is not None:
                    files[file.name] = data
                if step.stage == "root":
                    self._keep(step.state, files)
            self._keep(step.state, files)

    async def walk(self, fetch: Fetch) -> bool:
        """`refresh`; what stands against it is said in the log, and False is returned."""
        try:
            await self.refresh(fetch)
        except (Untrusted, Unreachable, Refused, StorageError) as error:
            log.warning("metadata stays as it was: %s %s", error.code, error)
            return False
        return True

    def version(self) -> int:
        """That of the accepted timestamp, 0 when there is none."""
        held = self.state.files.get("timestamp")
        return held.version if held else 0

    def hear(self, news: News) -> None:
        """The parent says that there is something newer: walk soon. Nothing of it is believed."""
        if news.timestamp > self.version():
            self._heard.set()

    async def moved(self) -> None:
        """Return at once the first time, then whenever something else was accepted. For one caller."""
        await self._moved.wait()
        self._moved.clear()

    def _keep(self, state: TrustState, files: dict[str, bytes]) -> None:
        if state != self.state:
            self._store.keep(state, files)
            self._take_over(state)

    async def keep_fresh(self, fetch: Fetch, every_s: float) -> None:
        """Walk now, every ``every_s`` seconds, at news, and soon after a refusal that a walk may cure."""
        hasty = HASTY_S
        while True:
            self._asked.clear()
            hinted = self._heard.is_set()
            self._heard.clear()
            before = self.state
            if not await self.walk(fetch) and hinted:
                self._heard.set()  # what was told of may be there at the next try
            if self._gate is None:  # a new node, whose parent may be new as well
                await self._clock.sleep(FIRST_S)
                continue
            hasty = HASTY_S if self.state != before else min(2 * hasty, SOON_S)
            await self._clock.sleep(min(hasty, every_s))
            await self._until(min(SOON_S, every_s) - hasty, self._heard)
            if not self._heard.is_set():
                await self._until(every_s - SOON_S, self._heard, self._asked)

    async def ready(self) -> None:
        """Return when this node has accepted the fleet's metadata once; later it needs no line for that."""
        await self._complete.wait()

    async def _until(self, seconds: float, *events: asyncio.Event) -> None:
        """Until one of the events is set, or so long."""
        waits: list[asyncio.Future[object]] = [asyncio.ensure_future(each.wait()) for each in events]
        waits.append(asyncio.ensure_future(self._clock.sleep(max(0.0, seconds))))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    def plan(self, signed: bytes) -> bytes:
        """The plan inside. Nothing older of its run, and no older run, is accepted again.

        The newest round of a run is kept in memory; that the run began is made durable. A node that
        lost power may so hear a round of the same run again that it has answered: the row of its answer
        is durable, and the parent refuses it as closed. Raises `Untrusted`, `BadMessage` and `DiskFull`.
        """
        try:
            if self._gate is None:
                raise Untrusted("missing", "this node has not yet accepted the fleet's metadata")
            accepted = verify_plan(self._gate, self._floor, signed, self._clock.now(), _about)
        except Untrusted as error:
            if error.reason in WORTH_A_WALK:
                self._asked.set()
            raise
        if accepted.floor.runs.keys() != self._floor.runs.keys():
            self._store.keep_floor(accepted.floor)
        if accepted.floor != self._floor:
            _note(accepted)
        self._floor = accepted.floor
        return accepted.plan

    def plan_keys(self) -> frozenset[bytes]:
        """Public keys of the cloud: it signs plans with them, and countersigns heads of ledgers."""
        return frozenset() if self._gate is None else frozenset(self._gate.keys.values())

    def among(self, names: Iterable[str]) -> Hidden:
        """Among how many nodes of the fleet's signed roster something hides. Raises `Untrusted`."""
        return among(self.state, names)

    def target(self, path: str) -> Target:
        """What may come down under that path, by the newest metadata. Raises `Untrusted`."""
        return target(self.state, path, self._clock.now())

    def unsigned(self, bundle: str) -> str:
        """See `reuna.trust.targets.unsigned`; one that is lacking makes this node look soon."""
        try:
            why = unsigned(self.state, bundle, self._clock.now())
        except Untrusted as error:
            why = f"waits: {error.message}"
        if why:
            self._asked.set()
        return why


class CodeRole:
    """Whether the fleet's code role vouches for a bundle, by metadata as new as the bundle."""

    def __init__(self, guard: TrustGuard, fetch: Fetch) -> None:
        self._guard = guard
        self._fetch = fetch
        self._looked: dict[str, None] = {}  #: bundles that were looked for, the oldest first

    async def unsigned(self, bundle: str) -> str:
        """Why not, empty when it does. A bundle that was not asked about before is looked for at once."""
        why = self._guard.unsigned(bundle)
        if why and bundle not in self._looked:
            self._looked[bundle] = None
            if len(self._looked) > LOOKED:
                self._looked.pop(next(iter(self._looked)))
            await self._guard.walk(self._fetch)
            why = self._guard.unsigned(bundle)
        return why


def _about(data: bytes) -> About:
    plan = decode_plan(data)
    return About(*plan.key, shared=shared(plan), before=plan.before)


def _note(accepted: Accepted) -> None:
    """For officers of two sites who compare what they were asked."""
    about = accepted.about
    how = "" if accepted.follows else "; the round before it was not given to this node"
    log.info("round %d of %s asks of every fog: %s%s", about.round, about.run, about.shared, how)
