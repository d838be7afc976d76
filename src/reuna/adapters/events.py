"""Events with an effect that happens once, however often and late they are delivered.

The stream that brings them forgets message ids after minutes; this log remembers (node, boot,
seq) for ``KEEP_DAYS`` and records it in the same transaction as the event's effect.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from reuna.core.records import Event

KEEP_DAYS = 400
Effect = Callable[[sqlite3.Connection], None]
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    node TEXT NOT NULL, boot TEXT NOT NULL, seq INTEGER NOT NULL,
    run TEXT NOT NULL, at REAL NOT NULL, event BLOB NOT NULL,
    UNIQUE (node, boot, seq)
);
CREATE INDEX IF NOT EXISTS events_of_run ON events (run, number);
"""


class EventLog:
    """Events in SQLite. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        self._lock = threading.Lock()

    def record(self, event: Event, effect: Effect | None = None) -> bool:
        """Record the event and do its effect, both or neither; False when it was seen before."""
        values = (event.node, event.boot, event.seq, event.run, event.at, msgspec.msgpack.encode(event))
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            done = self._db.execute(
                "INSERT INTO events (node, boot, seq, run, at, event) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                values,
            )
            if done.rowcount == 0:
                return False
            if effect is not None:
                effect(self._db)
        return True

    def read(self, run: str, after: int = 0) -> list[Event]:
        """Events of a run in the order they arrived, without the first ``after``."""
        with self._lock:
            found = self._db.execute(
                "SELECT event FROM events WHERE run = ? ORDER BY number LIMIT -1 OFFSET ?", (run, after)
            ).fetchall()
        return [msgspec.msgpack.decode(data, type=Event) for (data,) in found]

    def prune(self, now: float) -> int:
        """Forget events older than `KEEP_DAYS`; how many. ``now`` in seconds since the epoch."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            return self._db.execute("DELETE FROM events WHERE at < ?", (now - KEEP_DAYS * 86_400,)).rowcount

    def close(self) -> None:
        self._db.close()
