"""Events with an effect that happens once, however often and late they are delivered.

The stream that brings them forgets message ids after minutes; this log remembers (node, boot,
seq) for ``KEEP_DAYS`` and records it in the same transaction as the event's effect.

>>> log.record(event, lambda db: db.execute("UPDATE totals SET rounds = rounds + 1"))
True
>>> log.record(event, lambda db: db.execute("UPDATE totals SET rounds = rounds + 1"))
False
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from reuna.adapters.clock import SystemClock
from reuna.adapters.database import Database, Tables, opened
from reuna.core.errors import BadMessage
from reuna.core.ports import Clock
from reuna.core.records import Event

KEEP_DAYS = 400
MOST_LAST = 64  #: projects, or runs, of which the last word of a node is kept, the newest
MAX_SEQ = 2**63 - 1  #: a database's integers
Effect = Callable[[Tables], object]
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
_LAST_OF = """
SELECT received, event FROM last_events WHERE what = ? OR substr(what, 1, ?) = ? ORDER BY node, what
"""
_INSERT = """
INSERT INTO events (node, boot, seq, run, what, received, event) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""


class EventLog:
    """Events, durable when `record` returns. ``at``: the log's file, or the cloud's server.

    Raises as `reuna.adapters.database.Database`.
    """

    def __init__(self, at: Path | Database, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._db = opened(at, _SCHEMA)

    def record(self, event: Event, effect: Effect | None = None, last: bool = False) -> bool:
        """Record the event and do its effect, both or neither; False when it was seen before.

        With ``last`` it replaces what its node said before of the same, see `last`; where it names a
        project or a run, of the same one, of which `MOST_LAST` are kept.
        ``effect`` writes through the transaction given, to tables of its own, and does not commit.
        Raises `BadMessage` for a sequence number that no node of ours counts to.
        """
        if not 0 <= event.seq <= MAX_SEQ:
            raise BadMessage(f"an event of {event.node} has the sequence number {event.seq}")
        data = msgspec.msgpack.encode(event)
        row = (event.node, event.boot, event.seq, event.run, event.what, self._clock.now(), data)
        with self._db.writing() as tables:
            if tables.execute(_INSERT, row).rowcount == 0:
                return False
            if last:
                _replace(tables, event, row[5], data)
            if effect is not None:
                effect(tables)
        return True

    def keep_last(self, event: Event) -> None:
        """It replaces what its node said before of the same, see `last`; no time line has it."""
        row = (event.node, event.what, self._clock.now(), msgspec.msgpack.encode(event))
        with self._db.writing() as tables:
            tables.execute(_LAST, row)

    def last(self, what: str) -> list[tuple[float, Event]]:
        """What each node said last of a thing, and when that arrived (epoch s); it is never forgotten.

        Where it names a project or a run, of each of them.
        """
        found = self._db.rows(_LAST_OF, what, len(what) + 1, f"{what}/")
        return [(at, msgspec.msgpack.decode(data, type=Event)) for at, data in found]

    def read(self, run: str, after: int = 0) -> list[Event]:
        """Events of a run in the order they arrived, without the first ``after``."""
        query = "SELECT event FROM events WHERE run = ? ORDER BY number LIMIT ? OFFSET ?"
        found = self._db.rows(query, run, MAX_SEQ, after)
        return [msgspec.msgpack.decode(data, type=Event) for (data,) in found]

    def counts(self) -> dict[str, int]:
        """How many events of each ``what`` are kept."""
        return dict(self._db.rows("SELECT what, count(*) FROM events GROUP BY what ORDER BY what"))

    def prune(self, now: float) -> int:
        """Forget events that arrived more than `KEEP_DAYS` before ``now`` (epoch s); how many.

        A forgotten event that is delivered once more takes effect once more, so the streams must
        keep events for less than that. What counts is when it arrived here: the clock of a node
        without a battery starts in 1970.
        """
        with self._db.writing() as tables:
            done = tables.execute("DELETE FROM events WHERE received < ?", (now - KEEP_DAYS * 86_400,))
            return done.rowcount

    def durability(self) -> str:
        """How the open database writes."""
        return self._db.durability()

    def close(self) -> None:
        """After the last call of anything else."""
        self._db.close()


def _replace(tables: Tables, event: Event, at: float, data: bytes) -> None:
    """What the node said before of the same, and of the same project or run."""
    of = event.fields.get("project") or event.run
    tables.execute(_LAST, (event.node, f"{event.what}/{of}" if of else event.what, at, data))
    mine = (event.node, len(event.what) + 1, f"{event.what}/")
    known = tables.execute(
        "SELECT what FROM last_events WHERE node = ? AND substr(what, 1, ?) = ? ORDER BY received DESC", mine
    ).fetchall()
    for (what,) in known[MOST_LAST:]:
        tables.execute("DELETE FROM last_events WHERE node = ? AND what = ?", (event.node, what))
