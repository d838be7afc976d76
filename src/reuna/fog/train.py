"""The fog's part of a round: pass the plan down, collect, fold, pass one partial sum up.

The closing row is made durable before the partial leaves; after a crash the same row and the
same bytes are handed over again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any

import msgspec

from reuna.core import plans
from reuna.core.errors import Corrupted, Refused
from reuna.core.ports import Blob, Bus, Clock, Link, Offload
from reuna.core.readiness import MANY, worse
from reuna.core.records import Contribution, Hello, Member, Plan, Said, Terms
from reuna.exchange.heard import Heard
from reuna.exchange.intake import Intake
from reuna.exchange.moving import short
from reuna.exchange.room import when_there_is_room
from reuna.exchange.rounds import Rounds
from reuna.exchange.weigher import Weigher
from reuna.loop import train
from reuna.wire import PACKS, asks_for, decode_plan, message_digest, packed

log = logging.getLogger("reuna.fog")
NO_DIGEST = "0" * 64  #: of a body that is not written yet


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
        weigher: Weigher | None = None,
    ) -> None:
        self._weigher = weigher or Weigher()
        self.rounds = rounds or Rounds(name, "", None, clock)
        self.name = name
        self.children = frozenset(children)
        #: Child fog -> it and the fogs under it, each with its children.
        self._below: dict[str, dict[str, tuple[str, ...]]] = {}
        self._heard = Heard()
        self._link = link
        self._bus = bus
        self._intake = intake
        self._offload = offload
        self._clock = clock
        self._plan: Plan | None = None
        self._signed = b""
        self._digest = ""
        self._work: asyncio.Task[None] | None = None
        self._closing = asyncio.Lock()  #: held while a round is being closed
        self._handing = False  #: whether the round in hand is closed
        self._beside: set[asyncio.Task[Any]] = set()  #: hand over rounds before, which still count

    async def on_plan(self, data: bytes, signed: bytes, _terms: Terms | None = None) -> None:
        """Begin on a newer plan, dropping the older; go on with the one that runs."""
        plan = decode_plan(data)
        if plans.newer(plan, self._plan):
            await self._make_way(plan)
        elif (self._work and not self._work.done()) or plan.key != (self._plan.key if self._plan else None):
            return
        self._plan, self._signed, self._handing = plan, signed, False
        self._digest = message_digest(data)
        self._work = asyncio.create_task(
            when_there_is_room(lambda: self._combine(plan, data), self._clock, log)
        )

    async def on_hello(self, hello: Hello, fog: bool = False) -> None:
        """A child is there (again): it gets the open plan at once. A ``fog`` also says who is under it."""
        self._heard.take(hello)
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
        return child in self.children and bool(self._heard.present((child,)))

    def told_of(self, fog: str, names: Collection[str]) -> None:
        """Who is right below a fog under this one, as it told by itself."""
        self._below[fog] = {**self._below.get(fog, {}), fog: tuple(sorted(names))}

    def present(self) -> tuple[str, ...]:
        """Children heard of lately, sorted."""
        return self._heard.present(self.children)

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
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        await self._drop()

    async def _drop(self) -> None:
        if self._work is not None and not self._work.done():
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        self._work = None

    async def _make_way(self, plan: Plan) -> None:
        """Drop the round in hand for a newer plan; what is closed goes up where it counts all the same."""
        if not plans.goes_on(self._plan, plan):
            await self.stop()
            return
        async with self._closing:
            if self._work is None or self._work.done() or not self._handing:
                await self._drop()
            else:
                self._keep(self._work)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _announce(self, child: str) -> None:
        """Pass the plan down in the very bytes that the cloud signed."""
        self._heard.asks(child)
        signed = packed(self._signed) if self._heard.speaks.get(child, 0) >= PACKS else self._signed
        await self._bus.publish(f"plan.{child}", signed)

    def _away(self, plan: Plan, missing: Collection[str]) -> frozenset[str]:
        """Children for whom the round need not wait."""
        away = self._heard.away(plan, missing)
        edges = sum(len(train.edges_at(plan, child)) for child in away)
        return away if train.does_without(plan, edges) else frozenset()

    def _left_out(self, plan: Plan, asked: Collection[str]) -> tuple[Member, ...]:
        """Why the round closes without edges that lack, as far as this fog knows."""
        rows = self._intake.rows()
        missing = train.missing(asked, [row.sender for row in rows])
        gone = {edge for child in self._away(plan, missing) for edge in train.edges_at(plan, child)}
        lacking = [edge for child in missing for edge in train.edges_at(plan, child)]
        enough = train.is_enough(plan, rows, train.enough_at(plan, self.name))
        return train.left_out(lacking, gone, enough)

    async def _combine(self, plan: Plan, data: bytes) -> None:
        began, own = self._clock.now(), train.children(plan, self.name)
        older = {child for child, newest in self._heard.speaks.items() if newest < asks_for(plan)}
        asked = {child: data for child in own if child in self.children and child not in older}
        closed = self._intake.open(asked) if asked else False
        for earlier in self._intake.unsent():
            self._keep(asyncio.create_task(self._hand_over(plan, data, earlier)))
        if asked and not closed:
            enough = train.enough_at(plan, self.name)
            await self._intake.collect(self._announce, partial(self._away, plan), enough)
        row = self._intake.closing_row() if closed else None
        if row is None:
            old = {edge for child in older.intersection(own) for edge in train.edges_at(plan, child)}
            known = tuple(Member(edge, absent=train.OLDER) for edge in sorted(old))
            known += self._left_out(plan, asked)
            said = (await self._link.rehearse(data, MANY)).said if plan.task == "check" else ()
            async with self._closing:
                row = await self._offload(lambda: self._close(plan, data, asked, known, said))
                self._handing = True
        if await self._hand_over(plan, data, row):
            self.rounds.done(plan, began)

    async def _hand_over(self, plan: Plan, data: bytes, row: Contribution) -> bool:
        """To the parent; False when it is answered long ago, or stays here."""
        try:
            body = self._intake.spool.body(row) if row.size else None
        except Corrupted:  # its bytes went when a later round began: a late plan, answered long ago
            return False
        try:
            await self._link.hand_over(data, row, body)
        except Refused:  # by this site's policy; the egress has said why
            return False
        return True

    def _close(
        self,
        plan: Plan,
        data: bytes,
        asked: dict[str, bytes],
        known: Iterable[Member],
        said: tuple[Said, ...],
    ) -> Contribution:
        """``said``: what this fog's own policy says of what would leave for the cloud.

        Nobody asks any more for bodies of rounds before those that a plan counts.
        """
        self._intake.spool.drop(plan.run, plan.round - len(plan.bases))
        rows = self._intake.freeze(plan.key) if asked else []
        refused = {**self._intake.newly_refused(), **train.passed_on(rows)}
        if plan.buffer:
            row = train.buffered_row(plan, message_digest(data), self.name, rows, refused)
            return self._kept(plan, row, rows)
        edges = train.edges_of(plan, self.name)
        row = train.closing_row(plan, message_digest(data), self.name, edges, rows, refused, known)
        if said:
            members = (msgspec.structs.replace(each, said=worse(each.said, said)) for each in row.members)
            row = msgspec.structs.replace(row, members=tuple(members))
        return self._kept(plan, row, rows)

    def _kept(self, plan: Plan, row: Contribution, rows: list[Contribution]) -> Contribution:
        """The row that closes the round, durable with its body."""
        body = None
        if plan.task == "train" and train.taking_part(rows):
            row, body = (self._fold if plan.combine == "sum" else self._gather)(row, plan, rows)
        self._intake.close(row, body)
        return row

    def _fold(self, row: Contribution, plan: Plan, rows: list[Contribution]) -> tuple[Contribution, Blob]:
        """The sum's manifest and its body."""
        draft = train.with_sum(row, plan, rows, NO_DIGEST)
        begin = self._intake.spool.begin
        return self._weigher.write(plan, draft, lambda: self._intake.sum(rows, plan.params), begin)

    def _gather(self, row: Contribution, plan: Plan, rows: list[Contribution]) -> tuple[Contribution, Blob]:
        """The same of the updates as they came, where the cloud has to see each."""
        draft = train.with_updates(row, plan, rows, NO_DIGEST)
        begin = self._intake.spool.begin
        return self._weigher.write(plan, draft, lambda: self._intake.values(rows), begin)
