"""An SQLite file within some bytes, on a disk that others fill too: the oldest makes room for the newest.

- **One bound on pages** does both: the file's own bytes, and `RESERVE` of the disk that stay free. When there
  is no page left, the oldest rows go and their pages are used again.
- **Durable.** What `BoundedFile.put` has done when it returns is there after any crash.
- **One writes, many read.** A second process that would write is refused.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reuna.adapters.files import database_error, open_database
from reuna.core.errors import Corrupted, DiskFull, NotUsable, StorageError

MIB = 1 << 20
WAIT_S = 10.0  #: for another process that holds the file
LOG = 4 * MIB  #: of the file's bytes, for SQLite's log of what is not yet in its place
LOG_PAGES = 256  #: of the log, after which it is worked off
RESERVE = 64 * MIB  #: of the disk, left to others
SHARE = 64  #: a part of the bytes that is forgotten at once when there is no room
AWAY = "Move the file away and begin again: a new one is made. Check the disk if it recurs."

#: Lets some of the oldest rows go that take about so many bytes, in a transaction; how many they took.
Forget = Callable[[int], int]


class BoundedFile:
    """The file, to be written by one process. Raises `NotUsable`, `DiskFull`, `Corrupted`.

    ``free`` says how many bytes the disk has left. ``close`` it after the last call of anything else.
    """

    def __init__(
        self,
        path: Path,
        schema: str,
        version: int,
        mib: int,
        forget: Forget,
        free: Callable[[], int] | None = None,
    ) -> None:
        self._path = path
        self._bytes = mib * MIB - LOG
        self._oldest = forget
        self._free = free or (lambda: shutil.disk_usage(path.parent).free)
        self._mine = _held(path)
        try:
            self.db = _made(path, schema, version)
            with self.own_errors():
                self._page = int(self.value("PRAGMA page_size"))
        except BaseException:
            os.close(self._mine)
            raise

    def put(self, work: Callable[[], None], need: int) -> None:
        """One transaction; while there is no room for it, the oldest rows go.

        Raises `sqlite3.Error`, see `own_errors`.
        """
        while True:
            self._limit(self._cap())
            try:
                with self.db:
                    self.db.execute("BEGIN IMMEDIATE")
                    work()
            except sqlite3.Error as error:
                full = isinstance(database_error(error, self._path), DiskFull)
                if not full or self._has_room(need) or not self._forget(need):
                    raise
            else:
                return

    def shrink(self) -> None:
        """After a lower bound: forget the oldest, and give the space back."""
        most = self._bytes // self._page
        if int(self.value("PRAGMA page_count")) <= most:
            return
        while self._used() > most and self._forget(0):
            pass
        self.db.executescript("PRAGMA incremental_vacuum")  # `execute` would give back one page
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def value(self, query: str, *values: Any) -> Any:
        """The first value of the first row."""
        return self.db.execute(query, values).fetchone()[0]

    def close(self) -> None:
        """Let go of it."""
        self.db.close()
        os.close(self._mine)

    @contextmanager
    def own_errors(self) -> Iterator[None]:
        """SQLite's errors as ours."""
        with own_errors(self._path):
            yield

    def _has_room(self, need: int) -> bool:
        """Whether the file itself has room: then the disk refuses, and to forget more is in vain."""
        return int(self.value("PRAGMA freelist_count")) * self._page > 2 * need + MIB // 4

    def _cap(self) -> int:
        """Pages that the file may have: by its own bound, and by what the disk has left."""
        pages = int(self.value("PRAGMA page_count"))
        room = max(0, self._free() - RESERVE) // self._page
        return max(1, min(self._bytes // self._page, pages + room))

    def _limit(self, pages: int) -> None:
        self.db.execute(f"PRAGMA max_page_count = {pages}")  # never below what it has

    def _forget(self, need: int) -> bool:
        """Let the oldest rows go until there is room for that many bytes; False when nothing is left."""
        wanted = max(4 * need, self._bytes // SHARE)
        self._limit(int(self.value("PRAGMA page_count")) + LOG // self._page)  # to forget may need a page
        freed = 0
        while freed < wanted:
            with self.db:
                self.db.execute("BEGIN IMMEDIATE")
                more = self._oldest(wanted - freed)
            if not more:
                break
            freed += more
        return freed > 0

    def _used(self) -> int:
        return int(self.value("PRAGMA page_count")) - int(self.value("PRAGMA freelist_count"))


class StoredFile:
    """A file that another process may write, to be read. Safe for several threads.

    Raises `NotUsable`, with ``missing`` and a next step where it is not there, `Corrupted`.
    """

    def __init__(self, path: Path, version: int, missing: str, next_step: str) -> None:
        self._path = path
        if not path.is_file():
            raise NotUsable(missing, next_step)
        self._lock = threading.RLock()
        self._db = open_database(path, WAIT_S)
        with own_errors(path):
            _judge_version(self._db, path, version)

    def close(self) -> None:
        """After the last call of anything else."""
        with self._lock:
            self._db.close()

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with self._lock, own_errors(self._path):
            return self._db.execute(query, values).fetchall()


@contextmanager
def own_errors(path: Path) -> Iterator[None]:
    """SQLite's error as one of ours; there is no other copy of the file, so a damaged one is for people."""
    try:
        yield
    except sqlite3.Error as error:
        raise _own_error(error, path) from error


def _judge_version(db: sqlite3.Connection, path: Path, version: int) -> None:
    """Raises `NotUsable` for a file of another format."""
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found != version:
        raise NotUsable(
            f"{path} has format {found}, this version of Reuna knows {version}",
            "Run the version of Reuna that wrote it, or move the file away.",
        )


def _own_error(error: sqlite3.Error, path: Path) -> StorageError:
    found = database_error(error, path)
    return Corrupted(found.message, AWAY) if isinstance(found, Corrupted) else found


def _held(path: Path) -> int:
    """The lock of the process that writes. Raises `NotUsable`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        mine = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise database_error(error, path) from error
    try:
        fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(mine)
        raise NotUsable(
            f"another process writes to the store in {path.parent}", "End it, or name another folder."
        ) from None
    return mine


def _made(path: Path, schema: str, version: int) -> sqlite3.Connection:
    """The file, made when it is not there."""
    db = open_database(path, WAIT_S)
    try:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before anything is in the file
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        db.execute(f"PRAGMA journal_size_limit = {LOG // 2}")
        if not db.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()[0]:
            db.executescript(f"BEGIN IMMEDIATE; {schema} PRAGMA user_version = {version}; COMMIT;")
        _judge_version(db, path, version)
    except sqlite3.Error as error:
        db.close()
        raise _own_error(error, path) from error
    except NotUsable:
        db.close()
        raise
    return db
