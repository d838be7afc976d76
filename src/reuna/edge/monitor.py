"""One node's watch over what feeds its models and what they answer. Nothing here has a row for long.

    STATE/watch/PROJECT         references and sums, so that a restart goes on where it was
    STATE/watch-before/PROJECT  those of the release before: one that is gone back to is watched as it was

Each project is watched by itself.
Inputs are held against blocks of the node's own training tables; where there are none, and for answers
always, the first blocks after a release went live are gathered as the reference. With another release,
contract or rule all begins anew; a machine that goes back to the release before is no different for it, so
that one's watch goes on where it was. What a block has so far is lost in a crash, and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from reuna.adapters.checked_file import CheckedFile
from reuna.adapters.conformity import columns_of
from reuna.adapters.data_folder import folder_tables
from reuna.adapters.tables import Table, read_table
from reuna.core import monitoring
from reuna.core.bins import Counted, together
from reuna.core.conformity import Columns
from reuna.core.contract import Contract
from reuna.core.errors import DataError, StorageError
from reuna.core.grid import Rows
from reuna.core.labels import Errors, Judging, Rising
from reuna.core.monitoring import Block, Monitoring, Part
from reuna.core.notices import Found, Kind
from reuna.core.outcomes import Outcome
from reuna.core.ports import Clock, Offload
from reuna.core.records import Event
from reuna.core.sources import ns_of
from reuna.core.watch import LEAST, Reference, Rule, Said, State, compare, reference, step
from reuna.core.watched import WHAT, Watched, as_fields
from reuna.edge.notices import Notices
from reuna.edge.slots import folder_name
from reuna.exchange.predict import Held

log = logging.getLogger("reuna.watch")
STATE, BEFORE = "watch", "watch-before"  #: in a node's state folder
MAX_STATE = 256 << 20  #: bytes
GATHERED = 60  #: blocks after going live that become a reference where there is none
INPUTS: Kind = "inputs"
ANSWERS: Kind = "answers"
LATENCIES = 1024  #: the newest, of which percentiles are told

#: Passes an event on; False when the site's policy keeps it here.
Emit = Callable[[Event], Awaitable[bool]]


class Line(msgspec.Struct):
    """One series of blocks: its reference, or what is gathered of it, its sums and what was said last."""

    signals: tuple[str, ...] = ()
    shape: tuple[int, ...] = (0, 0, 0)
    cells: bytes = b""
    gathered: list[tuple[Counted, ...]] = []
    state: State = State()
    said: Said = Said(alarm=False, level=0.0)
    moved: dict[str, float] = {}

    @property
    def reference(self) -> Reference | None:
        """None while it is being gathered."""
        if not self.cells:
            return None
        return Reference(self.signals, np.frombuffer(self.cells, np.int64).reshape(self.shape))


class Kept(msgspec.Struct):
    """What the file holds; ``of``: release, contract and rule that it belongs to."""

    of: str
    lines: dict[str, Line] = {}
    parts: dict[str, Part] = {}
    rows: int = 0
    blocks: int = 0


def references(agreed: Contract, rule: Monitoring, tables: Iterable[Table]) -> dict[str, Line]:
    """The reference of each regime in the tables, of those with blocks enough."""
    found: dict[str, list[tuple[Counted, ...]]] = {}
    for table in tables:  # what a table has at its end is no whole block, and goes on in no other
        _, blocks = monitoring.cut(agreed, rule, {}, columns_of(table, agreed))
        for block in blocks:
            found.setdefault(block.regime, []).append(block.counted)
    return {
        f"{INPUTS}/{regime}": with_reference(Line(), blocks)
        for regime, blocks in found.items()
        if len(blocks) >= LEAST
    }


def with_reference(line: Line, blocks: Sequence[Sequence[Counted]]) -> Line:
    """The line once its reference is there."""
    made = reference(blocks)
    return msgspec.structs.replace(
        line,
        signals=made.signals,
        shape=made.blocks.shape,
        cells=made.blocks.astype(np.int64).tobytes(),
        gathered=[],
    )


def trained(data: Path) -> Iterator[Table]:
    """The tables of a node's folder by which it trains; none where there are none that can be read."""
    try:
        found = folder_tables(data)
    except DataError as error:
        log.info("no tables to compare with: %s", error)
        return
    for path in found.get("train", found.get("all", ())):
        try:
            yield read_table(path)
        except DataError as error:
            log.warning("%s is not compared with: %s", path, error)


class ProjectWatch:
    """What goes to the releases of one project, and what they answer. ``folder``: the node's state folder."""

    def __init__(self, project: str, folder: Path, notices: Notices, offload: Offload) -> None:
        self.project = project
        self.release = ""  #: digest
        self._notices = notices
        self._file, self._before = watch_file(folder, project), watch_file(folder, project, BEFORE)
        self._offload = offload
        self._agreed = Contract()
        self._rule = Monitoring()
        self._kept = Kept("")
        self._windows = self._safe = 0
        self._took: list[float] = []
        self._safe_now = 0  #: windows up to now that all got the safe answer
        self.errors: dict[str, Errors] = {}  #: by release

    @property
    def judging(self) -> Judging | None:
        """How labels are held against answers; None before a release has answered."""
        if not self.release:
            return None
        step_rows = self._agreed.window_rows[1] or 1
        step_ns = ns_of(step_rows * (self._agreed.every_s or 1.0))
        return Judging(Rising(self._rule.quiet_labels), step_ns)

    async def open(self, release: str, agreed: Contract, rule: Monitoring, tables: Iterable[Table]) -> None:
        """Watch what goes to a release. Tables are read only where the kept state is of something else."""
        of = hashlib.sha256(msgspec.msgpack.encode((release, agreed, rule))).hexdigest()
        self.release, self._agreed, self._rule = release, agreed, rule
        kept = await self._offload(self._file.read)
        if kept is None or kept.of != of:
            await self._notices.begun_anew(self.project)
            kept = await self._offload(self._back)
        if kept is None or kept.of != of:
            lines = await self._offload(lambda: references(agreed, rule, tables))
            kept = Kept(of, lines)
            log.info(
                "%s: watches %d regimes, against blocks of %d rows",
                self.project,
                len(lines),
                rule.rows(agreed.every_s),
            )
        self._kept = kept

    def _back(self) -> Kept | None:
        """What was kept of the release before; what is kept now is of the one before from now on."""
        found = self._before.read()
        try:
            self._before.path.parent.mkdir(parents=True, exist_ok=True)
            self._file.path.replace(self._before.path)
        except FileNotFoundError:  # no block of the one that answered was whole
            return found
        except OSError as error:
            log.warning("%s is not set aside: %s", self._file.path, error)
        return found

    async def seen(self, rows: Rows | None, outcomes: Sequence[Outcome]) -> bool:
        """What was answered live, and the rows that were not seen before; whether a block is whole."""
        whole = False
        if rows is not None:
            cells = {name: each.values for name, each in rows.cells.items()}
            whole = await self.rows(Columns(rows.count, cells))
        await self._still_safe(outcomes)
        sure = [each for each in outcomes if len(each.output) != 1]  # a number is of no class
        await self.answered(
            [each.answer if each.state != "safe" else None for each in sure],
            [each.confidence if each.confidence is not None else math.nan for each in sure],
            sum(each.state == "safe" for each in outcomes),
            [each.took_ms for each in outcomes],
        )
        return whole

    async def _still_safe(self, outcomes: Sequence[Outcome]) -> None:
        """Nothing but the safe answer for a block: readings stay away, are bad, or the model does not run."""
        for each in outcomes:
            self._safe_now = self._safe_now + 1 if each.state == "safe" else 0
        rows = self._safe_now * (self._agreed.window_rows[1] or 1)
        if outcomes and (not rows or rows >= self._rule.rows(self._agreed.every_s)):
            await self._notices.found(Found("safe", self.project, self.release, alarm=rows > 0, rows=rows))

    async def rows(self, table: Columns) -> bool:
        """More rows that the model was given, each once; whether a block is whole.

        On a full disk a restart goes on from before.
        """
        kept = self._kept
        parts, blocks = monitoring.cut(self._agreed, self._rule, kept.parts, table)
        kept.parts = dict(parts)
        for block in blocks:
            await self._take(INPUTS, block, self._rule.rows(self._agreed.every_s))
            kept.blocks += 1
        if blocks:
            kept.rows = self._rule.rows(self._agreed.every_s)
            await self._offload(self._write)
        return bool(blocks)

    async def answered(
        self,
        answers: Sequence[float | None],
        confidences: Sequence[float],
        safe: int,
        took_ms: Sequence[float],
    ) -> None:
        """Answers of some windows, and how long they took. ``safe``: how many were the safe answer."""
        kept, whole = self._kept, self._rule.rows(self._agreed.every_s)
        self._windows, self._safe = self._windows + len(took_ms), self._safe + safe
        self._took = [*self._took, *took_ms][-LATENCIES:]
        if not answers:
            return
        step_rows = self._agreed.window_rows[1] or 1
        part = kept.parts.get(ANSWERS, Part(0, ()))
        counted = together([part.counted, monitoring.answered(answers, confidences)])
        part = Part(part.rows + len(answers), counted)
        if part.rows * step_rows < whole:
            kept.parts[ANSWERS] = part
            return
        kept.parts.pop(ANSWERS, None)
        await self._take(ANSWERS, Block("", part.counted), part.rows)

    async def _take(self, what: Kind, block: Block, rows: int) -> None:
        """One block of so many rows into its line: compared, or gathered."""
        name = f"{what}/{block.regime}"
        line = self._kept.lines.setdefault(name, Line())
        against = line.reference
        if against is None:
            line.gathered.append(block.counted)
            if len(line.gathered) >= GATHERED:
                self._kept.lines[name] = with_reference(line, line.gathered)
            return
        # two kinds of lines share what is promised, each regime is most of the time another's turn
        rule = Rule(2 * self._rule.periods)
        found = await self._offload(lambda: compare(against, block.counted))
        line.state, said = step(rule, line.state, found)
        ratio = dict(zip(found.signals, map(float, found.scores / found.typical), strict=True))
        line.moved = {signal: ratio[signal] for signal in said.moved}
        line.said = said
        found_now = Found(what, self.project, self.release, said.alarm, block.regime, said.moved, rows)
        await self._notices.found(found_now)

    async def erred(self) -> None:
        """Labels have come of what the release answered."""
        errors = self.errors[self.release]
        found = Found("errors", self.project, self.release, errors.alarm, rows=errors.labels)
        await self._notices.found(found)

    def watched(self) -> Watched:
        """What is said of it now: of inputs the regime with the highest level."""
        inputs = {name: line for name, line in self._kept.lines.items() if name.startswith(INPUTS)}
        worst = max(inputs.values(), key=lambda line: line.said.level, default=Line())
        answers = self._kept.lines.get(f"{ANSWERS}/", Line())
        errors = self.errors.get(self.release, Errors())
        middle, late = np.percentile(self._took, (50, 99)) if self._took else (0.0, 0.0)
        return Watched(
            rows=self._kept.rows,
            blocks=self._kept.blocks,
            reference=min((line.shape[0] for line in inputs.values()), default=0),
            level=worst.said.level,
            alarm=any(line.said.alarm for line in inputs.values()),
            moved={signal: ratio for line in inputs.values() for signal, ratio in line.moved.items()},
            answers_level=answers.said.level,
            answers_alarm=answers.said.alarm,
            windows=self._windows,
            safe=self._safe,
            p50_ms=round(float(middle), 3),
            p99_ms=round(float(late), 3),
            project=self.project,
            labels=errors.labels,
            wrong=errors.wrong,
            error=round(errors.mean, 6),
            errors_level=errors.level,
            errors_alarm=errors.alarm,
        )

    def _write(self) -> None:
        try:
            self._file.path.parent.mkdir(parents=True, exist_ok=True)
            self._file.write(self._kept)
        except (StorageError, OSError) as error:
            log.warning("%s: what is watched is not written down: %s", self.project, error)


def watch_file(folder: Path, project: str, of: str = STATE) -> CheckedFile[Kept]:
    """Where a node keeps its watch over a project; ``folder`` is the node's state folder."""
    return CheckedFile(folder / of / folder_name(project), Kept, MAX_STATE)


class Monitor:
    """A node's watch over all its projects, and what it says of it. ``node`` and ``boot`` are in its events.

    ``folder`` is the node's state folder, ``data`` its own data.
    """

    def __init__(
        self, node: str, boot: str, folder: Path, data: Path, emit: Emit, clock: Clock, offload: Offload
    ) -> None:
        self._data = data
        self._node = node
        self._boot = boot
        self._folder = folder
        self._emit = emit
        self._clock = clock
        self._offload = offload
        self._notices = Notices(folder, clock, offload)
        self.projects: dict[str, ProjectWatch] = {}
        self._news: dict[str, None] = {}  #: projects of which something is to be told
        self._changed = asyncio.Event()

    async def seen(self, held: Held, rows: Rows | None, outcomes: Sequence[Outcome]) -> None:
        """What a release answered live, and the rows that it had not seen (`reuna.edge.live.Watch`)."""
        project = held.about.project
        watch = self._watch(project)
        if watch.release != held.digest:
            rule = monitoring.monitoring(held.settings)
            await watch.open(held.digest, held.agreed, rule, trained(self._data))
        if await watch.seen(rows, outcomes):
            self._say(project)

    def judging(self, project: str) -> Judging | None:
        """How labels of a project are held against answers; None while no release of it has answered."""
        return self._watch(project).judging

    async def judged(self, project: str, errors: Mapping[str, Errors]) -> None:
        """What came of labels, by release; it is told when one is of the release that answers."""
        watch = self._watch(project)
        watch.errors |= errors
        if watch.release in errors:
            await watch.erred()
            self._say(project)

    async def tell(self) -> None:
        """Say what is watched of a project after each block of inputs, and new labels. Until cancelled."""
        number = 0
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._news:
                project = next(iter(self._news))
                del self._news[project]
                fields = as_fields(self.projects[project].watched())
                boot, now = f"{self._boot}/{WHAT}", self._clock.now()
                if await self._emit(Event(self._node, boot, number, now, WHAT, fields=fields)):
                    number += 1

    def _watch(self, project: str) -> ProjectWatch:
        if project not in self.projects:
            self.projects[project] = ProjectWatch(project, self._folder, self._notices, self._offload)
        return self.projects[project]

    def _say(self, project: str) -> None:
        self._news[project] = None
        self._changed.set()
