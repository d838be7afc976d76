"""Live inference: every new whole window of what an edge reads is answered, once.

Readings come from the local store, where the reader process keeps them; rows of the sampling grid and windows
of these are those of training (`reuna.core.grid`). A window is asked for once its last row is over and the
declared lateness with it, by the source's own clock. What is answered is written down together with the mark
of the next window, so neither a restart nor readings that come later change it. A release on trial
(``shadow``) is asked for the same rows; its answers are kept beside.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from reuna.adapters.answer_store import LIVE, SHADOW, AnswerStore
from reuna.adapters.local_store import StoredReadings
from reuna.core.errors import DataError, DiskFull, NotLive, NotUsable, ReunaError, StorageError
from reuna.core.grid import Cells, Grid, Rows, joined, sampled
from reuna.core.live import Mark, Shape, after, begun, due, due_ns, until
from reuna.core.outcomes import Outcome
from reuna.core.ports import Clock
from reuna.core.sources import NS, ns_of
from reuna.core.units import conversion
from reuna.edge.second import SecondOpinion
from reuna.exchange.predict import Held, Predictor

log = logging.getLogger("reuna.live")
LEAST_S, POLL_S = 0.02, 0.5  #: between two looks at what is due
AGAIN_S = 5.0  #: until the next look when a disk fails
FULL_S = 1.0  #: until the next try to write down an answer
TOGETHER = 64  #: windows that are asked for at once, after a pause
MOST_CELLS = 300_000  #: of these windows, so that they fit a message; a larger window is asked for alone
AHEAD_NS = 86_400 * NS  #: readings further ahead of this machine's clock are of no known time

MUTED = "the release breaks its rules of health"  #: why a muted answer is the safe one

OnOutcome = Callable[[Outcome, Outcome | None], None]
#: What was answered is watched: by which release, the rows (None: there were none to be used), the outcomes.
Watch = Callable[["Held", "Rows | None", Sequence[Outcome]], Awaitable[None]]
Pair = tuple[Outcome, Outcome | None]


class Tagged(Protocol):
    """A tag of a source, and the unit in which it is read."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...


class Declared(Protocol):
    """A source as it is declared, of whatever kind; a replay or simulation has a ``speed`` besides."""

    @property
    def name(self) -> str: ...
    @property
    def tags(self) -> Sequence[Tagged]: ...


@dataclass(frozen=True)
class Wiring:
    """From which source each signal comes, how much faster than life they are, and signals that none has."""

    sources: Mapping[str, tuple[str, ...]]
    speed: float
    silent: tuple[str, ...]


@dataclass(frozen=True)
class LiveSettings:
    """``lateness_s``: readings may come so much later; ``silent_s``: a source is then said to stand still."""

    lateness_s: float = 2.0
    silent_s: float = 60.0


def wired(held: Held, sources: Iterable[Declared]) -> Wiring:
    """Which tags are a release's signals: those of the same name.

    Raises `NotLive` for a tag that two sources have, a unit that cannot be converted, and for no tag at all.
    """
    found: dict[str, list[str]] = {}
    speeds: dict[str, float] = {}
    units = {each.name: each.unit for each in held.agreed.signals}
    for source in sources:
        for tag in source.tags:
            if tag.name not in held.signals:
                continue
            if any(tag.name in names for names in found.values()):
                raise NotLive(f"two sources have a tag {tag.name!r}, which is a signal of {named(held)}")
            if conversion(tag.unit, units[tag.name]) is None:
                raise NotLive(f"the tag {tag.name!r} is in {tag.unit}, {named(held)} reads {units[tag.name]}")
            found.setdefault(source.name, []).append(tag.name)
            speeds[source.name] = getattr(source, "speed", 1.0)
    if not found:
        raise NotLive(f"no source has a tag that is a signal of {named(held)}: {', '.join(held.signals[:5])}")
    if len(set(speeds.values())) > 1:
        raise NotLive(f"the sources of {named(held)} have different speeds")
    silent = tuple(name for name in held.signals if all(name not in names for names in found.values()))
    speed = next(iter(speeds.values()))
    return Wiring({source: tuple(names) for source, names in found.items()}, speed, silent)


def shape_of(held: Held, wiring: Wiring) -> Shape:
    """The windows of a release, in the time of its sources."""
    assert held.agreed.every_s is not None
    return Shape(max(1, round(held.agreed.every_s * NS / wiring.speed)), held.length, held.step)


class Sampler:
    """Rows of a grid for one release; rows of windows that were answered are not read again."""

    def __init__(self, predictor: Predictor, wiring: Wiring) -> None:
        self.predictor = predictor
        self.wiring = wiring
        self.shape = shape_of(predictor.held, wiring)
        rows = MOST_CELLS // len(predictor.held.signals) - predictor.held.before - self.shape.length
        self.together = min(TOGETHER, max(1, 1 + rows // self.shape.step))
        self._before: tuple[Grid, int, Rows] | None = None

    def rows(self, stored: StoredReadings, mark: Mark, windows: int) -> Rows:
        """The rows of so many windows from the next on, and those before that the rules look back on.

        Raises `NotLive`, `DataError`, `StorageError`.
        """
        grid, first = mark.grid, max(0, mark.next - self.predictor.held.before)
        before = mark.next - first
        count = before + (windows - 1) * mark.step + mark.length
        known = self._known(grid, first, count)
        have = known.count if known else 0
        held = self.predictor.held
        new = read_cells(stored, held, self.wiring, grid, first + have, count - have)
        cells = {name: joined(known.cells[name], each) for name, each in new.items()} if known else new
        return Rows(grid.moment(first), mark.every_ns, count, cells, before)

    def keep(self, mark: Mark, rows: Rows) -> None:
        """These rows, read for that mark, are as they are from now on."""
        self._before = (mark.grid, mark.next - rows.before, rows)

    def _known(self, grid: Grid, first: int, count: int) -> Rows | None:
        """What of these rows was kept, from the first of them on."""
        if self._before is None or self._before[0] != grid:
            return None
        start, rows = self._before[1:]
        return rows.part(first - start, count) if start <= first < start + rows.count else None


def read_cells(
    stored: StoredReadings, held: Held, wiring: Wiring, grid: Grid, first: int, count: int
) -> dict[str, Cells]:
    """So many rows from row ``first`` on, by signal. Raises `NotLive`, `DataError`, `StorageError`."""
    start_ns, end_ns = grid.span(first, count)
    wanted = {each.name: each.unit for each in held.agreed.signals}
    found = {}
    for source, names in wiring.sources.items():
        window = stored.window(source, names, start_ns, end_ns)
        for name in names:
            cells = sampled(window.columns[name], grid, first, count)
            found[name] = _in_unit(cells, name, window.units[name], wanted[name])
    return found


class Live:
    """What answers. `use` says by which releases; ``on_outcome`` hears of each window, after it is kept.

    ``ticks``: seconds by a clock that nobody sets.
    """

    def __init__(
        self,
        readings: Path,
        sources: Sequence[Declared],
        answers: AnswerStore,
        settings: LiveSettings,
        clock: Clock,
        on_outcome: OnOutcome = lambda _outcome, _shadow: None,
        ticks: Callable[[], float] = time.monotonic,
        watch: Watch | None = None,
        second: SecondOpinion | None = None,
    ) -> None:
        self._watch = watch
        self._second = second
        self._folder = readings
        self._stored: StoredReadings | None = None
        self._sources = sources
        self._answers = answers
        self._lateness_ns, self._silent_ns = ns_of(settings.lateness_s), ns_of(settings.silent_s)
        self._clock = clock
        self._on_outcome = on_outcome
        self._ticks = ticks
        self._primary: Sampler | None = None
        self._shadow: Sampler | None = None
        self._turn = asyncio.Lock()
        self._muted = False
        self._seen = 0  #: number of the newest frame that was looked at
        self._newest: dict[str, tuple[int, float]] = {}  #: source -> newest source time, and when it was seen
        self._marks: dict[str, Mark] = {}
        self._said = ""
        self.waiting = 0  #: windows that were over at the last look, and not answered

    async def use(self, primary: Predictor | None, shadow: Predictor | None = None) -> None:
        """From the next window on these answer; when it returns, those before are asked nothing more.

        A shadow of other windows is not asked. Raises `NotLive`; then nobody answers.
        """
        async with self._turn:
            self._primary = self._shadow = None
            if primary is None:
                return
            self._primary = self._wired(primary)
            if shadow is not None:
                beside = self._wired(shadow)
                self._shadow = beside if beside.shape == self._primary.shape else None
                if self._shadow is None:
                    log.warning("%s has other windows; it is not asked beside", named(shadow.held))

    def mute(self, muted: bool) -> None:
        """Whether from now on the safe answer is given, whatever is answered."""
        self._muted = muted

    async def run(self) -> None:
        """Answer until cancelled. A disk that fails is said in the log, and tried again."""
        try:
            while True:
                await self._clock.sleep(await self.turn())
        finally:
            if self._stored is not None:
                self._stored.close()

    async def turn(self) -> float:
        """Answer what is due, at most `TOGETHER` windows; seconds until the next look."""
        async with self._turn:
            if self._primary is None:
                return POLL_S
            try:
                if self._stored is None:
                    self._stored = StoredReadings(self._folder)
                return await self._answer(self._primary, self._stored)
            except NotUsable as error:
                if self._stored is None:  # the reader has not begun
                    return POLL_S
                self._say(f"{error.code} {error}")
            except StorageError as error:
                self._say(f"{error.code} {error}")
            return AGAIN_S

    async def _answer(self, primary: Sampler, stored: StoredReadings) -> float:
        source_ns, mark = await asyncio.to_thread(self._look, primary, stored)
        if source_ns is None or mark is None:
            return POLL_S
        self.waiting = due(mark, source_ns, self._lateness_ns)
        count = min(primary.together, self.waiting)
        if not count:
            return min(max((due_ns(mark, self._lateness_ns) - source_ns) / NS, LEAST_S), POLL_S)
        began = time.perf_counter()
        rows = await self._rows(primary, stored, mark, count)
        if isinstance(rows, str):
            await self._answered(primary, mark, _refused(primary, mark, count, rows), None)
            return 0.0
        full = filled(rows, mark, count)
        if not full:
            over = await asyncio.to_thread(_over, primary, stored, mark)
            if over is None:
                return await self._still(primary, mark, source_ns, count)
            if over:
                await self._pass(primary, mark, over)
                return 0.0
            full = 1  # the source goes on, without its signals
        rows = rows.part(0, rows.before + (full - 1) * mark.step + mark.length)
        beside = None if self._shadow is None else await self._rows(self._shadow, stored, mark, full)
        read_ms = (time.perf_counter() - began) * 1000 / full
        pairs = await self._ask(primary, mark, rows, beside, read_ms)
        await self._answered(primary, mark, await self._with_fog(primary, rows, pairs), rows, pairs)
        primary.keep(mark, rows)
        if self._shadow is not None and isinstance(beside, Rows):
            self._shadow.keep(mark, beside)
        return 0.0

    async def _rows(self, sampler: Sampler, stored: StoredReadings, mark: Mark, windows: int) -> Rows | str:
        """Rows, or why there are none that can be used."""
        try:
            return await asyncio.to_thread(sampler.rows, stored, mark, windows)
        except (NotLive, DataError) as error:
            return f"{error.code} {error.message}"

    async def _ask(
        self, primary: Sampler, mark: Mark, rows: Rows, beside: Rows | str | None, read_ms: float
    ) -> list[Pair]:
        """Both at once; what goes wrong with the shadow is its own matter."""
        asked = [primary.predictor.answer(rows)]
        if self._shadow is not None and isinstance(beside, Rows):
            asked.append(_told(self._shadow.predictor, beside))
        found = await asyncio.gather(*asked)
        first = [msgspec.structs.replace(each, took_ms=each.took_ms + read_ms) for each in found[0]]
        if len(found) > 1:
            return list(zip(first, found[1], strict=True))
        if self._shadow is not None and isinstance(beside, str):
            others = _refused(self._shadow, mark, len(first), beside)
            return [(each, other) for each, (other, _) in zip(first, others, strict=True)]
        return [(each, None) for each in first]

    async def _with_fog(self, primary: Sampler, rows: Rows, pairs: list[Pair]) -> list[Pair]:
        """The same, with what the fog says of those that the release is unsure of."""
        if self._second is None:
            return pairs
        readable = _readable(rows, primary.predictor.columns)
        found = await self._second.of(primary.predictor.held, readable, [own for own, _ in pairs])
        return [(each, other) for each, (_, other) in zip(found, pairs, strict=True)]

    async def _still(self, primary: Sampler, mark: Mark, source_ns: int, count: int) -> float:
        """Nothing comes any more: after some time windows get the safe answer, where there is one."""
        still_ns = source_ns - max(newest for newest, _ in self._newest.values())
        if primary.predictor.held.rules.safe is None or still_ns < self._silent_ns:
            return POLL_S
        refused = _refused(primary, mark, count, f"no reading for {still_ns // NS} s")
        await self._answered(primary, mark, refused, None)
        return 0.0

    async def _answered(
        self,
        primary: Sampler,
        mark: Mark,
        pairs: Sequence[Pair],
        rows: Rows | None,
        own: Sequence[Pair] | None = None,
    ) -> None:
        """Keep answers, and let them be watched; of rows of several windows each is shown once.

        ``own``: the same before the fog was asked, which is what the release is watched by.
        """
        await self._keep(mark, pairs)
        if self._watch is not None:
            new = len(pairs) * mark.step
            shown = None if rows is None else rows.part(max(0, rows.count - new), new)
            await self._watch(primary.predictor.held, shown, [each for each, _ in own or pairs])

    async def _pass(self, primary: Sampler, mark: Mark, over: int) -> None:
        """Go on with the first window that has readings."""
        first, last = mark.grid.moment(mark.next), mark.grid.moment(mark.next + (over - 1) * mark.step)
        log.warning("%d windows that begin at %d to %d ns had no reading", over, first, last)
        await self._keep(after(mark, over, over), [], primary.predictor.held.about.project)

    async def _keep(self, mark: Mark, pairs: Sequence[Pair], project: str = "") -> None:
        """Write answers down with the mark behind them, and tell of them; with a full disk it waits."""
        behind, now_ns = after(mark, len(pairs)), ns_of(self._clock.now())
        answers = [(LIVE, self._given(each)) for each, _ in pairs] + [
            (SHADOW, other) for _, other in pairs if other
        ]
        name = project or pairs[0][0].project
        while True:
            try:
                await asyncio.to_thread(self._answers.keep, name, behind, answers, now_ns)
                break
            except DiskFull as error:
                self._say(f"{error.code} {error}")
                await self._clock.sleep(FULL_S)
        self._said, self._marks[name] = "", behind
        for each, other in pairs:
            self._on_outcome(each, other)

    def _given(self, answered: Outcome) -> Outcome:
        """What is given out for what was answered; what counts for the release is what it answered."""
        if not self._muted or answered.state == "safe" or self._primary is None:
            return answered
        safe = self._primary.predictor.held.rules.safe
        return msgspec.structs.replace(answered, state="safe", answer=safe, why=MUTED)

    # --- what is there ---------------------------------------------------------------------------

    def _wired(self, predictor: Predictor) -> Sampler:
        wiring = wired(predictor.held, self._sources)
        if wiring.silent:
            said = ", ".join(wiring.silent)
            log.warning("no source has the signals %s of %s", said, named(predictor.held))
        return Sampler(predictor, wiring)

    def _look(self, primary: Sampler, stored: StoredReadings) -> tuple[int | None, Mark | None]:
        """What time it is for the sources, and where the project is; None while that is not known."""
        source_ns = self._source_ns(primary, stored)
        return source_ns, None if source_ns is None else self._mark(primary, stored)

    def _source_ns(self, primary: Sampler, stored: StoredReadings) -> int | None:
        """What time it is for the sources: their newest reading, and what has passed since it was seen."""
        ahead = ns_of(self._clock.now()) + AHEAD_NS
        self._seen, news = stored.news(self._seen, ahead)
        now = self._ticks()
        for source, newest_ns in news.items():
            if newest_ns > self._newest.get(source, (newest_ns - 1, 0.0))[0]:
                self._newest[source] = newest_ns, now
        known = [self._newest[source] for source in primary.wiring.sources if source in self._newest]
        return max((newest + ns_of(now - seen) for newest, seen in known), default=None)

    def _mark(self, primary: Sampler, stored: StoredReadings) -> Mark | None:
        """Where the project is; None while there is no reading with which it could begin."""
        project = primary.predictor.held.about.project
        before = self._marks.get(project) or self._answers.stored.mark(project)
        if before is not None and before.shape == primary.shape:
            return before
        first_ns = 0 if before is not None else self._first_ns(primary, stored)
        if first_ns is None:
            return None
        mark = begun(primary.shape, before, first_ns)
        self._answers.keep(project, mark, [], ns_of(self._clock.now()))
        self._marks[project] = mark
        return mark

    def _first_ns(self, primary: Sampler, stored: StoredReadings) -> int | None:
        """The first reading of the signals that is not older than a window."""
        shape = primary.shape
        newest_ns = max(newest for newest, _ in self._newest.values())
        start_ns, found = newest_ns - shape.length * shape.every_ns, []
        for source, names in primary.wiring.sources.items():
            columns = stored.window(source, names, start_ns, newest_ns + 1).columns
            found += [int(each.times[0]) for each in columns.values() if len(each)]
        return min(found, default=None)

    def _say(self, what: str) -> None:
        if what != self._said:
            log.error("%s", what)
        self._said = what


def _readable(rows: Rows, columns: tuple[str, ...] | None) -> Rows:
    """What code may read of them: no more goes to a model elsewhere."""
    if columns is None:
        return rows
    return replace(rows, cells={name: each for name, each in rows.cells.items() if name in columns})


async def _told(predictor: Predictor, rows: Rows) -> list[Outcome]:
    """Its answers; an error is none of anybody else's."""
    try:
        return await predictor.answer(rows)
    except ReunaError as error:
        return predictor.safe_for(rows, f"{error.code} {error.message}", failed=True)


def _refused(sampler: Sampler, mark: Mark, windows: int, why: str) -> list[Pair]:
    """The safe answer for so many windows from the next on."""
    count = (windows - 1) * mark.step + mark.length
    rows = Rows(mark.grid.moment(mark.next), mark.every_ns, count, {})
    return [(each, None) for each in sampler.predictor.safe_for(rows, why)]


def _over(sampler: Sampler, stored: StoredReadings, mark: Mark) -> int | None:
    """How many windows end before the sources go on; None when they have not."""
    start_ns = mark.grid.span(mark.next, 1)[0]
    later = [stored.next_ns(source, start_ns) for source in sampler.wiring.sources]
    known = [time_ns for time_ns in later if time_ns is not None]
    return until(mark, min(known)) if known else None


def filled(rows: Rows, mark: Mark, windows: int) -> int:
    """How many of these windows, from the first on, have any reading."""
    there = has_reading(rows)
    starts = range(rows.before, rows.before + windows * mark.step, mark.step)
    empty = (number for number, at in enumerate(starts) if not there[at : at + mark.length].any())
    return next(empty, windows)


def has_reading(rows: Rows) -> NDArray[np.bool_]:
    """Rows (rows,) in which any signal has a reading, of whatever quality."""
    there = np.zeros(rows.count, bool)
    for cells in rows.cells.values():
        there |= ~np.isnan(cells.values) | ~cells.good
    return there


def named(held: Held) -> str:
    """A release for people."""
    return f"{held.about.project} {held.about.version}"


def _in_unit(cells: Cells, name: str, unit: str, wanted: str) -> Cells:
    """In the contract's unit; the same bits when it is the unit already. Raises `NotLive`."""
    how = conversion(unit, wanted)
    if how is None:
        raise NotLive(f"{name} is read in {unit}, the contract says {wanted}")
    return cells if how == (1.0, 0.0) else replace(cells, values=cells.values * how[0] + how[1])
