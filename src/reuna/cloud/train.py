"""The cloud's part of a run: rounds one after the other, each journalled once.

A round is idempotent: the plan is a pure function of the run, the rows of the fogs are durable,
the sum is exact and the strategy deterministic. So a cloud killed anywhere carries the open
round out again and ends with the same bits.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median_low
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reuna.adapters.files import HeldBlob
from reuna.cloud import validate
from reuna.cloud.plan import Planner
from reuna.cloud.turns import Turns
from reuna.core.cohort import away_after, paces
from reuna.core.errors import (
    Corrupted,
    DiskFull,
    NotApproved,
    PeerError,
    RunFailed,
    StorageError,
    Unreachable,
)
from reuna.core.ports import Blob, Blobs, Clock, Journal, Offload
from reuna.core.records import Contribution, Encoding, Grid, Member, Plan, RunSpec, Setting, Task
from reuna.exchange.bodies import Behind, Whole
from reuna.exchange.intake import RECENT, Away, Intake
from reuna.exchange.room import SERVER_AWAY, when_there_is_room
from reuna.exchange.steps import make_step
from reuna.learn import grid as fixed
from reuna.learn.rounding import PARTS, Size, followed, parts_of
from reuna.learn.strategies import strategy
from reuna.loop import train
from reuna.loop.plan import (
    BEGINNING,
    INLINE_LIMIT,
    NO_STEP,
    Going,
    Step,
    asked_after,
    asks,
    carried_after,
    round_plan,
    shared,
)
from reuna.wire import BlockHasher, decode_plan, message_digest

log = logging.getLogger("reuna.cloud")
Outcome = dict[str, Any]  #: what a journalled step returns; plain JSON values
Report = Callable[[RunSpec, str, dict[str, Setting]], Awaitable[None]]
MAX_ATTEMPTS = 20
UNFETCHED = 2  #: steps in a row that nobody fetched, after which none is made
LOOK_AGAIN = 16  #: but in each round whose number this divides
TOLD_OF_A_LIFE = (
    1000  #: what is told of a round in a later life of the run is counted from a multiple of this
)
OLDER_FOGS = (
    "Upgrade from the top down, or ask what they know: `--set round.packed=never --set round.feedback=false "
    "--set round.grid_bits=32 --set round.grid_exponent=-24`."
)
FIRST_WAIT_S, LAST_WAIT_S = 1.0, 30.0  #: until sites whose officers decide are asked again


@dataclass(frozen=True)
class Ask:
    """What a round asks of every fog; ``before`` is `shared` of the round before it.

    ``life`` is that of the run, see `reuna.core.ports.Journal`.
    """

    round: int
    task: Task
    model: str
    before: str
    life: int = 1
    going: Going = BEGINNING

    def shared(self, spec: RunSpec) -> str:
        """See `reuna.loop.plan.shared`."""
        fog = next(iter(spec.fogs))
        return shared(
            round_plan(spec, fog, self.round, 1, self.task, self.model, None, self.before, self.going)
        )


@dataclass(frozen=True)
class _Planned:
    """Plans of an attempt, made ``at`` (epoch s); ``older`` fogs do not know what theirs asks."""

    run: str
    ask: Ask
    attempt: int
    asked: Mapping[str, bytes]
    plans: Mapping[str, Plan]
    older: Collection[str]
    at: float

    def is_of(self, spec: RunSpec, ask: Ask) -> bool:
        """Whether that is what it is asked."""
        return (self.run, self.ask) == (spec.run, ask)


class Conductor:
    """Carries out one run at a time over the fogs."""

    def __init__(
        self,
        name: str,
        planner: Planner,
        intake: Intake,
        blobs: Blobs,
        clock: Clock,
        offload: Offload,
        report: Report,
        steps: bool = True,
    ) -> None:
        """``steps``: whether large models are offered as their difference to the one before, too."""
        self.name = name
        self._planner = planner
        self._intake = intake
        self._blobs = blobs
        self._clock = clock
        self._offload = offload
        self._report = report
        self._steps = steps
        self.turn = Turns()
        self._ready: _Planned | None = None  #: the next round, whose plan is out already

    async def body(self, journal: Journal, spec: RunSpec) -> Outcome:
        """The whole run as plain code over a journal: one commit a round."""
        state: Outcome = {"model": spec.model, "state": ""}
        past, asked, life = [state], "", journal.life
        over: set[str] = set()  #: blobs that only rounds long journalled began from
        if life > 1:
            await self._report(spec, "resumed", {"attempt": life})
        for number in range(1, spec.rounds + 1):
            ask = Ask(number, "train", state["model"], asked, life, _going(state))
            work = partial(self._in_time, spec, number, partial(self._round, spec, ask, state, over))
            after = await journal.step(f"round {number}", work)
            past.append(after)
            while len(past) > (RECENT if is_buffered(spec) else 2):
                over |= _blobs(past.pop(0))
            over -= {spec.model, *(name for each in past for name in _blobs(each))}
            ready, state = self._ready, after
            is_out = ready is not None and (ready.run, ready.ask.round) == (spec.run, number + 1)
            asked = ready.ask.before if ready is not None and is_out else ask.shared(spec)
        await self._offload(partial(self._forget, over, reuse=False))
        outcome: Outcome = {"model": state["model"], "rounds": spec.rounds}
        if spec.local:
            ask = Ask(spec.rounds + 1, "local", spec.model, asked, life)
            work = partial(self._in_time, spec, ask.round, partial(self._scores, spec, ask))
            outcome["local"] = await journal.step("local", work)
            asked = ask.shared(spec)
        if spec.evaluate:
            ask = Ask(
                spec.rounds + 2, "evaluate", state["model"], asked, life, Going(step=_going(state).step)
            )
            work = partial(self._in_time, spec, ask.round, partial(self._scores, spec, ask))
            outcome["federated"] = await journal.step("evaluate", work)
        return outcome

    async def _in_time(self, spec: RunSpec, number: int, work: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """A step of the run, waiting for a disk that is full; a step carried out again is the same."""

        async def told(seconds: float) -> None:
            fields: dict[str, Setting] = {"round": number, "seconds": seconds, "code": DiskFull.code}
            await self._report(spec, "disk was full", fields)

        on_disk = partial(when_there_is_room, work, self._clock, log, told)
        return await when_there_is_room(on_disk, self._clock, log, waits=SERVER_AWAY)

    def _forget(self, over: set[str], reuse: bool) -> None:
        """Drop blobs that nobody needs any more, and take them out. One that is left over does no harm.

        ``reuse``: models to come are written over them.
        """
        try:
            for digest in sorted(over):
                self._blobs.drop(digest, reuse)
                over.discard(digest)
        except Unreachable as error:
            log.warning("%s an old model was not removed: %s", error.code, error)

    # --- a round of training -----------------------------------------------------------------

    async def _round(self, spec: RunSpec, ask: Ask, state: Outcome, over: set[str]) -> Outcome:
        """What it leaves to the next. ``over``: blobs that are to be dropped."""
        ready, number = self._ready, ask.round
        began = ready.at if ready is not None and ready.is_of(spec, ask) else self._clock.now()
        rows, digests = await self._collect(spec, ask)
        made = await self._offload(partial(self._apply, spec, ask, state, rows))
        outcome = made.outcome
        if unfetched := self._unfetched(state):
            outcome["unfetched"] = unfetched
        if is_buffered(spec):
            outcome["asked"] = asked_after(spec, ask.going.asked, digests)
            sites = {edge: fog for fog, edges in spec.fogs.items() for edge in edges}
            gave = Counter(sites[member.node] for member in train.taking_part(rows))
            outcome["pace"] = paces(ask.going.pace, gave)
        counted = (member.node for member in train.taking_part(rows))
        outcome["carried"] = carried_after(spec, ask.going.carried, number, counted)
        members = [member for row in rows for member in row.members]
        if spec.asking.cohort:
            outcome["away"] = away_after(ask.going.away, number, members)
        ended = self._clock.now()
        await self._go_ahead(spec, ask, outcome, made.model, ended)
        oldest = number - max((len(each) for each in ask.going.asked.values()), default=0)
        over -= _blobs(outcome)
        await self._offload(partial(self._keep, spec, made, oldest, over))
        summary = round_summary(number, members, ended - began, train.bytes_sent(rows))
        await self._report(spec, "round", {**summary, "model": outcome["model"]})
        return outcome

    def _unfetched(self, state: Outcome) -> int:
        """Steps offered one after the other that nobody fetched."""
        step, before = state.get("step", ""), int(state.get("unfetched", 0))
        if not step:
            return before
        return 0 if self._intake.was_fetched(step) else before + 1

    async def _go_ahead(self, spec: RunSpec, ask: Ask, outcome: Outcome, model: Blob, now: float) -> None:
        """Let the plan of the next round go out while this one is made durable and journalled.

        Nothing is lost by that: who was in is durable, so this round carried out again makes the same plan.
        Not where somebody else waits for a turn, nor where a step is made of several rounds.
        """
        if ask.round == spec.rounds or is_buffered(spec) or self.turn.wanted:
            return
        then = Ask(ask.round + 1, "train", outcome["model"], ask.shared(spec), ask.life, _going(outcome))
        async with self.turn:
            planned = self._plan(spec, then, self._first(spec, then), model, now)
            if not planned.older and not self._intake.open(planned.asked):
                self._ready = planned
                await self._intake.tell(self._planner.announce)

    def _keep(self, spec: RunSpec, made: _Made, oldest: int, over: set[str]) -> None:
        """Make durable what it made, and forget blobs and bodies of rounds before. Raises `DiskFull`."""
        self._forget(over, reuse=True)
        for blob in made.blobs:
            self._blobs.put(blob.data) if isinstance(blob, HeldBlob) else self._blobs.force(blob.digest)
        self._intake.spool.drop(spec.run, oldest)

    async def _collect(self, spec: RunSpec, ask: Ask) -> tuple[list[Contribution], dict[str, str]]:
        """Rows of the first attempt that reaches the quorum, digest of its plan for each fog.

        Raises `RunFailed`.

        Attempts that are short because officers of sites have not yet approved the code count for
        nothing: the run waits. One that is short only for mistakes that stay is the last.
        """
        short, pause, waited = 0, FIRST_WAIT_S, list[tuple[str, ...]]()
        earlier = TOLD_OF_A_LIFE * (ask.life - 1)
        attempt = self._first(spec, ask)
        while True:
            plan, rows, again, digests = await self._attempt(spec, ask, attempt)
            attempt += 1
            if train.reaches_quorum(plan, rows):
                return rows, digests
            if not train.waits(plan, rows):
                short += 1
                silent = absences(member for row in rows for member in row.members)
                told: dict[str, Setting] = {"round": ask.round, "attempt": earlier + short}
                await self._report(spec, "short", {**told, "absent": silent})
                absent = train.absences(plan_edges(rows), rows)
                if short == MAX_ATTEMPTS or train.lasting(absent):
                    raise RunFailed(train.shortage(ask.round, absent, short))
                continue
            if [train.waiting(rows)] != waited[-1:]:
                waited.append(train.waiting(rows))
                await self._tell_wait(spec, ask.round, waited, earlier)
            if not again:
                await self._clock.sleep(pause)
                pause = min(2 * pause, LAST_WAIT_S)

    def _first(self, spec: RunSpec, ask: Ask) -> int:
        """The attempt with which this life of the run begins a round.

        Nodes take no attempt below one they have seen, and what an earlier life closed short is not to
        be read again as if it had been tried now. One that was closed with its quorum counts, though its
        life ended before that was journalled.
        """
        for life in range(1, ask.life):
            attempt = train.first_attempt(life)
            while (rows := self._closed(spec, ask, attempt)) is not None:
                plan = round_plan(spec, next(iter(spec.fogs)), ask.round, attempt, ask.task, ask.model)
                if train.reaches_quorum(plan, rows):
                    return attempt
                attempt += 1
        return train.first_attempt(ask.life)

    def _closed(self, spec: RunSpec, ask: Ask, attempt: int) -> list[Contribution] | None:
        """What the fogs gave to an attempt that was closed; None for one that was not."""
        rows = {row.sender: row for row in self._intake.spool.rows(spec.run, ask.round, attempt)}
        return None if rows.pop(self.name, None) is None else list(rows.values())

    async def _attempt(
        self, spec: RunSpec, ask: Ask, attempt: int
    ) -> tuple[Plan, list[Contribution], bool, dict[str, str]]:
        """The plan, its rows when it closed, whether it was closed before a restart, digests of all plans."""
        async with self.turn:
            planned, closed = await self._open(spec, ask, attempt)
            asked, plans, older = planned.asked, planned.plans, planned.older
            plan = next(iter(plans.values()))
            if not closed:
                enough = asks(spec, ask.task, ask.round, attempt, ask.going).enough
                away = partial(self._planner.away, plans)
                await self._wait(plan, self._intake.collect(self._planner.announce, away, enough))
                known = self._left_out(plans, away, enough)
                await self._offload(partial(self._close, plans, known))
            rows, own = self._intake.rows(), self._intake.closing_row()
            await self._tell_refused(spec, plan, rows if own is None else [*rows, own])
            said = {} if own is None else {member.node: member for member in own.members}
            digests = {fog: message_digest(data) for fog, data in asked.items()}
            if plan.buffer:
                return plan, rows, closed, digests
            for fog in sorted(plans.keys() - {row.sender for row in rows}):
                silent = (said.get(edge) for edge in plans[fog].cohort)
                why = (
                    [Member(edge, absent=train.OLDER) for edge in plans[fog].cohort]
                    if fog in older
                    else silent
                )
                rows.append(_of_silent(plans[fog], fog, why))
            return plan, rows, closed, digests

    async def _open(self, spec: RunSpec, ask: Ask, attempt: int) -> tuple[_Planned, bool]:
        """What is asked, held open; whether it was closed before a restart. One that is open goes on."""
        ready, self._ready = self._ready, None
        is_next = ready is not None and ready.is_of(spec, ask) and ready.attempt == attempt
        if ready is not None and is_next and self._intake.holds(ready.asked):
            return ready, False
        model = await self._offload(partial(self._at_hand, ask.model, spec.bundle))
        planned = self._plan(spec, ask, attempt, model, self._clock.now())
        if len(planned.older) == len(planned.asked):
            raise RunFailed(f"every fog is older than what round {ask.round} asks", OLDER_FOGS)
        asked = {fog: data for fog, data in planned.asked.items() if fog not in planned.older}
        return planned, self._intake.open(asked)

    def _plan(self, spec: RunSpec, ask: Ask, attempt: int, model: Blob, now: float) -> _Planned:
        asked = self._planner.plans(spec, ask.round, attempt, ask.task, model, ask.before, ask.going)
        plans = {fog: decode_plan(data) for fog, data in asked.items()}
        return _Planned(spec.run, ask, attempt, asked, plans, self._planner.older(plans), now)

    async def _wait(self, plan: Plan, collected: Awaitable[None]) -> None:
        """Until a round can be closed. Raises `RunFailed` where it never could, as nobody gives anything."""
        if not plan.buffer:
            await collected
            return
        try:
            async with asyncio.timeout(MAX_ATTEMPTS * plan.deadline_s):
                await collected
        except TimeoutError:
            waited = f"{MAX_ATTEMPTS * plan.deadline_s:g} s"
            raise RunFailed(f"no node gave anything to round {plan.round} in {waited}") from None

    def _left_out(self, plans: Mapping[str, Plan], away: Away, enough: int) -> tuple[Member, ...]:
        """Why the round closes without edges of fogs that lack, as far as the cloud knows."""
        rows, any_plan = self._intake.rows(), next(iter(plans.values()))
        missing = train.missing(plans, [row.sender for row in rows])
        gone = {edge for fog in away(missing) for edge in plans[fog].cohort}
        lacking = [edge for fog in missing for edge in plans[fog].cohort]
        return train.left_out(lacking, gone, train.is_enough(any_plan, rows, enough))

    async def _tell_refused(self, spec: RunSpec, plan: Plan, rows: list[Contribution]) -> None:
        """Note what fogs and cloud refused, each under ``place/sender/reason``."""
        refused: dict[str, Setting] = {
            f"{row.sender}/{sender}/{reason}": times
            for row in rows
            for sender, reason, times in train.each_refusal(row.refused)
        }
        if refused:
            await self._report(spec, "refused", {"round": plan.round, "attempt": plan.attempt, **refused})

    async def _tell_wait(
        self, spec: RunSpec, number: int, waited: list[tuple[str, ...]], earlier: int
    ) -> None:
        """Note which edges' sites have the code before them."""
        nodes = ", ".join(waited[-1])
        log.warning(
            "%s %s waits: the sites of %s have not approved code %s",
            NotApproved.code,
            spec.run,
            nodes,
            spec.bundle,
        )
        fields: dict[str, Setting] = {"round": number, "attempt": earlier + len(waited), "nodes": nodes}
        await self._report(spec, "waits", {**fields, "bundle": spec.bundle})

    def _close(self, plans: Mapping[str, Plan], known: Iterable[Member]) -> None:
        plan = next(iter(plans.values()))
        rows, refused = self._intake.freeze(plan.key), self._intake.newly_refused()
        if plan.buffer:
            self._intake.close(train.buffered_row(plan, "", self.name, rows, refused))
            return
        edges = sorted(edge for each in plans.values() for edge in each.cohort)
        self._intake.close(train.closing_row(plan, "", self.name, edges, rows, refused, known))

    # --- the new model -----------------------------------------------------------------------

    def _apply(self, spec: RunSpec, ask: Ask, state: Outcome, rows: list[Contribution]) -> _Made:
        """Fold what came and let the strategy make the new model, block by block."""
        grid, size = ask.going.grid(spec), Size() if _following(spec) else None
        old = self._held(state["model"])
        kept = self._held(state["state"]) if state["state"] else None
        head = _header_size(old)
        chosen = strategy(spec.strategy)
        model = _begin(self._blobs, old.read(0, head), 4 * spec.params)
        slots = len(chosen.slots)
        memory = _begin(self._blobs, b"", 4 * spec.params * slots) if slots else None
        try:
            first = 0
            for delta in self._deltas(spec, ask.round, grid, rows, kept, size):
                count = len(delta)
                before = _floats(old, head + 4 * first, count)
                past = {
                    name: _floats(kept, 4 * (slots * first + index * count), count)
                    if kept
                    else np.zeros(count, np.float32)
                    for index, name in enumerate(chosen.slots)
                }
                after, moved = chosen.apply(past, before, delta, ask.round, spec.settings)
                model.write(_bytes(moved))
                for name in chosen.slots:
                    assert memory is not None
                    memory.write(_bytes(after[name]))
                first += count
            new, kept = model.seal(durable=False), memory.seal(durable=False) if memory else None
            step = self._step(spec, ask.round, state, old, new)
            outcome = {
                "model": new.digest,
                "state": kept.digest if kept else "",
                "base": old.digest,
                "step": step.digest if step else "",
                "step_size": step.size if step else 0,
                "exponent": next_exponent(spec, grid, size, rows),
            }
            return _Made(outcome, new, (new,) if kept is None else (new, kept))
        except (StorageError, PeerError):  # what is half made would fill the disk further with each try
            model.abandon()
            if memory:
                memory.abandon()
            raise

    def _deltas(
        self,
        spec: RunSpec,
        number: int,
        grid: Grid,
        rows: list[Contribution],
        kept: Blob | None,
        size: Size | None,
    ) -> Iterator[NDArray[np.float64]]:
        """Blocks of what the updates say together: their weighted mean, or a robust step; ``size`` counts."""
        chosen = strategy(spec.strategy)
        if chosen.buffered:
            given = (member for row in rows for member in train.given_by(row))
            _, whole = train.weighted(given, number)
            for exact in self._intake.step(rows, number, spec.params):
                yield exact * grid.step / whole
            return
        if chosen.fold is None:
            total = sum(row.weight for row in rows)
            for block in self._intake.sum(rows, spec.params):
                if size is not None:
                    size.add(block)
                yield fixed.decode(block, grid, total)
            return

        def centre(start: int, count: int) -> NDArray[np.float32]:  # the only slot that a fold reads
            return _floats(kept, 4 * start, count) if kept else np.zeros(count, np.float32)

        read, nodes = self._intake.updates(rows)
        settings = chosen.server_settings(spec.settings)
        for step in chosen.fold.steps(read, nodes, spec.params, grid, settings, centre):
            if size is not None:
                size.add(parts_of(step, grid))
            yield step

    def _step(self, spec: RunSpec, number: int, state: Outcome, old: Blob, new: Blob) -> Blob | None:
        """The difference of the two, for nodes that have the old one; none of models that ride in plans.

        None either where nobody fetched the last ones, by what is journalled: so a round that is carried out
        once more makes the same plan.
        """
        packs = spec.encoding is not None and spec.encoding.packed
        if not (self._steps and packs) or new.size <= INLINE_LIMIT:
            return None
        if state.get("unfetched", 0) >= UNFETCHED and number % LOOK_AGAIN:
            return None
        return make_step(old, new, self._blobs)

    def _at_hand(self, model: str, bundle: str) -> Blob:
        """The model; the bundle is fetched beside it, before the nodes ask for it."""
        held = self._held(model)
        self._blobs.get(bundle)
        return held

    def _held(self, digest: str) -> Blob:
        blob = self._blobs.get(digest)
        if blob is None:
            raise Corrupted(f"the blob {digest[:12]} is not in the cloud's store")
        return blob

    # --- reports -----------------------------------------------------------------------------

    async def _scores(self, spec: RunSpec, ask: Ask) -> Outcome:
        """Metrics of each edge for a model; absences with their reason."""
        began = self._clock.now()
        rows, _ = await self._collect(spec, ask)
        found = validate.scores(rows)
        answered = len([node for node in found if "absent" not in found[node]])
        await self._report(spec, ask.task, {"nodes": answered, "seconds": self._clock.now() - began})
        return found


def _begin(blobs: Blobs, header: bytes, size: int) -> Whole:
    """A blob of vectors in the making; in memory where it rides in plans, else written in another thread."""
    whole = len(header) + size
    out = Whole(_HeldWriter()) if whole <= INLINE_LIMIT else Behind(blobs.new(whole))
    out.write(header)
    return out


def _bytes(values: NDArray[np.float32]) -> memoryview:
    return values.astype("<f4", copy=False).data.cast("B")


class _HeldWriter:
    """A blob in the making that stays in memory."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._hasher = BlockHasher()

    def write(self, data: bytes | memoryview, hashes: bytes = b"") -> None:
        """See `BlobWriter.write`."""
        self._data += data
        self._hasher.feed(data, hashes)

    def seal(self, durable: bool = True) -> HeldBlob:
        """The blob; it is on no disk."""
        return HeldBlob(bytes(self._data), self._hasher.digest(), b"".join(self._hasher.hashes))

    def abandon(self) -> None:
        """Forget what was written."""
        self._data.clear()


class _Made(NamedTuple):
    """What a round made: what is journalled, the model, and what of it all is not durable yet."""

    outcome: Outcome
    model: Blob
    blobs: tuple[Blob, ...]


def is_buffered(spec: RunSpec) -> bool:
    """Whether steps are made of updates of several rounds."""
    return strategy(spec.strategy).buffered


def _going(state: Outcome) -> Going:
    """What a round left to the next; one of an older version left nothing."""
    step = Step(state["base"], state["step"], state["step_size"]) if state.get("step") else NO_STEP
    asked = {fog: tuple(digests) for fog, digests in state.get("asked", {}).items()}
    away, pace = state.get("away", {}), state.get("pace", {})
    return Going(state.get("carried", {}), step, state.get("exponent"), away, asked, pace)


def _following(spec: RunSpec) -> Encoding | None:
    """The encoding of a run whose grids follow the size of the updates before; None where none does."""
    return spec.encoding if spec.encoding is not None and spec.encoding.follow else None


def next_exponent(spec: RunSpec, grid: Grid, size: Size | None, rows: Iterable[Contribution]) -> int | None:
    """The exponent of the round after one with ``grid``; None when that of the run stays.

    ``size`` is of the weighted sum, or of a robust step in `parts_of` it, None where nothing follows it.
    Beside the latter what a few nodes say was clipped moves nothing either: it is the median that counts.
    """
    encoding = _following(spec)
    if size is None or encoding is None:
        return None
    members = train.taking_part(rows)
    values = max(1, math.ceil(spec.params * encoding.keep))
    clipped = [member.saturated for member in members]
    if strategy(spec.strategy).fold is not None:
        return followed(grid, size.total, values * PARTS, median_low(clipped), spec.params)
    weight = sum(member.weight for member in members)
    return followed(grid, size.total, values * weight, sum(clipped), spec.params * len(members))


def _blobs(state: Outcome) -> set[str]:
    """Digests of the blobs that a round left."""
    return {state["model"], state["state"], state.get("step", "")} - {""}


def _of_silent(plan: Plan, fog: str, why: Iterable[Member | None]) -> Contribution:
    """What stands for a fog that gave nothing: none of its edges takes part, and ``why``."""
    return train.closing_row(plan, "", fog, plan.cohort, (), known=[each for each in why if each is not None])


def _header_size(model: Blob) -> int:
    return int.from_bytes(model.read(0, 8), "little") + 8


def _floats(blob: Blob, offset: int, count: int) -> NDArray[np.float32]:
    return np.frombuffer(blob.read(offset, 4 * count), "<f4")


def plan_edges(rows: Iterable[Contribution]) -> list[str]:
    """All that a round asked, as its rows tell."""
    return sorted({member.node for row in rows for member in row.members})


def absences(members: Iterable[Member]) -> str:
    """Who gave nothing to a round, each with its reason."""
    return ", ".join(f"{member.node}: {member.absent}" for member in members if member.absent)


def round_summary(
    number: int, members: list[Member], seconds: float, update_bytes: int
) -> dict[str, Setting]:
    """What people want to see of a round: who took part, the mean loss by weight, how long."""
    present = [member for member in members if not member.absent]
    weight = sum(member.weight for member in present)
    loss = sum(m.weight * m.metrics["loss"] for m in present if "loss" in m.metrics)
    return {
        "round": number,
        "took_part": len(present),
        "members": train.told_members(present),
        "absent": absences(members),
        "loss": loss / weight if weight else 0.0,
        "saturated": sum(member.saturated for member in present),
        "updates": message_digest("".join(member.digest for member in present).encode()),
        "bytes": update_bytes,
        "seconds": seconds,
    }
