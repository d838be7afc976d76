"""The local store of an edge: what its sources gave, within some days and bytes, in one SQLite file.

Readings lie in frames (`reuna.core.frames`), one for each second that is kept: blocks of times, values,
quality. What `LocalStore.append` has kept when it returns is there after any crash. Windows are read by
time, frame by frame.

- **Bound in days and bytes.** The oldest frames, by source time, make room for the newest.
- **Full disk.** The store leaves some of the disk free (`reuna.adapters.bounded_file`): with less it does
  not grow but forgets its oldest. Where that does not help, `append` raises `DiskFull`; nothing that was
  kept is harmed, and it goes on by itself when there is room.
- **One writes, many read.** One process holds a `LocalStore`; `StoredReadings` may be opened beside it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np

from reuna.adapters.bounded_file import AWAY, BoundedFile, StoredFile
from reuna.core.errors import Corrupted, DataError
from reuna.core.frames import SPAN_NS, Frame, cut, decode, encode, newest_of
from reuna.core.source_settings import StoreSettings
from reuna.core.sources import NS, Batch, Column, Gap, Tag, check_batch, check_tags, column
from reuna.core.units import same_unit

NAME = "readings.db"
FORMAT = 1  #: of the file, in SQLite's user_version
TOGETHER = 8  #: frames in a transaction, so that the log stays small
FORGOTTEN = 64  #: frames in a transaction that forgets
GAPS = 1000  #: the newest that are kept
DAY_NS = 86_400 * NS

SCHEMA = """
CREATE TABLE IF NOT EXISTS tagsets (
  id INTEGER PRIMARY KEY, source TEXT NOT NULL, tags TEXT NOT NULL, UNIQUE (source, tags)) STRICT;
CREATE TABLE IF NOT EXISTS frames (
  id INTEGER PRIMARY KEY AUTOINCREMENT, first INTEGER NOT NULL, last INTEGER NOT NULL,
  tagset INTEGER NOT NULL, historical INTEGER NOT NULL, readings INTEGER NOT NULL, size INTEGER NOT NULL,
  shared INTEGER NOT NULL, counts BLOB NOT NULL, times BLOB NOT NULL, numbers BLOB NOT NULL,
  quality BLOB NOT NULL, codes BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS frames_by_time ON frames (first, last, tagset, size, readings);
CREATE TABLE IF NOT EXISTS gaps (
  id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
  tags TEXT NOT NULL, reason TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
"""
INSERT = """INSERT INTO frames (
  first, last, tagset, historical, readings, size, shared, counts, times, numbers, quality, codes)
VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"""
COUNTERS = ("kept", "forgotten_by_age", "forgotten_by_size", "refused")


@dataclass(frozen=True)
class Window:
    """Readings with ``start <= time < end``: a column for each tag, in strict order of time; and the gaps.

    A tag of which nothing is kept has an empty column and unit ''.
    """

    columns: Mapping[str, Column]
    units: Mapping[str, str]
    gaps: tuple[Gap, ...]


@dataclass(frozen=True)
class StoreState:
    """What a store holds, and what it counted since it was made, in readings.

    ``size`` is bytes of its file; ``oldest_ns`` and ``newest_ns`` are source times, None when it is empty.
    """

    readings: int
    frames: int
    size: int
    oldest_ns: int | None
    newest_ns: int | None
    kept: int
    forgotten_by_age: int
    forgotten_by_size: int
    refused: int


class StoredReadings(StoredFile):
    """What a store has, to be read. Safe for several threads. Raises `NotUsable`, `Corrupted`."""

    def __init__(self, folder: Path) -> None:
        missing = f"there is no store in {folder}"
        super().__init__(folder / NAME, FORMAT, missing, "Name the folder that `store.folder` says.")

    def window(self, source: str, tags: Collection[str], start_ns: int, end_ns: int) -> Window:
        """Readings of those tags of a source from ``start_ns`` up to before ``end_ns``.

        Raises `DataError` when a tag has two units in that time: nothing is converted.
        """
        start_ns, end_ns = (min(max(moment, -(1 << 63)), (1 << 63) - 1) for moment in (start_ns, end_ns))
        parts: dict[str, list[tuple[bool, Column]]] = {name: [] for name in tags}
        units: dict[str, str] = dict.fromkeys(parts, "")
        sets = self._sets(source, set(parts))
        for row in self._frames(sets, start_ns, end_ns):
            first, last, tagset, historical = row[:4]
            whole = start_ns <= first and last < end_ns
            for name, found in self._decoded(row, list(sets[tagset]), parts.keys()).items():
                part = found if whole else _between(found, start_ns, end_ns)
                if len(part):
                    _agree(units, name, sets[tagset][name], known=bool(parts[name]))
                    parts[name].append((bool(historical), part))
        return Window(
            {name: newest_of(found) if found else column([], []) for name, found in parts.items()},
            units,
            self._gaps(source, start_ns, end_ns),
        )

    def windows(
        self, source: str, tags: Collection[str], start_ns: int, end_ns: int, step_ns: int
    ) -> Iterator[Window]:
        """Windows of ``step_ns`` one after the other: no more than one of them is in memory."""
        for first in range(start_ns, end_ns, step_ns):
            yield self.window(source, tags, first, min(first + step_ns, end_ns))

    def tags(self) -> dict[str, tuple[Tag, ...]]:
        """What tags there are by source; one whose unit changed is there with each."""
        found: dict[str, dict[Tag, None]] = {}
        for source, tags in self._rows("SELECT source, tags FROM tagsets ORDER BY id"):
            found.setdefault(source, {}).update(dict.fromkeys(_tags_of(tags)))
        return {source: tuple(tags) for source, tags in found.items()}

    def newest_ns(self, source: str) -> int | None:
        """Source time of the newest reading of a source, None when it has none."""
        query = "SELECT MAX(last) FROM frames WHERE tagset IN (SELECT id FROM tagsets WHERE source = ?)"
        ((found,),) = self._rows(query, source)
        return None if found is None else int(found)

    def news(self, after: int, before_ns: int) -> tuple[int, dict[str, int]]:
        """What was kept live after a frame of that number: the newest number, and by source its newest time.

        Readings of ``before_ns`` and later are left out. It costs what came since.
        """
        rows = self._rows(
            "SELECT source, MAX(frames.id), MAX(CASE WHEN last < ? AND NOT historical THEN last END) "
            "FROM frames JOIN tagsets ON tagset = tagsets.id WHERE frames.id > ? GROUP BY source",
            before_ns,
            after,
        )
        newest = {source: last for source, _, last in rows if last is not None}
        return max((number for _, number, _ in rows), default=after), newest

    def next_ns(self, source: str, after_ns: int) -> int | None:
        """A time from ``after_ns`` on before which a source has no reading; None when it has no later one."""
        (found,) = self._rows(
            "SELECT MIN(first) FROM frames WHERE tagset IN (SELECT id FROM tagsets WHERE source = ?) "
            "AND first >= ? AND last >= ?",
            source,
            after_ns - SPAN_NS,
            after_ns,
        )
        return None if found[0] is None else max(int(found[0]), after_ns)

    def extent(self) -> tuple[int, int | None, dict[str, int]]:
        """Size of the file, bytes; the oldest source time; `COUNTERS`. It costs little whatever there is."""
        counted = dict(self._rows("SELECT name, value FROM counters"))
        ((oldest,),) = self._rows("SELECT MIN(first) FROM frames")
        ((pages,), (size,)) = (*self._rows("PRAGMA page_count"), *self._rows("PRAGMA page_size"))
        return pages * size, oldest, {name: counted.get(name, 0) for name in COUNTERS}

    def state(self) -> StoreState:
        """What there is, and what was forgotten and refused."""
        counted = dict(self._rows("SELECT name, value FROM counters"))
        ((frames, readings, oldest, newest),) = self._rows(
            "SELECT COUNT(*), COALESCE(SUM(readings), 0), MIN(first), MAX(last) FROM frames"
        )
        ((pages,), (size,)) = (*self._rows("PRAGMA page_count"), *self._rows("PRAGMA page_size"))
        return StoreState(
            readings, frames, pages * size, oldest, newest, *(counted.get(name, 0) for name in COUNTERS)
        )

    def _sets(self, source: str, wanted: set[str]) -> dict[int, dict[str, str]]:
        """Sets of tags of that source that have one of those wanted: units by name, in their order."""
        rows = self._rows("SELECT id, tags FROM tagsets WHERE source = ?", source)
        found: dict[int, dict[str, str]] = {number: dict(json.loads(tags)) for number, tags in rows}
        return {number: units for number, units in found.items() if wanted & units.keys()}

    def _frames(self, sets: Collection[int], start_ns: int, end_ns: int) -> Iterator[Any]:
        """Rows of the frames that overlap a time, in the order in which they were kept, one in memory."""
        where = f"tagset IN ({','.join('?' * len(sets))}) AND first >= ? AND first < ? AND last >= ?"
        earliest = max(start_ns - SPAN_NS, -(1 << 63))
        query = f"SELECT id FROM frames WHERE {where} ORDER BY id"  # noqa: S608 - only question marks vary
        for (number,) in self._rows(query, *sets, earliest, end_ns, start_ns):
            yield from self._rows(
                "SELECT first, last, tagset, historical, readings, shared, counts, times, numbers, quality, "
                "codes FROM frames WHERE id = ?",
                number,
            )

    def _decoded(self, row: Any, names: Sequence[str], wanted: Collection[str]) -> dict[str, Column]:
        first, last, _, _, readings, shared, *blocks = row
        try:
            return decode(Frame(first, last, readings, bool(shared), *blocks), names, wanted)
        except Corrupted as error:
            raise Corrupted(f"{self._path}: {error}", AWAY) from error

    def _gaps(self, source: str, start_ns: int, end_ns: int) -> tuple[Gap, ...]:
        rows = self._rows(
            "SELECT first, last, reason, tags FROM gaps "
            "WHERE source = ? AND first < ? AND last >= ? ORDER BY id",
            source,
            end_ns,
            start_ns,
        )
        return tuple(Gap(first, last, reason, tuple(json.loads(tags))) for first, last, reason, tags in rows)


class LocalStore:
    """The store, to be written by one process. ``free`` says how many bytes the disk has left.

    Raises `NotUsable` (also when another process writes it), `DiskFull`, `Corrupted`.
    """

    def __init__(self, settings: StoreSettings, free: Callable[[], int] | None = None) -> None:
        folder = Path(settings.folder)
        self._days_ns = int(settings.days * DAY_NS)
        self._file = BoundedFile(folder / NAME, SCHEMA, FORMAT, settings.mib, self._forget, free)
        try:
            self.stored = StoredReadings(folder)
            with self._file.own_errors():
                self._file.shrink()
        except BaseException:
            self._file.close()
            raise
        self._lock = threading.Lock()

    def append(self, source: str, tags: Sequence[Tag], batch: Batch, now_ns: int) -> int:
        """Keep a batch durably, and forget what is too old by then; how many readings were kept.

        A large batch is kept in parts: after `DiskFull` some may be there. It can be given again, since of
        readings at one time only the last counts. Raises `DataError` for a batch that no source may give.
        """
        check_tags(tags)
        check_batch(batch, tags)
        said = json.dumps([[tag.name, tag.unit] for tag in tags], ensure_ascii=False)
        names = [tag.name for tag in tags]
        frames = (encode(part, names) for part in cut(batch.columns))
        with self._lock, self._file.own_errors():
            self._file.put(lambda: self._insert_gaps(source, batch.gaps), 0)
            while some := list(islice(frames, TOGETHER)):
                self._keep(source, said, some, batch.historical)
            self._file.put(lambda: self._forget_old(now_ns), 0)
        return batch.readings

    def _keep(self, source: str, tags: str, frames: list[Frame], historical: bool) -> None:
        """Some frames at once; what cannot be kept is counted."""
        try:
            self._file.put(
                lambda: self._insert(source, tags, frames, historical), sum(_size(frame) for frame in frames)
            )
        except sqlite3.Error:
            self._refuse(sum(frame.readings for frame in frames))
            raise

    def close(self) -> None:
        """After the last call of anything else."""
        self.stored.close()
        self._file.close()

    def _insert(self, source: str, tags: str, frames: list[Frame], historical: bool) -> None:
        self._file.db.execute("INSERT OR IGNORE INTO tagsets (source, tags) VALUES (?,?)", (source, tags))
        tagset = self._file.value("SELECT id FROM tagsets WHERE source = ? AND tags = ?", source, tags)
        self._file.db.executemany(INSERT, [_row(frame, tagset, historical) for frame in frames])
        self._count("kept", sum(frame.readings for frame in frames))

    def _insert_gaps(self, source: str, gaps: Sequence[Gap]) -> None:
        self._file.db.executemany(
            "INSERT INTO gaps (source, first, last, tags, reason) VALUES (?,?,?,?,?)",
            [(source, gap.first_ns, gap.last_ns, json.dumps(gap.tags), gap.reason) for gap in gaps],
        )
        if gaps:
            self._file.db.execute("DELETE FROM gaps WHERE id <= (SELECT MAX(id) FROM gaps) - ?", (GAPS,))

    def _forget_old(self, now_ns: int) -> None:
        """What is older than the days, by the newest frame where that is behind the clock.

        So a clock that runs ahead forgets nothing while no newer readings come.
        """
        newest = self._file.value("SELECT MAX(first) FROM frames")
        if newest is None:
            return
        before = max(min(now_ns, newest) - self._days_ns, -(1 << 63))
        gone = self._file.value(
            "SELECT SUM(readings) FROM frames WHERE first < ? AND last < ?", before, before
        )
        if gone:
            self._file.db.execute("DELETE FROM frames WHERE first < ? AND last < ?", (before, before))
            self._count("forgotten_by_age", gone)
        self._file.db.execute("DELETE FROM gaps WHERE last < ?", (before,))

    def _forget(self, wanted: int) -> int:
        """Let the oldest frames go, at most `FORGOTTEN`, that take so many bytes; how many they took."""
        rows = self._file.db.execute(
            "SELECT id, size, readings FROM frames ORDER BY first LIMIT ?", (FORGOTTEN,)
        ).fetchall()
        before = accumulate((row[1] for row in rows), initial=0)
        gone = [row for row, size in zip(rows, before, strict=False) if size < wanted]
        self._file.db.executemany("DELETE FROM frames WHERE id = ?", [(row[0],) for row in gone])
        if gone:
            self._count("forgotten_by_size", sum(row[2] for row in gone))
        return sum(row[1] for row in gone)

    def _refuse(self, readings: int) -> None:
        """Counted, when there is room for the number."""
        try:
            with self._file.db:
                self._file.db.execute("BEGIN IMMEDIATE")
                self._count("refused", readings)
        except sqlite3.Error:
            return

    def _count(self, name: str, more: int) -> None:
        self._file.db.execute(
            "INSERT INTO counters VALUES (?,?) "
            "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            (name, more),
        )


def _tags_of(text: str) -> tuple[Tag, ...]:
    return tuple(Tag(name, unit) for name, unit in json.loads(text))


def _row(frame: Frame, tagset: int, historical: bool) -> tuple[Any, ...]:
    """Values of `INSERT`."""
    head = (frame.first_ns, frame.last_ns, tagset, historical, frame.readings, _size(frame), frame.shared)
    return (*head, frame.counts, frame.times, frame.values, frame.quality, frame.codes)


def _size(frame: Frame) -> int:
    return sum(map(len, (frame.counts, frame.times, frame.values, frame.quality, frame.codes)))


def _between(found: Column, start_ns: int, end_ns: int) -> Column:
    first, last = found.times.searchsorted(np.array([start_ns, end_ns], np.int64))
    return found if first == 0 and last == len(found) else found.where(slice(int(first), int(last)))


def _agree(units: dict[str, str], name: str, unit: str, known: bool) -> None:
    """Raises `DataError` when the tag had another unit before."""
    if known and units[name] != unit and not same_unit(units[name], unit):
        raise DataError(
            f"the tag {name!r} is in {units[name] or 'no unit'} and in {unit or 'no unit'}",
            "Ask for the time before the unit changed, or after.",
        )
    units[name] = unit
