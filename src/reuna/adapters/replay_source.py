"""The source `replay`: the CSV and Parquet files of a folder, given as if they were read now.

The first reading comes at once, each other one as much later as its time says, divided by ``speed``. Times
are those of the replay, not of the recording; between two files, and before it begins again, is a gap.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reuna.adapters.data_folder import folder_tables
from reuna.adapters.tables import Table, read_table
from reuna.core.errors import DataError
from reuna.core.ports import Clock, Offload
from reuna.core.source_settings import SourceSettings
from reuna.core.source_tables import readings
from reuna.core.sources import NS, Batch, Column, Gap, Tag, ns_of

TICK_S = 1.0  #: time of a batch
PAUSE_NS = NS  #: between two files


class ReplaySource:
    """The `Source` port on a recording.

    Raises `DataError` for a recording that is not there, has no column of time or none of the tags;
    `ExtraMissing` for Parquet without pyarrow.
    """

    def __init__(self, settings: SourceSettings, clock: Clock, offload: Offload) -> None:
        self.name = settings.name
        self.tags = tuple(Tag(tag.name, tag.unit) for tag in settings.tags)
        self._settings = settings
        self._clock = clock
        self._offload = offload

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """See `Source.batches`; it ends with the recording, unless it repeats."""
        paths = await self._offload(self._paths)
        due_ns = ns_of(self._clock.now())
        began = False
        while True:
            for path in paths:
                columns = await self._offload(lambda: self._columns(path))  # noqa: B023
                gaps = (Gap(due_ns - PAUSE_NS, due_ns, f"{path.name} begins"),) if began else ()
                began = True
                moved, end_ns = _moved(columns, due_ns, self._settings.speed)
                for batch in _ticks(moved, due_ns):
                    last_ns = batch.received_ns
                    await self._clock.sleep(max(0.0, last_ns / NS - self._clock.now()))
                    yield Batch(batch.columns, ns_of(self._clock.now()), gaps)
                    gaps = ()
                due_ns = end_ns + PAUSE_NS
            if not self._settings.repeat:
                return

    def _paths(self) -> list[Path]:
        return [path for paths in folder_tables(Path(self._settings.folder)).values() for path in paths]

    def _columns(self, path: Path) -> Mapping[str, Column]:
        """Readings of one file, by its own times."""
        table, settings = read_table(path), self._settings
        time = table.find(settings.time)
        if time is None:
            raise DataError(f"{path} has no column {settings.time!r}; it has {', '.join(table.columns)}")
        for tag in settings.tags:
            column = table.find(tag.column)
            if column and not tag.fits(table.unit(column)):
                raise DataError(f"{path}: {tag.column!r} is in {table.unit(column)}, not in {tag.unit}")
        found = readings(settings.tags, settings.time, table.unit(time), _cells(table, settings, time))
        if not any(map(len, found.columns.values())):
            raise DataError(f"{path} has no reading of the tags of the source {self.name}")
        return found.columns


def _cells(table: Table, settings: SourceSettings, time: str) -> dict[str, NDArray[Any]]:
    names = {each for tag in settings.tags for each in (tag.column, tag.quality) if each}
    cells = {name: table.columns[found] for name in names if (found := table.find(name))}
    return {**cells, settings.time: table.columns[time]}


def _moved(columns: Mapping[str, Column], to_ns: int, speed: float) -> tuple[dict[str, Column], int]:
    """The readings with the first of them at ``to_ns``, and when the last one is."""
    filled = [found.times for found in columns.values() if len(found)]
    first = min(int(times[0]) for times in filled)
    moved = {
        name: Column(
            ((found.times - first) / speed).astype(np.int64) + to_ns, found.values, found.quality, found.codes
        )
        for name, found in columns.items()
    }
    return moved, max(int(found.times[-1]) for found in moved.values() if len(found))


def _ticks(columns: Mapping[str, Column], first_ns: int) -> Iterator[Batch]:
    """Batches of `TICK_S`, each with the moment at which its last reading is due; none is empty."""
    tick_ns = ns_of(TICK_S)
    ticks = np.unique(np.concatenate([(found.times - first_ns) // tick_ns for found in columns.values()]))
    for tick in ticks.tolist():
        edges = np.array([tick, tick + 1], np.int64) * tick_ns + first_ns
        part = {}
        for name, found in columns.items():
            first, last = found.times.searchsorted(edges).tolist()
            part[name] = found.where(slice(first, last))
        yield Batch(part, max(int(found.times[-1]) for found in part.values() if len(found)))
