"""What a journal holds, read from its file without opening it as a journal: open runs, its versions.

The tables are those of DBOS (`reuna.adapters.journal_dbos`); nothing is imported that a node lacks.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

_OPEN = """
SELECT w.workflow_uuid, count(o.function_id), coalesce(w.application_version, '')
FROM workflow_status w LEFT JOIN operation_outputs o
    ON o.workflow_uuid = w.workflow_uuid AND o.function_name LIKE 'round %'
WHERE w.status NOT IN ('SUCCESS', 'ERROR', 'CANCELLED')
GROUP BY w.workflow_uuid ORDER BY w.workflow_uuid
"""


class OpenRun(NamedTuple):
    """A run that had not ended: rounds that are journalled, and the version of the journal it began with."""

    run: str
    rounds: int
    version: str


def open_runs(database: sqlite3.Connection) -> list[OpenRun]:
    """Runs that go on at the next start; none in a journal that is empty. Raises `sqlite3.Error`.

    One that was resumed has another name there, see `reuna.adapters.journal_dbos.LIFE`.
    """
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not {"workflow_status", "operation_outputs"} <= tables:
        return []
    return [OpenRun(run.partition("~")[0], *rest) for run, *rest in database.execute(_OPEN)]


def schema_version(database: sqlite3.Connection) -> int:
    """How far the journal's tables were brought, 0 when they were not made yet. Raises `sqlite3.Error`."""
    found = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'dbos_migrations'").fetchone()
    if not found:
        return 0
    return int(database.execute("SELECT coalesce(max(version), 0) FROM dbos_migrations").fetchone()[0])
