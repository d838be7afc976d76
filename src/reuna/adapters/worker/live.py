"""The worker's side of live inference: a release that stands, asked for window after window.

Features come from the project's own ``load``, as in training and in `reuna predict`. It is given the node's
own tables, which were read once, and beside them, as the split ``test``, a table of the rows to answer: with
the columns that the node's own first table has, in their order and by their names, as far as the contract
knows them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import repeat
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from reuna.adapters.conformity import judge_tables
from reuna.adapters.data_folder import folder_tables
from reuna.adapters.onnx_export import one_row, open_session, self_test
from reuna.adapters.project import blame_project, load_entry
from reuna.adapters.tables import Table, instead, read_table
from reuna.adapters.worker.messages import Answer, Answered, Ask, Cells, Stand
from reuna.adapters.worker.predict import (
    SPLIT,
    Recording,
    cut,
    features,
    first_label,
    read_lent,
    without_label,
)
from reuna.core import fallback
from reuna.core.conformity import time_unit_s
from reuna.core.contract import Contract, Signal, contract
from reuna.core.errors import LearnerError, WorkerFailed
from reuna.core.fallback import Mended, judge_windows
from reuna.core.outcomes import Window
from reuna.core.sources import NS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOTHING = np.empty(0, np.float32)
LIVE = "live.csv"  #: what the table of live rows is called; an empty file in the folder of the split


@dataclass(frozen=True)
class Named:
    """How the node's own tables call what a contract names: its name -> column, '' of what they have not."""

    columns: Mapping[str, str]
    order: tuple[str, ...]
    units: Mapping[str, str]
    timed: NDArray[Any] | None  #: its column of time


class Standing:
    """A release at hand: code, graph and the node's own tables are in memory.

    Raises `ContractBroken`, `DataError`, `ProjectError`, `LearnerError`, `ExtraMissing`.
    """

    def __init__(self, project: Path, folder: Path, request: Stand) -> None:
        self._project, self._folder, self._settings = project, folder, request.settings
        agreed = contract(request.settings)
        self._agreed, self._rules = without_label(agreed), fallback.fallback(request.settings)
        self._cut, self._every_s = cut(agreed), agreed.every_s or 1.0
        paths = {split: some for split, some in folder_tables(folder).items() if split != SPLIT}
        self._own = {path: read_table(path) for some in paths.values() for path in some}
        with instead(self._own.values()):
            judge_tables(paths, agreed).refuse(agreed)
            label = first_label(paths, agreed)
        self._session = open_session(read_lent(Path(request.graph)))
        self._entry = load_entry(project, request.entry)
        self._path = folder / SPLIT / LIVE
        self._named = _named(agreed, next(iter(self._own.values()), None))
        self._label = (agreed.label, label) if agreed.label else None

    def answer(self, request: Ask) -> Answer:
        """Every window of the rows. Raises `LearnerError`, `DataError`, `WorkerFailed`."""
        began = time.perf_counter()
        if request.file:
            cells = msgspec.msgpack.decode(read_lent(Path(request.file)), type=Cells)
            request = msgspec.structs.replace(request, cells=cells)
        mended = self._mended(request)
        windows = judge_windows(mended, np.zeros(request.rows, bool), *self._cut, request.before)
        x: Iterable[NDArray[np.float32]] = repeat(NOTHING, len(windows))
        if any(window.state != "refused" for window in windows):
            table = self._table(request, mended)
            with blame_project(self._project, "loading live rows"):
                data = self._entry.load_instead(self._folder, self._settings, [*self._own.values(), table])
            x = features(data, [Recording(table, windows)])
        took_ms = (time.perf_counter() - began) * 1000
        return Answer(windows=list(self._answered(windows, x, request.before)), features_ms=took_ms)

    def test(self) -> Answer:
        """Ask the graph for its golden input. Raises `LearnerError` when the answer is not the one it had."""
        return _tested(self._session)

    def _answered(
        self, windows: list[Window], x: Iterable[NDArray[np.float32]], before: int
    ) -> Iterator[Answered]:
        for place, (window, row) in enumerate(zip(windows, x, strict=True)):
            start = before + place * self._cut[1]
            if window.state == "refused":
                yield Answered(0, start, window)
            else:
                output, took_ms = one_row(self._session, np.ascontiguousarray(row, np.float32))
                yield Answered(0, start, window, [float(value) for value in output], took_ms)

    def _mended(self, request: Ask) -> dict[str, Mended]:
        """Each signal's cells by its rule."""
        times = np.arange(request.rows, dtype=np.float64) * self._every_s
        found = {}
        for signal in self._agreed.signals:
            if signal.type != "text":
                values, good = _cells(signal, request)
                why = fallback.causes_of(signal, values, good)
                rule = self._rules.of(signal.name)
                found[signal.name] = fallback.mend(values, why, rule, times, signal.max_gap_s)
        return found

    def _table(self, request: Ask, mended: Mapping[str, Mended]) -> Table:
        """The rows to answer as a table of this node."""
        count = request.rows - request.before
        columns = {name: column.values[request.before :] for name, column in mended.items()}
        for signal in self._agreed.signals:
            if signal.quality:
                columns[signal.quality] = np.repeat(np.array([signal.good[0]]), count)
        if self._label:
            columns[self._label[0]] = np.repeat(self._label[1], count)
        if self._agreed.time:
            columns[self._agreed.time] = self._times(request, count)
        called = {self._named.columns.get(name) or name: column for name, column in columns.items()}
        ordered = {name: called[name] for name in self._named.order if name in called}
        return Table(self._path, {**ordered, **called}, units=self._named.units)

    def _times(self, request: Ask, count: int) -> NDArray[Any]:
        """The column of time, as text or in the unit that the node's own tables have."""
        rows = np.arange(request.before, request.rows)
        if self._named.timed is not None and self._named.timed.dtype.kind == "U":
            every_us = self._every_s * 1e6
            first = EPOCH + timedelta(microseconds=request.first_ns // 1000)
            return np.array([(first + timedelta(microseconds=row * every_us)).isoformat() for row in rows])
        name = self._named.columns.get(self._agreed.time) or self._agreed.time
        unit_s = time_unit_s(self._agreed.time, self._named.units.get(name, ""))
        return (request.first_ns / NS + rows * self._every_s) / unit_s


def judge_graph(graph: Path) -> Answer:
    """`Standing.test` of a graph that nothing stands around. Raises `LearnerError`, `ExtraMissing`."""
    return _tested(open_session(read_lent(graph)))


def _tested(session: Any) -> Answer:
    if why := self_test(session):
        raise LearnerError(why)
    return Answer()


def _cells(signal: Signal, request: Ask) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values (rows,), NaN for a signal that is not there, and which are of good quality."""
    if signal.name not in request.cells:
        return np.full(request.rows, np.nan), np.ones(request.rows, bool)
    values, good = request.cells[signal.name]
    found = np.frombuffer(values, "<f8").astype(np.float64), np.frombuffer(good, np.bool_)
    if not len(found[0]) == len(found[1]) == request.rows:
        raise WorkerFailed(f"{signal.name} has {len(found[0])} values in {request.rows} rows")
    return found


def _named(agreed: Contract, own: Table | None) -> Named:
    """How the node's first table calls what the contract names; without a table as the contract does."""
    if own is None:
        return Named({}, (), {}, None)
    called = {name: own.find(name) or "" for name in agreed.names}
    units = {column: own.unit(column) for column in own.columns if own.unit(column)}
    time_column = called.get(agreed.time) if agreed.time else None
    return Named(called, tuple(own.columns), units, own.columns[time_column] if time_column else None)
