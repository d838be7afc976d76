"""How many labelled rows this node has that were not there when it last trained: counted here, and told.

    STATE/labelled      digests of the labelled rows that there were, for each of the last runs

A row is new when no row with the same cells was in the training tables at the run. So a folder that grows
counts, one whose window moves on counts, and so does a row that gets its label later; a file that is renamed
or written again as it was does not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Set
from contextlib import suppress
from pathlib import Path

import msgspec

from reuna.adapters.checked_file import CheckedFile
from reuna.adapters.fingerprint import DATA_KEY, DataFolder, Marks
from reuna.adapters.labelled_rows import MOST, SIZE, labelled_rows
from reuna.core.errors import DataError, ReunaError
from reuna.core.labelled import Labelled, as_event
from reuna.core.ports import Clock, Offload
from reuna.core.records import Event

log = logging.getLogger("reuna.edge")
FILE = "labelled"  #: in a node's state folder
RUNS = 4  #: the newest, since each of which rows are counted
MAX_FILE = 2 * RUNS * SIZE * MOST  #: bytes; base64 takes 4 for 3

#: Passes an event on; False when the site's policy keeps it here.
Emit = Callable[[Event], Awaitable[bool]]


class Since(msgspec.Struct, frozen=True):
    """A run that this node trained in, the column of its label, and digests of the rows of then."""

    run: str
    label: str
    rows: bytes


class LabelledRows:
    """``folder`` is the node's state folder, ``data`` its own data; ``every_s``: between two looks at it."""

    def __init__(
        self,
        node: str,
        boot: str,
        folder: Path,
        data: Path,
        every_s: float,
        emit: Emit,
        clock: Clock,
        offload: Offload,
    ) -> None:
        self._node = node
        self._boot = boot
        self._data = data
        self._every_s = every_s
        self._emit = emit
        self._clock = clock
        self._offload = offload
        self._file: CheckedFile[list[Since]] = CheckedFile(folder / FILE, list[Since], MAX_FILE)
        self._folder = DataFolder(data, folder / DATA_KEY)
        self._begun: dict[str, str] = {}  #: runs that it trains in -> column of the label
        self._marks: Marks | None = None  #: of the data when they were counted last
        self._told: dict[str, int] = {}
        self._news = asyncio.Event()
        self._number = 0
        self._said = ""

    def trained(self, run: str, label: str) -> None:
        """This node trains in a run, on what there is now; '': its contract names no label."""
        if label:
            self._begun[run] = label
            self._news.set()

    async def keep(self) -> None:
        """Count now and then, and tell. Until cancelled."""
        while True:
            self._news.clear()
            await self.look()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), self._every_s)

    async def look(self) -> None:
        """Count what is new, where anything has changed, and tell what is not known yet."""
        begun = dict(self._begun)
        marks = await self._offload(self._folder.marks)
        if not begun and marks == self._marks:
            return
        try:
            found = await self._offload(lambda: self._counted(begun))
        except ReunaError as error:
            self._say(f"{error.code} {error}")
            return
        self._said, self._marks = "", marks
        self._begun = {run: label for run, label in self._begun.items() if run not in begun}
        for run, rows in found.items():
            if self._told.get(run) != rows and await self._tell(Labelled(run, rows)):
                self._told[run] = rows

    def _counted(self, begun: dict[str, str]) -> dict[str, int]:
        """New rows since each run; what there is now is that of runs that have begun, durable.

        Raises `DataError`, `StorageError`.
        """
        kept = self._file.read() or []
        labels = {each.label for each in kept} | set(begun.values())
        found = {label: labelled_rows(self._data, label) for label in sorted(labels)}
        known = {each.run for each in kept}
        new = [
            Since(run, label, b"".join(sorted(found[label])))
            for run, label in begun.items()
            if run not in known
        ]
        if new:
            kept = [*kept, *new][-RUNS:]
            self._file.write(kept)
        return {each.run: _new(found[each.label], each) for each in kept}

    async def _tell(self, said: Labelled) -> bool:
        event = as_event(self._node, self._boot, self._number, self._clock.now(), said)
        arrived = await self._emit(event)
        self._number += arrived
        return arrived

    def _say(self, what: str) -> None:
        if what != self._said:
            log.warning("new labelled rows are not counted: %s", what)
        self._said = what


def _new(rows: Set[bytes], since: Since) -> int:
    """Rows that were not there then."""
    if len(since.rows) % SIZE:
        raise DataError(f"what there was at run {since.run} cannot be read")
    return len(rows) - sum(since.rows[at : at + SIZE] in rows for at in range(0, len(since.rows), SIZE))
