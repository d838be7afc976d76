"""The fog's part of a round: pass the plan down, collect, fold, pass one partial sum up.

The closing row is made durable before the partial leaves; after a crash the same row and the
same bytes are handed over again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable

import msgspec

from reuna.core.errors import Corrupted, Refused
from reuna.core.ports import Blob, Bus, Clock, Link, Offload
from reuna.core.readiness import MANY, worse
from reuna.core.records import Contribution, Hello, Member, Plan, Said
from reuna.exchange.bodies import write_body
from reuna.exchange.intake import Intake
from reuna.exchange.moving import short
from reuna.exchange.room import when_there_is_room
from reuna.exchange.rounds import Rounds
from reuna.loop import train
from reuna.wire import PACKS, asks_for, decode_plan, message_digest, packed

log = logging.getLogger("reuna.fog")
NO_DIGEST = "0" * 64  #: of a body that is not written yet
PRESENT_S = 30.0  #: an edge that was not heard of for so long is not named as present,
LATE = 2.5  #: nor for so many times of what it said itself


class Combiner:
    """Carries out the newest plan of the fog, one at a time."""

    def __init__(
        self,
        name: str,
        children: Collection[str],
        link: Link,
        bus: Bus,
        intake: Intake,
        offload: Offload,
        clock: Clock,
        rounds: Rounds | None = None,
    ) -> None:
        self.rounds = rounds or Rounds(name, "", None, clock)
        self.name = name
        self.children = frozenset(children)
        self._until: dict[str, float] = {}  #: child -> when it is not present any more
        self._speaks: dict[str, int] = {}  #: child -> the newest protocol of its last hello
        #: Child fog -> it and the fogs under it, each with its children.
        self._below: dict[str, dict[str, tuple[str, ...]]] = {}
        self._link = link
        self._bus = bus
        self._intake = intake
        self._offload = offload
        self._clock = clock
        self._plan: Plan | None = None
        self._signed = b""
        self._digest = ""
        self._work: asyncio.Task[None] | None = None

    async def on_plan(self, data: bytes, signed: bytes) -> None:
        """Begin on a newer plan, dropping the older; go on with the one that runs."""
        plan = decode_plan(data)
        if train.newer(plan, self._plan):
            await self.stop()
        elif (self._work and not self._work.done()) or plan.key != (self._plan.key if self._plan else None):
            return
        self._plan, self._signed, self._digest = plan, signed, message_digest(data)
        self._work = asyncio.create_task(
            when_there_is_room(lambda: self._combine(plan, data), self._clock, log)
        )

    async def on_hello(self, hello: Hello, fog: bool = False) -> None:
        """A child is there (again): it gets the open plan at once. A ``fog`` also says who is under it."""
        until = asyncio.get_running_loop().time() + max(PRESENT_S, LATE * hello.every_s)
        self._until[hello.node] = until
        self._speaks[hello.node] = hello.protocol
        if fog:
            self._below[hello.node] = {hello.node: hello.children, **hello.fogs}
        if self._plan and self._intake.hears(hello) and self._intake.ask(hello.node) is not None:
            await self._announce(hello.node)

    @property
    def works_on(self) -> str:
        """For a hello: the plan that it works on."""
        return short(self._digest) if self._work is not None and not self._work.done() else ""

    def is_present(self, child: str) -> bool:
        """Whether a child of ours was heard of lately."""
        return child in self.children and self._until.get(child, 0.0) > asyncio.get_running_loop().time()

    def told_of(self, fog: str, names: Collection[str]) -> None:
        """Who is right below a fog under this one, as it told by itself."""
        self._below[fog] = {**self._below.get(fog, {}), fog: tuple(sorted(names))}

    def present(self) -> tuple[str, ...]:
        """Children heard of lately, sorted."""
        now = asyncio.get_running_loop().time()
        return tuple(sorted(child for child in self.children if self._until.get(child, 0.0) > now))

    def below(self) -> dict[str, tuple[str, ...]]:
        """Each fog under this one that is present, with the children it last told of."""
        found: dict[str, tuple[str, ...]] = {}
        for child in self.present():
            found |= self._below.get(child, {})
        return found

    def may_tell(self, fog: str, node: str) -> bool:
        """Whether a fog under this one may speak of a node: itself, and who stands under nobody else here."""
        if node == fog:
            return True
        others = {self.name, *self.children}
        for child, fogs in self._below.items():
            if child != fog:
                others.update(*fogs.values())
        return node not in others

    async def stop(self) -> None:
        """Drop the round in hand; its committed rows stay."""
        if self._work is not None and not self._work.done():
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        self._work = None

    async def _announce(self, child: str) -> None:
        """Pass the plan down in the very bytes that the cloud signed."""
        signed = packed(self._signed) if self._speaks.get(child, 0) >= PACKS else self._signed
        await self._bus.publish(f"plan.{child}", signed)

    async def _combine(self, plan: Plan, data: bytes) -> None:
        began, own = self._clock.now(), train.children(plan, self.name)
        older = {child for child, newest in self._speaks.items() if newest < asks_for(plan)}
        asked = {child: data for child in own if child in self.children and child not in older}
        closed = self._intake.open(asked) if asked else False
        if asked and not closed:
            await self._intake.collect(self._announce)
        row = self._intake.closing_row() if closed else None
        if row is None:
            old = {edge for child in older.intersection(own) for edge in train.edges_at(plan, child)}
            known = tuple(Member(edge, absent=train.OLDER) for edge in sorted(old))
            said = (await self._link.rehearse(data, MANY)).said if plan.task == "check" else ()
            row = await self._offload(lambda: self._close(plan, data, asked, known, said))
        try:
            body = self._intake.spool.body(row) if row.size else None
        except Corrupted:  # its bytes went when a later round began: a late plan, answered long ago
            return
        try:
            await self._link.hand_over(data, row, body)
        except Refused:  # by this site's policy; the egress has said why
            return
        self.rounds.done(plan, began)
        await self._offload(lambda: self._intake.spool.drop(plan.run, plan.round))

    def _close(
        self,
        plan: Plan,
        data: bytes,
        asked: dict[str, bytes],
        known: Iterable[Member],
        said: tuple[Said, ...],
    ) -> Contribution:
        """``said``: what this fog's own policy says of what would leave for the cloud."""
        rows = self._intake.freeze(plan.key) if asked else []
        refused = {**self._intake.newly_refused(), **train.passed_on(rows)}
        edges = train.edges_of(plan, self.name)
        row = train.closing_row(plan, message_digest(data), self.name, edges, rows, refused, known)
        if said:
            members = (msgspec.structs.replace(each, said=worse(each.said, said)) for each in row.members)
            row = msgspec.structs.replace(row, members=tuple(members))
        body = None
        if plan.task == "train" and train.taking_part(rows):
            row, body = (self._fold if plan.combine == "sum" else self._gather)(row, plan, rows)
        self._intake.close(row, body)
        return row

    def _fold(self, row: Contribution, plan: Plan, rows: list[Contribution]) -> tuple[Contribution, Blob]:
        """The sum's manifest and its body."""
        draft = train.with_sum(row, plan, rows, NO_DIGEST)
        begin = self._intake.spool.begin
        return write_body(draft, train.packs(plan), lambda: self._intake.sum(rows, plan.params), begin)

    def _gather(self, row: Contribution, plan: Plan, rows: list[Contribution]) -> tuple[Contribution, Blob]:
        """The same of the updates as they came, where the cloud has to see each."""
        draft = train.with_updates(row, plan, rows, NO_DIGEST)
        begin = self._intake.spool.begin
        return write_body(draft, train.packs(plan), lambda: self._intake.values(rows), begin)
