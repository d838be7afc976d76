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
        edges: Collection[str],
        link: Link,
        bus: Bus,
        intake: Intake,
        offload: Offload,
        clock: Clock,
        rounds: Rounds | None = None,
    ) -> None:
        self.rounds = rounds or Rounds(name, "", None, clock)
        self.name = name
        self.edges = frozenset(edges)
        self._until: dict[str, float] = {}  #: edge -> when it is not present any more
        self._speaks: dict[str, int] = {}  #: edge -> the newest protocol of its last hello
        self._link = link
        self._bus = bus
        self._intake = intake
        self._offload = offload
        self._clock = clock
        self._plan: Plan | None = None
        self._signed = b""
        self._work: asyncio.Task[None] | None = None

    async def on_plan(self, data: bytes, signed: bytes) -> None:
        """Begin on a newer plan, dropping the older; go on with the one that runs."""
        plan = decode_plan(data)
        if train.newer(plan, self._plan):
            await self.stop()
        elif (self._work and not self._work.done()) or plan.key != (self._plan.key if self._plan else None):
            return
        self._plan, self._signed = plan, signed
        self._work = asyncio.create_task(
            when_there_is_room(lambda: self._combine(plan, data), self._clock, log)
        )

    async def on_hello(self, hello: Hello) -> None:
        """An edge is there (again): it gets the open plan at once."""
        until = asyncio.get_running_loop().time() + max(PRESENT_S, LATE * hello.every_s)
        self._until[hello.node] = until
        self._speaks[hello.node] = hello.protocol
        if self._plan and self._intake.ask(hello.node) is not None:
            await self._announce(hello.node)

    def is_present(self, edge: str) -> bool:
        """Whether an edge of ours was heard of lately."""
        return edge in self.edges and self._until.get(edge, 0.0) > asyncio.get_running_loop().time()

    def present(self) -> tuple[str, ...]:
        """Edges heard of lately, sorted."""
        now = asyncio.get_running_loop().time()
        return tuple(sorted(edge for edge in self.edges if self._until.get(edge, 0.0) > now))

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
        older = {edge for edge, newest in self._speaks.items() if newest < asks_for(plan)}
        began = self._clock.now()
        asked = {edge: data for edge in plan.cohort if edge in self.edges and edge not in older}
        closed = self._intake.open(asked) if asked else False
        if asked and not closed:
            await self._intake.collect(self._announce)
        row = self._intake.closing_row() if closed else None
        if row is None:
            known = tuple(Member(edge, absent=train.OLDER) for edge in plan.cohort if edge in older)
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
        refused = self._intake.newly_refused()
        row = train.closing_row(plan, message_digest(data), self.name, plan.cohort, rows, refused, known)
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
