"""Where a store keeps its tables: one SQLite file of its own, or a server that many share.

A store says each of its statements once, in the SQL that SQLite and PostgreSQL have in common, with ``?``
for values. Nodes and fogs keep SQLite and import nothing more; the server is `reuna.adapters.postgresql`.

    database = opened(path, SCHEMA)          # or a server's database, given instead of the path
    with database.writing() as tables:       # one transaction; nobody else writes meanwhile
        tables.execute("DELETE FROM held WHERE name = ?", (name,))
    database.rows("SELECT name FROM held")
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from reuna.adapters.files import database_error, open_database, written_how
from reuna.core.errors import StorageError

WAIT_S = 10.0  #: for another process that writes


class Found(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> Sequence[Any]: ...


class Tables(Protocol):
    """An open transaction."""

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Found: ...
    def executemany(self, statement: str, rows: Sequence[Sequence[Any]], /) -> Any: ...


class Database(Protocol):
    """Safe to use from several threads and processes; what was written is durable.

    All methods raise `DiskFull`, `NotUsable` or `Corrupted`; on a server also `Unreachable`,
    `PermissionDenied`, and `BadMessage` for a value that no column takes.
    """

    def rows(self, query: str, *values: Any) -> Sequence[Any]:
        """What a query finds."""

    def writing(self) -> AbstractContextManager[Tables]:
        """A transaction that is alone, committed at its end; nothing of it is done when it raises."""

    def durability(self) -> str:
        """How it writes, read back from what is open."""

    def close(self) -> None:
        """After the last call of anything else."""


class SqliteDatabase:
    """The `Database` in one file, whose tables ``schema`` makes where they are missing."""

    def __init__(self, path: Path, schema: str, mode: int = 0o777) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._db = open_database(path, WAIT_S, mode)
        try:
            with self._own_errors():
                for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                    self._db.execute(f"PRAGMA {pragma}")
                self._db.executescript(schema)
        except StorageError:
            self._db.close()
            raise

    def rows(self, query: str, *values: Any) -> list[Any]:
        """See `Database.rows`."""
        with self._lock, self._own_errors():
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """See `Database.writing`."""
        with self._lock, self._own_errors(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db

    def durability(self) -> str:
        """See `Database.durability`."""
        with self._lock:
            return written_how(self._db)

    def close(self) -> None:
        """See `Database.close`."""
        self._db.close()

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise database_error(error, self._path) from error


def opened(at: Path | Database, schema: str, mode: int = 0o777) -> Database:
    """A store's database: SQLite in the file ``at``, or the server's, which has its tables already.

    ``mode``: of the file's folder, when it is made. Raises what `Database` raises.
    """
    return SqliteDatabase(at, schema, mode) if isinstance(at, Path) else at
