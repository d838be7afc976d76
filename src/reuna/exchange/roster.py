"""Who is below a fog, for who is above it: changes go up, and the whole only when one of them was missed.

    roster.<fog>   fog to parent   who joined and who is gone, or a page of the whole
    whole.<fog>    parent to fog   tell the whole again
    hello.<fog>    fog to parent   how far it has told: where that is not what the parent holds, it asks

Messages may be lost, come twice or late, and either side may start anew: each hello that comes through
finds out, so that the parent holds what the fog does when words come through again. While nothing changes a
hello has some 20 bytes of this, however many edges there are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from reuna.core.errors import BadMessage, PermissionDenied
from reuna.core.ports import Bus, Clock
from reuna.core.records import Hello
from reuna.core.roster import MOST, PAGES, Roster, RosterAsked, Stand, changed, digest_of
from reuna.exchange.presence import SOON_S
from reuna.wire import decode, encode

log = logging.getLogger("reuna.presence")
TELLS, ASKS = "roster", "whole"  #: first words of the subjects
BURST = 8  #: changes told at once before they are told together
TOGETHER = 4  #: looks after which a further one may be told
AGAIN_S = 1.0  #: the whole is told, and asked for, at most so often

#: Publish under a word and this node's name, as the site's policy lets it; whether somebody heard it.
Say = Callable[[str, bytes], Awaitable[bool]]


class Telling:
    """What a node has told of who is below it. Decides; sends nothing."""

    def __init__(self, life: str) -> None:
        self._life = life
        self._serial = 0
        self._digest = 0
        self._names: frozenset[str] = frozenset()

    @property
    def stand(self) -> Stand:
        return Stand(self._life, self._serial, self._digest)

    def told(self, names: Collection[str]) -> tuple[Roster, ...]:
        """What to say so that the parent knows of these names; they count as told from now on."""
        after = frozenset(names)
        joined, gone = after - self._names, self._names - after
        if not joined and not gone:
            return ()
        self._names, self._serial = after, self._serial + 1
        self._digest = changed(self._digest, joined, gone)
        if len(joined) > MOST or len(gone) > MOST:
            return self.whole()
        return (Roster(self.stand, tuple(sorted(joined)), tuple(sorted(gone))),)

    def whole(self) -> tuple[Roster, ...]:
        """All of it, in pages."""
        names = sorted(self._names)
        parts = [tuple(names[first : first + MOST]) for first in range(0, len(names), MOST)] or [()]
        return tuple(Roster(self.stand, part, (), page, len(parts)) for page, part in enumerate(parts))


class Heard(NamedTuple):
    """Who came and who went by a word that was heard, and whether what is held is what was told."""

    joined: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()
    agrees: bool = True


MISSED = Heard(agrees=False)
NOTHING_NEW = Heard()


class Known:
    """What a parent holds of who is below one node. Decides; asks nobody.

    ``names`` may be of an earlier life of the parent: when the first digest heard is theirs, they count.
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        self.names = frozenset(names)
        self._digest = digest_of(self.names)
        self._life = ""
        self.serial = -1
        self._parts: dict[int, tuple[str, ...]] = {}
        self._of = Stand("-", 0, 0)  #: of what the parts are

    def stand(self, said: Stand) -> Heard:
        """A hello: how far the node has told."""
        if said.digest == self._digest:
            self._life, self.serial = said.life, said.serial
            return NOTHING_NEW
        return NOTHING_NEW if self._is_old(said) else MISSED

    def hear(self, told: Roster) -> Heard:
        """A change, or a page of the whole. Raises `BadMessage` for more pages or names than there may be."""
        if self._is_old(told.stand) or told.stand == Stand(self._life or "-", self.serial, self._digest):
            return NOTHING_NEW
        if told.pages:
            return self._page(told)
        is_next = told.stand.life == self._life and told.stand.serial == self.serial + 1
        if not is_next and told.stand.serial != 1:
            return self.stand(told.stand)
        before = self.names if is_next else frozenset()
        return self._become((before | set(told.joined)) - set(told.gone), told.stand)

    def _is_old(self, said: Stand) -> bool:
        return said.life == self._life and said.serial < self.serial

    def _page(self, told: Roster) -> Heard:
        """Nothing until the last of them is here."""
        if told.page >= told.pages:
            raise BadMessage(f"page {told.page} of {told.pages}")
        if told.stand != self._of:
            self._of, self._parts = told.stand, {}
        self._parts[told.page] = told.joined
        if len(self._parts) < told.pages:
            return NOTHING_NEW
        parts, self._parts = self._parts, {}
        return self._become(frozenset(name for part in parts.values() for name in part), told.stand)

    def _become(self, names: frozenset[str], stand: Stand) -> Heard:
        """Those names, when they are what the digest is of."""
        if len(names) > PAGES * MOST:
            raise BadMessage(f"{len(names)} edges below one fog, more than {PAGES * MOST}")
        joined, gone = names - self.names, self.names - names
        digest = changed(self._digest, joined, gone)
        if digest != stand.digest:
            return MISSED
        self.names, self._digest = names, digest
        self._life, self.serial = stand.life, stand.serial
        return Heard(joined, gone)


class RosterTeller:
    """The fog's side, in its egress."""

    def __init__(self, name: str, life: str, say: Say, clock: Clock) -> None:
        self._name = name
        self._telling = Telling(life)
        self._say = say
        self._clock = clock
        self._whole_at = -AGAIN_S

    async def tell(self, names: Collection[str]) -> None:
        """Say who came and went since the last time; nothing when that is nobody.

        What nobody hears the parent asks for after the next hello.
        """
        await self._send(self._telling.told(names))

    async def in_hello(self, hello: Hello) -> Hello:
        """The hello of the place as it goes up: how far was told in place of all names."""
        await self.tell(hello.children)
        return msgspec.structs.replace(hello, children=(), below=self._telling.stand)

    async def listen(self, bus: Bus) -> None:
        """Answer a parent that asks for the whole."""

        async def asked(_subject: str, data: bytes) -> None:
            try:
                held = decode(RosterAsked, data).serial
            except BadMessage as error:
                log.warning("refused a question for who is below: %s", error)
                return
            now = self._clock.now()
            if 0 <= now - self._whole_at < AGAIN_S:
                return
            self._whole_at = now
            log.info("the parent asks for who is below: it holds %d", held)
            await self._send(self._telling.whole())

        try:
            await bus.subscribe(f"{ASKS}.{self._name}", asked)
        except PermissionDenied:
            log.warning("the server lets nobody ask this node for who is below")

    async def _send(self, messages: Sequence[Roster]) -> None:
        if len(messages) > PAGES:
            log.error("more than %d edges are below this node: who they are is not told", PAGES * MOST)
            return
        for each in messages:
            if not await self._say(TELLS, encode(each)):
                return


class Rosters:
    """The parent's side: what each child told of who is below it, and asking when a part is missing."""

    def __init__(self, bus: Bus, clock: Clock, held: dict[str, Known]) -> None:
        self.held = held
        self._bus = bus
        self._clock = clock
        self._asked: dict[str, float] = {}

    async def on_hello(self, hello: Hello) -> Heard:
        """Whoever is of an older protocol names all of them each time."""
        known = self.held.setdefault(hello.node, Known())
        if hello.below is None:
            before, self.held[hello.node] = known.names, Known(hello.children)
            after = self.held[hello.node].names
            return Heard(after - before, before - after)
        return await self._judged(hello.node, known.stand(hello.below))

    async def on_roster(self, child: str, data: bytes) -> Heard:
        """Raises `BadMessage`."""
        told = decode(Roster, data)
        return await self._judged(child, self.held.setdefault(child, Known()).hear(told))

    async def _judged(self, child: str, heard: Heard) -> Heard:
        now = self._clock.now()
        if not heard.agrees and not 0 <= now - self._asked.get(child, -AGAIN_S) < AGAIN_S:
            self._asked[child] = now
            await self._bus.publish(f"{ASKS}.{child}", encode(RosterAsked(self.held[child].serial)))
        return heard


class Pace:
    """How long a change waits to be told: `BURST` of them not at all, later ones for others beside them."""

    def __init__(self, look_s: float, now: float) -> None:
        self._refill_s = TOGETHER * look_s
        self._left, self._at = float(BURST), now

    def wait_s(self, now: float) -> float:
        """Seconds until a change may be told."""
        return max(0.0, (1.0 - self._filled(now)) * self._refill_s)

    def told(self, now: float) -> None:
        """A change was told."""
        self._left, self._at = self._filled(now) - 1.0, now

    def _filled(self, now: float) -> float:
        return min(float(BURST), self._left + (now - self._at) / self._refill_s)


class BelowKeeper:
    """``tell`` takes the names of who is below as they are now; ``look_s``: some go without a word.

    What is new is told at once, `BURST` times; where edges come and go all the time, each `TOGETHER` looks,
    so that the words of many fogs stay few.
    """

    def __init__(
        self,
        names: Callable[[], Sequence[str]],
        tell: Callable[[Sequence[str]], Awaitable[None]],
        look_s: float,
    ) -> None:
        self._names = names
        self._tell = tell
        self._look_s = look_s
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Somebody came or went."""
        self._changed.set()

    async def keep(self) -> None:
        """Tell of each change, those of a moment together. Until cancelled."""
        now, told = asyncio.get_running_loop().time, frozenset(self._names())
        pace = Pace(self._look_s, now())
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_s):
                    await self._changed.wait()
            if self._changed.is_set() or frozenset(self._names()) != told:
                await asyncio.sleep(max(SOON_S, pace.wait_s(now())))
                pace.told(now())
            self._changed.clear()
            names = self._names()
            told = frozenset(names)
            await self._tell(names)
