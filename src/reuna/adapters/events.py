"""Events with an effect that happens once, however often and late they are delivered.

The stream that brings them forgets message ids after minutes; this log remembers (node, boot,
seq) for ``KEEP_DAYS`` and records it in the same transaction as the event's effect.

>>> log.record(event, lambda db: db.execute("UPDATE totals SET rounds = rounds + 1"))
True
>>> log.record(event, lambda db: db.execute("UPDATE totals SET rounds = rounds + 1"))
False
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.clock import SystemClock
from reuna.adapters.files import database_error, open_database, written_how
from reuna.core.errors import BadMessage, StorageError
from reuna.core.ports import Clock
from reuna.core.records import Event

KEEP_DAYS = 400
MAX_SEQ = 2**63 - 1  #: SQLite's integers
WAIT_S = 5.0  #: for another process that writes
Effect = Callable[[sqlite3.Connection], object]
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    node TEXT NOT NULL, boot TEXT NOT NULL, seq INTEGER NOT NULL,
    run TEXT NOT NULL, what TEXT NOT NULL, received REAL NOT NULL, event BLOB NOT NULL,
    UNIQUE (node, boot, seq)
);
CREATE INDEX IF NOT EXISTS events_of_run ON events (run, number);
CREATE TABLE IF NOT EXISTS last_events (
    node TEXT NOT NULL, what TEXT NOT NULL, received REAL NOT NULL, event BLOB NOT NULL,
    PRIMARY KEY (node, what)
);
"""
_LAST = """
INSERT INTO last_events (node, what, received, event) VALUES (?, ?, ?, ?)
ON CONFLICT (node, what) DO UPDATE SET received = excluded.received, event = excluded.event
"""
_INSERT = """
INSERT INTO events (node, boot, seq, run, what, received, event) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""


class EventLog:
    """Events in SQLite, durable when `record` returns. Safe to use from several threads.

    All methods raise `DiskFull`, `NotUsable` or `Corrupted` when the disk does not do its part.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._path = path
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._db = open_database(path, WAIT_S)
        try:
            with self._own_errors():
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                self._db.executescript(_SCHEMA)
        except StorageError:
            self._db.close()
            raise

    def record(self, event: Event, effect: Effect | None = None, last: bool = False) -> bool:
        """Record the event and do its effect, both or neither; False when it was seen before.

        With ``last`` it replaces what its node said before of the same, see `last`.
        ``effect`` writes through the connection given, to tables of its own, and does not commit.
        Raises `BadMessage` for a sequence number that no node of ours counts to.
        """
        if not 0 <= event.seq <= MAX_SEQ:
            raise BadMessage(f"an event of {event.node} has the sequence number {event.seq}")
        data = msgspec.msgpack.encode(event)
        row = (event.node, event.boot, event.seq, event.run, event.what, self._clock.now(), data)
        with self._transaction():
            if self._db.execute(_INSERT, row).rowcount == 0:
                return False
            if last:
                self._db.execute(_LAST, (event.node, event.what, row[5], data))
            if effect is not None:
                effect(self._db)
        return True

    def last(self, what: str) -> list[tuple[float, Event]]:
        """What each node said last of a thing and when that arrived (epoch s); it is never forgotten."""
        found = self._rows("SELECT received, event FROM last_events WHERE what = ? ORDER BY node", what)
        return [(at, msgspec.msgpack.decode(data, type=Event)) for at, data in found]

    def read(self, run: str, after: int = 0) -> list[Event]:
        """Events of a run in the order they arrived, without the first ``after``."""
        query = "SELECT event FROM events WHERE run = ? ORDER BY number LIMIT -1 OFFSET ?"
        found = self._rows(query, run, after)
        return [msgspec.msgpack.decode(data, type=Event) for (data,) in found]

    def counts(self) -> dict[str, int]:
        """How many events of each ``what`` are kept."""
        return dict(self._rows("SELECT what, count(*) FROM events GROUP BY what ORDER BY what"))

    def prune(self, now: float) -> int:
        """Forget events that arrived more than `KEEP_DAYS` before ``now`` (epoch s); how many.

        A forgotten event that is delivered once more takes effect once more, so the streams must
        keep events for less than that. What counts is when it arrived here: the clock of a node
        without a battery starts in 1970.
        """
        with self._transaction():
            done = self._db.execute("DELETE FROM events WHERE received < ?", (now - KEEP_DAYS * 86_400,))
            return done.rowcount

    def durability(self) -> str:
        """How the open database writes."""
        with self._lock:
            return written_how(self._db)

    def close(self) -> None:
        """After the last call of anything else."""
        self._db.close()

    def _rows(self, query: str, *values: object) -> list[Any]:
        with self._lock, self._own_errors():
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, self._own_errors(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise database_error(error, self._path) from error
