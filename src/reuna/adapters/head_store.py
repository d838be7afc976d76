"""Heads of ledgers that the cloud has countersigned; rows are only ever added.

One newest head for each node says where its ledger was last seen; nothing before is forgotten, so
that a head that comes again gets the countersignature that it had.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from reuna.adapters.database import Database, opened

_SCHEMA = """
CREATE TABLE IF NOT EXISTS heads (
    number INTEGER PRIMARY KEY AUTOINCREMENT, node TEXT NOT NULL, ledger TEXT NOT NULL, key BLOB NOT NULL,
    seq INTEGER NOT NULL, at REAL NOT NULL, head BLOB NOT NULL, countersignature BLOB NOT NULL,
    UNIQUE (node, ledger, seq)
);
CREATE INDEX IF NOT EXISTS newest ON heads (node, number);
CREATE TABLE IF NOT EXISTS released (node TEXT NOT NULL, ledger TEXT NOT NULL, UNIQUE (node, ledger));
"""
_COLUMNS = "node, ledger, key, seq, at, head, countersignature"
_PUT = f"INSERT INTO heads ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  # our own words
_NEWEST = f"""
SELECT {_COLUMNS} FROM heads h WHERE node = ?
    AND NOT EXISTS (SELECT 1 FROM released r WHERE r.node = h.node AND r.ledger = h.ledger)
ORDER BY number DESC LIMIT 1
"""  # noqa: S608  # our own words
_AT = f"SELECT {_COLUMNS} FROM heads WHERE node = ? AND ledger = ? AND seq = ?"  # noqa: S608
_ALL = f"SELECT {_COLUMNS} FROM heads ORDER BY number"  # noqa: S608  # our own words
_RELEASE = """
INSERT INTO released SELECT DISTINCT node, ledger FROM heads WHERE node = ? ON CONFLICT DO NOTHING
"""


class Kept(NamedTuple):
    """A countersigned head. ``node``: its identity; ``key``: the ledger's public key; ``at``: when it came.

    ``head`` is what the node stated, ``countersignature`` the cloud's statement about it.
    """

    node: str
    ledger: str
    key: bytes
    seq: int
    at: float
    head: bytes
    countersignature: bytes


class HeadStore:
    """``at``: its file, or the cloud's server. Raises as `reuna.adapters.database.Database`."""

    def __init__(self, at: Path | Database) -> None:
        self._db = opened(at, _SCHEMA, 0o700)

    def newest(self, node: str) -> Kept | None:
        """The last head of a node's ledger, None before the first and after `release`."""
        return self._one(_NEWEST, node)

    def at(self, node: str, ledger: str, seq: int) -> Kept | None:
        """The head kept of that very place."""
        return self._one(_AT, node, ledger, seq)

    def every(self) -> list[Kept]:
        """All of them, the oldest first."""
        return [Kept(*row) for row in self._db.rows(_ALL)]

    def keep(self, kept: Kept) -> None:
        """Add one."""
        with self._db.writing() as tables:
            tables.execute(_PUT, kept)

    def release(self, node: str) -> int:
        """Let a node begin another ledger, under another key if need be; how many ledgers it had."""
        with self._db.writing() as tables:
            return tables.execute(_RELEASE, (node,)).rowcount

    def close(self) -> None:
        """After the last call of anything else."""
        self._db.close()

    def _one(self, query: str, *values: object) -> Kept | None:
        rows = self._db.rows(query, *values)
        return Kept(*rows[0]) if rows else None
