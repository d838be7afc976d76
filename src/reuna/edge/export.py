"""Tables for training from what an edge has read: rows of a contract's sampling grid, as live inference has.

A table is a stretch of time without a pause of a window or more, up to `MOST_CELLS`. Rows of shorter pauses
have empty cells, and so has a reading that is not of good quality. Labels are for people to fill in.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from reuna.adapters.files import storage_error
from reuna.adapters.local_store import StoredReadings
from reuna.core.contract import Signal
from reuna.core.errors import DataError
from reuna.core.grid import Grid, Rows
from reuna.core.sources import NS
from reuna.core.units import seconds_in
from reuna.edge.live import Wiring, has_reading, read_cells, shape_of
from reuna.edge.predict import Held

PIECE = 4096  #: rows that are read at once
MOST_CELLS = 4_000_000  #: of a table; a longer stretch becomes several
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def export(
    stored: StoredReadings, held: Held, wiring: Wiring, span_ns: tuple[int, int], folder: Path
) -> list[tuple[Path, int]]:
    """Write the readings from the first time up to before the second; each table and its rows.

    Raises `DataError` when there are none or a table is there already, `NotLive`, `StorageError`.
    """
    written: list[tuple[Path, int]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stretch in _stretches(stored, held, wiring, span_ns):
            written.append(_write(stretch, held, folder))
    except OSError as error:
        raise storage_error(error, folder) from error
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


def _write(pieces: Stretch, held: Held, folder: Path) -> tuple[Path, int]:
    """One CSV file, whole under its name or not there."""
    first = next(pieces)
    path = folder / f"{EPOCH + timedelta(microseconds=first.first_ns // 1000):%Y-%m-%dT%H%M%S}Z.csv"
    if path.exists():
        raise DataError(f"{path} is there already", "Name another folder, or move it away.")
    part, count = path.with_suffix(".part"), 0
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_header(held))
        for rows in [first, *pieces]:
            writer.writerows(_lines(rows, held, first.first_ns, count))
            count += rows.count
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return path, count


def _header(held: Held) -> list[str]:
    agreed = held.agreed
    signals = [f"{each.name} [{each.unit}]" if each.unit else each.name for each in _read(held)]
    quality = [each.quality for each in _read(held) if each.quality]
    ends = [agreed.time or "time", *([agreed.label] if agreed.label else [])]
    return [*ends[:1], *signals, *dict.fromkeys(quality), *ends[1:]]


def _read(held: Held) -> Sequence[Signal]:
    return [each for each in held.agreed.signals if each.name != held.agreed.label]


def _lines(rows: Rows, held: Held, first_ns: int, before: int) -> Iterator[list[str]]:
    """Cells as text: what is not good is empty."""
    columns: list[list[str]] = []
    quality: dict[str, list[str]] = {}
    for signal in _read(held):
        found = rows.cells.get(signal.name)
        good = np.zeros(rows.count, bool) if found is None else found.good & ~np.isnan(found.values)
        values = np.zeros(rows.count) if found is None else found.values
        columns.append([repr(v) if g else "" for v, g in zip(values.tolist(), good.tolist(), strict=True)])
        if signal.quality:
            said = f"{signal.good[0]:g}" if not isinstance(signal.good[0], str) else signal.good[0]
            known = quality.setdefault(signal.quality, [said] * rows.count)
            quality[signal.quality] = [k if g else "" for k, g in zip(known, good.tolist(), strict=True)]
    label = [[""] * rows.count] if held.agreed.label else []
    times = _times(held, first_ns, before, rows.count)
    yield from map(list, zip(times, *columns, *quality.values(), *label, strict=True))


def _times(held: Held, first_ns: int, before: int, count: int) -> list[str]:
    """In the unit that the contract's column of time is called by, else ISO 8601; at the recording's pace."""
    every_s, name = held.agreed.every_s or 1.0, held.agreed.time or "time"
    unit_s = seconds_in(name.lower().removesuffix("s"))
    rows = range(before, before + count)
    if unit_s is not None:
        return [repr((first_ns / NS + row * every_s) / unit_s) for row in rows]
    begin = EPOCH + timedelta(microseconds=first_ns // 1000)
    return [(begin + timedelta(seconds=row * every_s)).isoformat() for row in rows]
