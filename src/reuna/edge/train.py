"""The edge's part of a round: hear a plan, train, hand the result to the egress.

A plan heard again is answered again with the same bytes (the egress kept them), so a parent
that lost its memory is served and one that did not answers with the same receipt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from reuna.core import bins, fingerprint, plans
from reuna.core.bins import Counted
from reuna.core.contract import Line, contract
from reuna.core.contract_report import WHAT as CONTRACT
from reuna.core.contract_report import as_fields, of_contract
from reuna.core.errors import DiskFull, NotApproved, Refused, ReunaError
from reuna.core.fingerprint import Window
from reuna.core.plans import work_seed
from reuna.core.ports import Blob, Clock, Link
from reuna.core.readiness import needs_of
from reuna.core.records import Event, Member, Metrics, Plan, Setting, Terms
from reuna.edge import ready
from reuna.exchange.inline import model_inside
from reuna.exchange.moving import short
from reuna.exchange.room import when_there_is_room
from reuna.exchange.rounds import Rounds
from reuna.wire import decode_plan, message_digest

log = logging.getLogger("reuna.edge")
T = TypeVar("T")
#: Called with a run that a node trains in, and the column of its label.
OnTraining = Callable[[str, str], None]
MAX_REASON = 300  #: characters of an error in an event


@dataclass(frozen=True)
class Fitted:
    """What training gave: the new model's bytes, its samples, its metrics."""

    weights: Blob
    weight: int
    metrics: Metrics


class Workshop(ready.Workshop, Protocol):
    """Where the learner runs: one worker per bundle, resident between rounds."""

    lines: tuple[Line, ...]  #: how the data keep the contract, since they were last opened
    bins: tuple[Counted, ...]  #: how those are spread that it trains on; none when they break it
    window: Window | None  #: the data of that, as they may be told of

    @property
    def level(self) -> int:
        """Level of the sandbox in which the project's code runs."""

    async def open(self, run: str, bundle: Blob, settings: Mapping[str, Setting], terms: Terms) -> None:
        """Make ready the bundle's code and as much of this node's data as it may read.

        A no-op when it is open already. Raises `SandboxTooWeak` below the level of the terms,
        `ContractBroken` for data that no learner gets to see.
        """

    def hold(self, bundle: Blob, why: str) -> None:
        """Keep a bundle that waits for its approval, for the site's officers to look at."""

    async def fit(self, model: Blob, settings: Mapping[str, Setting], seed: int) -> Fitted: ...

    async def evaluate(self, model: Blob, settings: Mapping[str, Setting]) -> Metrics: ...


class Trainer:
    """Works on the newest plan, one at a time."""

    def __init__(
        self,
        name: str,
        boot: str,
        link: Link,
        workshop: Workshop,
        clock: Clock,
        rounds: Rounds | None = None,
        on_training: OnTraining | None = None,
    ) -> None:
        """``on_training`` hears of each run that this node trains in, and the column of its label."""
        self._rounds = rounds or Rounds(name, boot, None, clock)
        self.name = name
        self._boot = boot
        self._link = link
        self._workshop = workshop
        self._clock = clock
        self._on_training = on_training
        self._plan: Plan | None = None
        self._newest = b""  #: the newest plan that it works on, or takes up next
        self._next: tuple[Plan, bytes] | None = None  #: what it takes up when it has done what it is at
        self._terms: Terms | None = None  #: of the plan that was begun last, until they are used
        self._bundle: Blob | None = None
        self._work: asyncio.Task[None] | None = None
        self._events = 0
        self._waits = ("", "")  #: run and bundle that waited last for the site's officers
        self._judged = ("", "")  #: run and bundle of which it was said how the data keep the contract
        self._shown = ("", "", "", "")  #: the same of which data it has, and which these were
        self._noted = ""  #: run that it was last said to train in
        self._telling: set[asyncio.Task[bool]] = set()
        self.trained: list[tuple[str, int, int]] = []

    async def on_plan(self, data: bytes, _signed: bytes, terms: Terms | None = None) -> None:
        """Begin on a newer plan and drop the older; where that counts all the same it is done first.

        ``terms`` on which its code may run are those of this moment.
        """
        plan = decode_plan(data)
        if self._busy() and plans.goes_on(self._plan, plan):
            if plans.newer(plan, self._next[0] if self._next else self._plan):
                self._next, self._newest = (plan, data), data
            return
        if plans.newer(plan, self._plan):
            await self.stop()
        elif self._busy() or plan.key != (self._plan.key if self._plan else None):
            return
        self._plan, self._newest, self._terms = plan, data, terms
        self._work = asyncio.create_task(self._work_on(plan, data))

    async def stop(self) -> None:
        """Drop the work in hand."""
        if self._work is not None and not self._work.done():
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        self._work = self._next = None

    @property
    def works_on(self) -> str:
        """For a hello: the newest plan that it works on, or takes up next."""
        return short(message_digest(self._newest)) if self._busy() else ""

    def _busy(self) -> bool:
        return self._work is not None and not self._work.done()

    async def _work_on(self, plan: Plan, data: bytes) -> None:
        """Answer the plan, and then the newest that came meanwhile."""
        newest: tuple[Plan, bytes] | None = (plan, data)
        while newest is not None:
            self._plan, self._newest, self._next = newest[0], newest[1], None
            await self._answer(*newest)
            newest = self._next

    async def _answer(self, plan: Plan, data: bytes) -> None:
        try:
            if plan.task == "check":
                await self._check(plan, data)
                return
            began = self._clock.now()
            weights, weight, member = await self._in_time(plan, lambda: self._carry_out(plan))
            level = self._workshop.level
            await self._in_time(plan, lambda: self._link.submit(data, weights, weight, member, level))
            self._rounds.done(plan, began)
        except ReunaError as error:
            self._bundle = None
            await self._sit_out(plan, data, error)

    async def _in_time(self, plan: Plan, work: Callable[[], Awaitable[T]]) -> T:
        """Work for a plan, waiting for a disk that is full; the cloud is told of it afterwards."""

        async def told(seconds: float) -> None:
            await self._emit("disk was full", plan, {"seconds": seconds, "code": DiskFull.code})

        return await when_there_is_room(work, self._clock, log, told)

    async def _carry_out(self, plan: Plan) -> tuple[Blob | None, int, Member]:
        terms = self._terms_now(plan)
        bundle = await self._code(plan)
        try:
            terms = terms or await self._link.approved(plans.work(plan))
        except NotApproved as error:
            self._workshop.hold(bundle, error.message)
            raise
        try:
            await self._workshop.open(plan.run, bundle, plan.settings, terms)
        finally:
            self._tell_contract(plan)
        self._tell_data(plan)
        model = model_inside(plan) or await self._link.fetch(plan.model, plan.model_size)
        if plan.task == "train":
            self._note(plan)
            fitted = await self._workshop.fit(model, plan.settings, self._seed(plan))
            self.trained.append(plan.key)
            log.info("trained round %d attempt %d of %s", plan.round, plan.attempt, plan.run)
            return fitted.weights, fitted.weight, Member(self.name, fitted.weight, metrics=fitted.metrics)
        if plan.task == "local":
            model = (await self._workshop.fit(model, alone(plan.settings), self._seed(plan))).weights
        metrics = await self._workshop.evaluate(model, plan.settings)
        return None, 0, Member(self.name, metrics=metrics)

    async def _check(self, plan: Plan, data: bytes) -> None:
        """Say whether this node is ready for such a run, or which data it has; see `reuna.edge.ready`."""
        if needs_of(plan.settings).window:
            member = await self._in_time(plan, lambda: self._which_data(plan, data))
            await self._in_time(plan, lambda: self._link.submit(data, None, 0, member))
            return

        async def look() -> tuple[Member, int]:
            return await ready.answer(
                self.name, plan, data, self._link, self._workshop, lambda: self._code(plan)
            )

        member, level = await self._in_time(plan, look)
        self._tell_contract(plan)
        await self._in_time(plan, lambda: self._link.submit(data, None, 0, member, level))

    async def _which_data(self, plan: Plan, data: bytes) -> Member:
        def tell(window: Window) -> Awaitable[bool]:
            return self._emit(fingerprint.WHAT, plan, fingerprint.as_fields(window, self._rows()))

        return await ready.answer_data(self.name, plan, data, self._link, self._workshop, tell)

    def _note(self, plan: Plan) -> None:
        """Once for each run."""
        if self._on_training is not None and self._noted != plan.run:
            self._noted = plan.run
            self._on_training(plan.run, contract(plan.settings).label)

    def _tell_contract(self, plan: Plan) -> None:
        """How this node's data keep the contract and are spread, once a run; the round does not wait."""
        lines = self._workshop.lines
        if not lines or self._judged == (plan.run, plan.bundle):
            return
        self._judged = (plan.run, plan.bundle)
        agreed = contract(plan.settings)
        self._tell(CONTRACT, plan, as_fields(agreed.version, of_contract(agreed, lines)))
        counted = bins.of_contract(agreed, self._workshop.bins)
        if counted:
            self._tell(bins.WHAT, plan, bins.as_fields(agreed.version, counted))

    def _tell_data(self, plan: Plan) -> None:
        """Which data this is, without a row of it, once for each run; again when they change in it."""
        window = self._workshop.window
        if window is None:
            return
        shown = (plan.run, plan.bundle, window.fingerprint, window.setup)
        if self._shown != shown:
            self._shown = shown
            self._tell(fingerprint.WHAT, plan, fingerprint.as_fields(window, self._rows()))

    def _rows(self) -> int | None:
        """As the contract counted them; None when nobody has."""
        lines = self._workshop.lines
        return max((x.passed + x.failed for x in lines if x.rule == "present"), default=None)

    def _tell(self, what: str, plan: Plan, fields: Mapping[str, Setting]) -> None:
        task = asyncio.create_task(self._emit(what, plan, {**fields}))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _sit_out(self, plan: Plan, data: bytes, error: ReunaError) -> None:
        """Tell the parent why, so that the round need not wait for the deadline.

        What the error says may quote data: it goes to this node's log, and as an event, which is of
        the kind that the site's policy lets leave or not.
        """
        absent = plans.absence(self.name, error)
        asked_again = isinstance(error, NotApproved) and self._waits == (plan.run, plan.bundle)
        if not asked_again:
            log.warning("sits out round %d of %s: %s %s", plan.round, plan.run, error.code, error)
            reason = f"{error.code} {error.message}"[:MAX_REASON]
            await self._emit("sat out", plan, {"reason": reason, "code": error.code})
        if isinstance(error, NotApproved):
            self._waits = (plan.run, plan.bundle)
        try:
            await self._in_time(plan, lambda: self._link.submit(data, None, 0, absent))
        except Refused as refusal:
            log.warning("silent in round %d of %s: %s", plan.round, plan.run, refusal)

    def _terms_now(self, plan: Plan) -> Terms | None:
        """Those that came with the plan, for work that begins with them: later other ones may hold."""
        terms, self._terms = self._terms, None
        return terms if self._bundle is not None and self._bundle.digest == plan.bundle else None

    async def _code(self, plan: Plan) -> Blob:
        """The plan's bundle: the one at hand until something went wrong."""
        if self._bundle is None or self._bundle.digest != plan.bundle:
            self._bundle = await self._link.fetch(plan.bundle, plan.bundle_size)
        return self._bundle

    def _seed(self, plan: Plan) -> int:
        return work_seed(plan.seed, plan.round, self.name)

    async def _emit(self, what: str, plan: Plan, fields: dict[str, Setting]) -> bool:
        self._events += 1
        at = self._clock.now()
        event = Event(self.name, self._boot, self._events, at, what, plan.run, plan.round, fields)
        return await self._link.emit(event)


def alone(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Settings of the local-only baseline: as many epochs as all rounds together, no proximal term."""
    epochs = int(settings.get("epochs", 1)) * max(1, int(settings.get("rounds", 1)))
    return {**settings, "epochs": epochs, "mu": 0.0}
