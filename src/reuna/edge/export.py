"""Tables for training from what an edge has read: rows of a contract's sampling grid, as live inference has.

A table is a stretch of time without a pause of a window or more, up to `MOST_CELLS`. Rows of shorter pauses
have empty cells, and so has a reading that is not of good quality. Labels are for people to fill in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reuna.adapters.local_store import StoredReadings
from reuna.adapters.table_writer import write_table
from reuna.core.contract import Signal
from reuna.core.errors import DataError
from reuna.core.grid import Grid, Rows
from reuna.core.sources import NS
from reuna.core.units import seconds_in
from reuna.edge.live import Wiring, has_reading, read_cells, shape_of
from reuna.exchange.predict import Held

PIECE = 4096  #: rows that are read at once
MOST_CELLS = 4_000_000  #: of a table; a longer stretch becomes several
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def export(
    stored: StoredReadings,
    held: Held,
    wiring: Wiring,
    span_ns: tuple[int, int],
    folder: Path,
    suffix: str = ".csv",
) -> list[tuple[Path, int]]:
    """Write the readings from the first time up to before the second; each table and its rows.

    ``suffix``: ``.csv`` or ``.parquet``. Raises `DataError` when there are none or a table is there already,
    `NotLive`, `ExtraMissing`, `StorageError`.
    """
    stretches = _stretches(stored, held, wiring, span_ns)
    written = [_write(stretch, held, folder, suffix) for stretch in stretches]
    if not written:
        raise DataError("the store has no reading of the contract's signals in that time")
    return written


Stretch = Iterator[Rows]


def _stretches(
    stored: StoredReadings, held: Held, wiring: Wiring, span_ns: tuple[int, int]
) -> Iterator[Stretch]:
    """Stretches of rows, each from its first reading to its last, in pieces."""
    at = _next(stored, wiring, span_ns[0])
    while at is not None and at < span_ns[1]:
        shape = shape_of(held, wiring)
        found, at = _stretch(stored, held, wiring, Grid(at, shape.every_ns), span_ns[1])
        if found:
            yield iter(found)


def _stretch(
    stored: StoredReadings, held: Held, wiring: Wiring, grid: Grid, end_ns: int
) -> tuple[list[Rows], int | None]:
    """Rows until a pause of a window or more, and when it goes on after that."""
    found: list[Rows] = []
    first, empty, most = 0, 0, max(held.length, MOST_CELLS // len(held.signals))
    while grid.moment(first) < end_ns:
        count = min(PIECE, most - first, -((grid.moment(first) - end_ns) // grid.every_ns))
        if not count:
            return _trimmed(found, empty), _next(stored, wiring, grid.span(first, 1)[0])
        cells = read_cells(stored, held, wiring, grid, first, count)
        rows = Rows(grid.moment(first), grid.every_ns, count, cells)
        there = np.flatnonzero(has_reading(rows))
        runs = np.diff(np.concatenate([[-1 - empty], there, [count]])) - 1
        pause = next((place for place, run in enumerate(runs) if run >= held.length), None)
        if pause is not None:
            last = int(there[pause - 1]) + 1 if pause else 0
            found = [*found, rows.part(0, last)] if last else _trimmed(found, empty)
            begin = grid.span(first + last, 1)[0]
            return found, _next(stored, wiring, begin)
        found.append(rows)
        empty = int(runs[-1])
        first += count
    return _trimmed(found, empty), None


def _trimmed(found: list[Rows], empty: int) -> list[Rows]:
    """Without so many rows at the end."""
    while found and empty:
        gone = min(empty, found[-1].count)
        last = found.pop()
        found += [last.part(0, last.count - gone)] if last.count > gone else []
        empty -= gone
    return found


def _next(stored: StoredReadings, wiring: Wiring, from_ns: int) -> int | None:
    """When the first reading of the signals from that time on is; None without one."""
    while True:
        known = [stored.next_ns(source, from_ns) for source in wiring.sources]
        begin = min((each for each in known if each is not None), default=None)
        if begin is None:
            return None
        times = [
            int(each.times[0])
            for source, names in wiring.sources.items()
            for each in stored.window(source, names, begin, begin + 60 * NS).columns.values()
            if len(each)
        ]
        if times:
            return min(times)
        from_ns = begin + 60 * NS


def _write(pieces: Stretch, held: Held, folder: Path, suffix: str) -> tuple[Path, int]:
    """One table, named by when it begins."""
    first = next(pieces)
    path = folder / f"{EPOCH + timedelta(microseconds=first.first_ns // 1000):%Y-%m-%dT%H%M%S}Z{suffix}"
    units = {each.name: each.unit for each in _read(held)}
    return path, write_table(path, _columns([first, *pieces], held), units)


def _read(held: Held) -> list[Signal]:
    return [each for each in held.agreed.signals if each.name != held.agreed.label]


def _columns(pieces: Iterable[Rows], held: Held) -> Iterator[dict[str, NDArray[Any]]]:
    """Columns as the contract calls them: time, signals, quality, label; what is not good is empty."""
    before, agreed, first_ns = 0, held.agreed, None
    for rows in pieces:
        first_ns = rows.first_ns if first_ns is None else first_ns
        found: dict[str, NDArray[Any]] = {agreed.time or "time": _times(held, first_ns, before, rows.count)}
        quality: dict[str, NDArray[Any]] = {}
        for signal in _read(held):
            cells = rows.cells.get(signal.name)
            values = np.full(rows.count, np.nan) if cells is None else cells.values
            found[signal.name] = values if cells is None else np.where(cells.good, values, np.nan)
            if signal.quality:
                said = np.full(rows.count, signal.good[0])
                none = "" if said.dtype.kind == "U" else np.nan
                known = quality.get(signal.quality, said)
                quality[signal.quality] = np.where(np.isnan(found[signal.name]), none, known)
        label = {agreed.label: np.full(rows.count, np.nan)} if agreed.label else {}
        yield {**found, **quality, **label}
        before += rows.count


def _times(held: Held, first_ns: int, before: int, count: int) -> NDArray[Any]:
    """In the unit that the contract's column of time is called by, else ISO 8601; at the recording's pace."""
    every_s, name = held.agreed.every_s or 1.0, held.agreed.time or "time"
    unit_s = seconds_in(name.lower().removesuffix("s"))
    rows = np.arange(before, before + count)
    if unit_s is not None:
        return (first_ns / NS + rows * every_s) / unit_s
    begin = EPOCH + timedelta(microseconds=first_ns // 1000)
    return np.array([(begin + timedelta(seconds=row * every_s)).isoformat() for row in rows.tolist()])
