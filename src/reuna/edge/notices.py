"""A node's own alarms, in one small file of its state folder: what goes on, and the newest notices.

Whoever sends them on reads the file; see `reuna.edge.sinks`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from reuna.adapters.checked_file import CheckedFile
from reuna.core.errors import StorageError
from reuna.core.notices import Book, Found, begun_anew, noticed
from reuna.core.ports import Clock, Offload
from reuna.core.sources import ns_of

log = logging.getLogger("reuna.watch")
ALARMS = "alarms"  #: in a node's state folder
MOST = 16 << 20  #: bytes of the file


def notices_file(folder: Path) -> CheckedFile[Book]:
    """That of a node's state folder."""
    return CheckedFile(folder / ALARMS, Book, MOST)


class Notices:
    """The file, to be written by one process."""

    def __init__(self, folder: Path, clock: Clock, offload: Offload) -> None:
        self._file = notices_file(folder)
        self._clock = clock
        self._offload = offload
        self._book: Book | None = None

    async def found(self, found: Found) -> None:
        """What a watch finds now; what is news is on the disk then, or the log says that it is not."""
        await self._change(lambda book, now_ns: noticed(book, found, now_ns))

    async def begun_anew(self, project: str) -> None:
        """Another release of a project is watched."""
        await self._change(lambda book, now_ns: begun_anew(book, project, now_ns))

    async def _change(self, change: Callable[[Book, int], Book]) -> None:
        if self._book is None:
            self._book = await self._offload(self._file.read) or Book()
        after = change(self._book, ns_of(self._clock.now()))
        if after is self._book:
            return
        self._book = after
        newest = after.kept[-1].notice
        log.warning("alarm of %s %s: %s", newest.kind, newest.state, ", ".join(newest.signals))
        try:
            await self._offload(lambda: self._file.write(after))
        except StorageError as error:
            log.error("an alarm is not written down: %s %s", error.code, error)
