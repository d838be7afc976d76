"""What a journal holds, read without opening it as a journal: open runs, their versions, its schema.

The tables are those of DBOS (`reuna.adapters.journal_dbos`), in a file or in the schema ``dbos`` of a
server; nothing is imported that a node lacks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

_OPEN = """
SELECT w.workflow_uuid, count(o.function_id), coalesce(w.application_version, '')
FROM {0}workflow_status w LEFT JOIN {0}operation_outputs o
    ON o.workflow_uuid = w.workflow_uuid AND o.function_name LIKE 'round %'
WHERE w.status NOT IN ('SUCCESS', 'ERROR', 'CANCELLED')
GROUP BY w.workflow_uuid, w.application_version ORDER BY w.workflow_uuid
"""
_VERSION = "SELECT coalesce(max(version), 0) FROM {0}dbos_migrations"
_NAMES = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'dbos'"
Query = Callable[[str], Sequence[Any]]


class OpenRun(NamedTuple):
    """A run that had not ended: rounds that are journalled, and the version of the journal it began with."""

    run: str
    rounds: int
    version: str


class JournalState(NamedTuple):
    """``runs`` go on at the next start; ``schema`` is 0 while there are no tables."""

    runs: list[OpenRun]
    schema: int


def in_file(database: sqlite3.Connection) -> JournalState:
    """Of a journal in a file. Raises `sqlite3.Error`."""

    def query(statement: str) -> list[Any]:
        return database.execute(statement).fetchall()

    return _state(query, query("SELECT name FROM sqlite_master WHERE type = 'table'"), "")


def on_server(query: Query) -> JournalState:
    """Of the journal on a server. Raises what ``query`` raises."""
    return _state(query, query(_NAMES), "dbos.")


def _state(query: Query, names: Sequence[Any], prefix: str) -> JournalState:
    tables = {name for (name,) in names}
    runs = query(_OPEN.format(prefix)) if {"workflow_status", "operation_outputs"} <= tables else []
    schema = query(_VERSION.format(prefix))[0][0] if "dbos_migrations" in tables else 0
    return JournalState([OpenRun(run.partition("~")[0], *rest) for run, *rest in runs], int(schema))
