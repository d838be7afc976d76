"""A copy of a SQLite database that others are writing, as it was at one moment.

The moment is that of `Moment.of`: a read transaction holds it, which stops no writer. The copy is made
later by SQLite's online backup, page by page out of that transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from reuna.adapters.files import database_error, storage_error
from reuna.core.errors import Corrupted

MAGIC = b"SQLite format 3\0"
PAGES = 256  #: copied at a time: 1 MiB, so that progress can be told
WAIT_S = 30.0  #: for a database that another process is just making


def is_database(path: Path) -> bool:
    """Whether a file is a SQLite database, by its first bytes. Raises `NotUsable`, `Corrupted`."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise storage_error(error, path) from error


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing. Raises `NotUsable`, `Corrupted`."""
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        return sqlite3.connect(uri, uri=True, timeout=WAIT_S, isolation_level=None)
    except sqlite3.Error as error:
        raise database_error(error, path) from error


class Moment:
    """A database as it is now, whatever is written later; until `close`."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self.path = path
        self.database = database
        pages, size = (
            database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
        )
        self.size = pages * size  #: bytes of the copy

    @classmethod
    def of(cls, path: Path) -> Moment:
        """Hold it. Raises `NotUsable`, `Corrupted`."""
        database = open_to_read(path)
        try:
            database.execute("BEGIN")
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()  # here the moment is taken
            return cls(path, database)
        except sqlite3.Error as error:
            database.close()
            raise database_error(error, path) from error

    def copy(self, to: Path, progress: Callable[[int], None]) -> None:
        """Write it to a new file, looked through for damage. Raises `DiskFull`, `Corrupted`."""
        told = 0

        def tell(_status: int, remaining: int, total: int) -> None:
            nonlocal told
            done = self.size * (total - remaining) // max(total, 1)
            progress(done - told)
            told = done

        try:
            with closing(sqlite3.connect(to, isolation_level=None)) as copy:
                self.database.backup(copy, pages=PAGES, progress=tell)
                found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.Error as error:
            raise database_error(error, self.path) from error
        if found != "ok":
            raise Corrupted(f"{self.path} is damaged: {found}", "Restore the backup before this one.")

    def close(self) -> None:
        """Let the moment go."""
        self.database.close()
