"""The source `files`: a folder into which something writes CSV and Parquet files, read as they grow.

A CSV file is read on from where it was read to; its last line counts once it is ended, or has not grown
from one look to the next. A Parquet file is read once it is whole. Files are taken in the order of their
names, hidden ones are left alone. What cannot be read is a gap, with file and reason; the rest goes on.
Files are only ever opened for reading.
"""

from __future__ import annotations

import csv
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from reuna.adapters.csv_rows import separator
from reuna.adapters.data_folder import KINDS
from reuna.adapters.tables import Table, columns_of, read_table
from reuna.core.errors import DataError
from reuna.core.ports import Clock, Offload
from reuna.core.source_settings import SourceSettings, TagSettings
from reuna.core.source_tables import readings
from reuna.core.sources import MAX_REASON, Batch, Column, Gap, Tag, ns_of

CHUNK = 1 << 20  #: bytes of a CSV file that are read at once
SLICE = 65_536  #: rows of a Parquet file in a batch
MAX_TOLD = 1000  #: kinds of trouble that are remembered, so that each is told once

Reason: TypeAlias = "tuple[str, tuple[str, ...]]"  #: of a gap, and its tags


@dataclass(frozen=True)
class _Read:
    """How far a file was read: ``size`` and ``changed_ns`` are what it was at the last look."""

    inode: int
    offset: int = 0
    size: int = -1
    changed_ns: int = 0
    header: bytes = b""


class FileSource:
    """The `Source` port on a folder. Readings up to ``after_ns`` were kept before and are not given again.

    Raises `DataError` when the folder is not there at the beginning, `ExtraMissing` for Parquet without
    pyarrow.
    """

    def __init__(
        self, settings: SourceSettings, clock: Clock, offload: Offload, after_ns: int | None = None
    ) -> None:
        self.name = settings.name
        self.tags = tuple(Tag(tag.name, tag.unit) for tag in settings.tags)
        self._settings = settings
        self._folder = Path(settings.folder)
        self._clock = clock
        self._offload = offload
        self._after_ns = after_ns
        self._read: dict[Path, _Read] = {}
        self._told: set[str] = set()
        self._last_ns: int | None = None  #: greatest source time that was given

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """See `Source.batches`; it goes on for ever."""
        if not self._folder.is_dir():
            raise DataError(
                f"source {self.name}: there is no folder {self._folder}", "Correct `folder` in its settings."
            )
        while True:
            look = self._look()
            while (batch := await self._offload(lambda: next(look, None))) is not None:  # noqa: B023
                yield batch
            await self._clock.sleep(self._settings.every_s)

    def _look(self) -> Iterator[Batch]:
        """What is new in the folder."""
        try:
            files = sorted(
                path
                for path in self._folder.iterdir()
                if path.suffix in KINDS and not path.name.startswith(".")
            )
        except OSError as error:
            yield from self._trouble(f"{self._folder.name}: {error.strerror}")
            return
        self._read = {path: read for path, read in self._read.items() if path in set(files)}
        for path in files:
            try:
                yield from self._new_of(path)
            except OSError as error:
                yield from self._trouble(f"{path.name}: {error.strerror}")
            except DataError as error:
                yield from self._trouble(f"{path.name}: {error.message.replace(str(path), '').strip(', ')}")

    def _new_of(self, path: Path) -> Iterator[Batch]:
        found = path.stat()
        read = self._read.get(path, _Read(found.st_ino))
        if read.inode != found.st_ino or found.st_size < read.offset:
            replaced = self._gap(f"{path.name}: replaced by another file")
            yield Batch({}, ns_of(self._clock.now()), (replaced,))
            read = _Read(found.st_ino)
        still = (read.size, read.changed_ns) == (found.st_size, found.st_mtime_ns)
        self._read[path] = replace(read, size=found.st_size, changed_ns=found.st_mtime_ns)
        if path.suffix == ".parquet":
            if not still:
                yield from self._sliced(read_table(path))
            return
        while self._read[path].offset < found.st_size:
            before = self._read[path].offset
            yield from self._lines(path, still)
            if self._read[path].offset == before:
                return

    def _lines(self, path: Path, ended: bool) -> Iterator[Batch]:
        """The next lines of a CSV file, as many as a chunk has."""
        read = self._read[path]
        with path.open("rb") as file:
            file.seek(read.offset)
            data = file.read(CHUNK)
        whole = len(data) if ended and len(data) < CHUNK else data.rfind(b"\n") + 1
        if not whole and len(data) == CHUNK:
            self._read[path] = replace(read, offset=read.offset + CHUNK)
            raise DataError(f"a line is longer than {CHUNK} bytes")
        if not whole:
            return
        data, header = data[:whole], read.header
        if not header:
            header, _, data = data.lstrip(b"\r\n").partition(b"\n")
        self._read[path] = replace(read, offset=read.offset + whole, header=header)
        if data.strip():
            table, broken = _table(path, header, data)
            yield from self._batch(table, broken)

    def _sliced(self, table: Table) -> Iterator[Batch]:
        for first in range(0, len(table), SLICE):
            part = slice(first, first + SLICE)
            yield from self._batch(
                replace(table, columns={name: cells[part] for name, cells in table.columns.items()}), 0
            )

    def _batch(self, table: Table, broken: int) -> Iterator[Batch]:
        """The readings of some rows, and gaps for rows and columns that are not as they should be."""
        settings, time = self._settings, table.find(self._settings.time)
        if time is None:
            raise DataError(f"no column {settings.time!r}")
        tags = [tag for tag in settings.tags if not _unusable(tag, table)]
        names = {each for tag in tags for each in (tag.column, tag.quality) if each}
        cells = {name: table.columns[found] for name in names if (found := table.find(name))}
        cells[settings.time] = table.columns[time]
        read = readings(tags, settings.time, table.unit(time), cells)
        filled = [each.times for each in read.columns.values() if len(each)]
        first = min((int(times[0]) for times in filled), default=self._now_or_last())
        last = max((int(times[-1]) for times in filled), default=first)
        if filled and self._after_ns is not None and last <= self._after_ns:
            return  # kept before, and its gaps with it
        reasons = [*_rows_lost(table.path.name, broken + read.lost), *self._missing(table)]
        gaps = tuple(Gap(first, last, reason[:MAX_REASON], tags) for reason, tags in reasons)
        if filled:
            self._last_ns = last if self._last_ns is None else max(last, self._last_ns)
        if filled or gaps:
            columns = {name: self._new(each) for name, each in read.columns.items()}
            yield Batch(columns, ns_of(self._clock.now()), gaps)

    def _new(self, found: Column) -> Column:
        """Without what was kept before."""
        if self._after_ns is None:
            return found
        return found.where(slice(int(np.searchsorted(found.times, self._after_ns, "right")), None))

    def _missing(self, table: Table) -> list[Reason]:
        """Tags that the file does not have as declared: told once for each file."""
        found: list[Reason] = []
        for tag in self._settings.tags:
            wrong = _unusable(tag, table) or _doubtful(tag, table)
            reason = f"{table.path.name}: {wrong}"
            if wrong and self._is_new(f"{reason} {tag.name}"):
                found.append((reason, (tag.name,)))
        return found

    def _is_new(self, said: str) -> bool:
        if said in self._told:
            return False
        if len(self._told) >= MAX_TOLD:
            self._told.clear()
        self._told.add(said)
        return True

    def _trouble(self, reason: str) -> Iterator[Batch]:
        """What cannot be read, told when it is new."""
        if self._is_new(reason):
            yield Batch({}, ns_of(self._clock.now()), (self._gap(reason),))

    def _gap(self, reason: str) -> Gap:
        """From the last reading that was given until now."""
        now_ns = ns_of(self._clock.now())
        return Gap(min(self._now_or_last(), now_ns), now_ns, reason[:MAX_REASON])

    def _now_or_last(self) -> int:
        return ns_of(self._clock.now()) if self._last_ns is None else self._last_ns


def _rows_lost(file: str, rows: int) -> list[Reason]:
    return [(f"{file}: {rows} rows cannot be read", ())] if rows else []


def _unusable(tag: TagSettings, table: Table) -> str:
    """Why nothing can be read of a tag, or ''. A number in another unit would be a lie: it is not read."""
    column = table.find(tag.column)
    if column is None:
        return f"no column {tag.column!r}"
    unit = table.unit(column)
    return "" if tag.fits(unit) else f"column {tag.column!r} is in {unit}, not in {tag.unit}"


def _doubtful(tag: TagSettings, table: Table) -> str:
    """Why all of a tag is bad, or ''."""
    lost = tag.quality and table.find(tag.quality) is None
    return f"no column of quality {tag.quality!r}" if lost else ""


def _table(path: Path, header: bytes, data: bytes) -> tuple[Table, int]:
    """Lines of a CSV file as a table, and how many of them are broken. Raises `DataError`."""
    try:
        names, text = header.decode("utf-8-sig"), data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8: {error.reason}") from error
    separated = separator(names)
    heads, _ = _rows([names.rstrip("\r")], separated)
    if not heads:
        raise DataError("its first line names no columns")
    (head,) = heads
    rows, broken = _rows(text.splitlines(), separated)
    whole = [row for row in rows if len(row) == len(head)]
    columns = columns_of(path, [head, *whole], [1] * (1 + len(whole)))
    return Table(path, columns), broken + len(rows) - len(whole)


def _rows(lines: list[str], separated: str) -> tuple[list[list[str]], int]:
    """Cells of the lines that are not empty, and how many lines are no CSV."""
    rows: list[list[str]] = []
    broken = 0
    reader = csv.reader(lines, delimiter=separated, skipinitialspace=True, strict=True)
    while True:
        try:
            row = next(reader, None)
        except csv.Error:
            broken += 1
            continue
        if row is None:
            return rows, broken
        if row:
            rows.append(row)
