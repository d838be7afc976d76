"""The schema of our tables on a server: which version it has, and how it comes to this one.

Each step is a file in ``migrations/versions`` and stays as it is once it was published. All steps of an
upgrade are one transaction under a lock: of two processes that start at once, one waits.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection

from reuna.core.errors import DatabaseTooNew, ExtraMissing

SCHEMA = "reuna"
VERSIONS = "schema_version"  #: the table, in ours, that says what was done
_FOLDER = Path(__file__).parent / "migrations"


class Versions(NamedTuple):
    """What a database has ('' before the first start), what it is brought to, the steps between."""

    found: str
    newest: str
    steps: tuple[str, ...]


def versions(connection: Connection, where: str) -> Versions:
    """Look; change nothing. Raises `DatabaseTooNew` for a version that this Reuna does not know."""
    found = _found(connection)
    known = _script()
    names = [step.revision for step in known]
    if found and found not in names:
        raise DatabaseTooNew(where, found[:40], names[-1])
    left = known[names.index(found) + 1 :] if found else known
    return Versions(found, names[-1], tuple(f"{step.revision} {step.what}" for step in left))


def bring_up(connection: Connection, where: str, lock: int) -> None:
    """Do the steps that are left, all or none; only looks when there are none. Raises `DatabaseTooNew`."""
    left = versions(connection, where).steps
    connection.rollback()
    if not left:
        return
    from alembic import command
    from alembic.config import Config

    with connection.begin():
        connection.exec_driver_sql("SET LOCAL lock_timeout = '60s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({lock})")
        connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        config = Config()
        config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


class _Step(NamedTuple):
    revision: str
    what: str


def _script() -> list[_Step]:
    """All steps, the first one first. Raises `ExtraMissing`."""
    try:
        from alembic.script import ScriptDirectory
    except ImportError as error:
        raise ExtraMissing(
            "database is a PostgreSQL, and Alembic, which keeps its schema, is not installed",
            "pip install 'reuna[postgresql]'",
        ) from error
    walked = ScriptDirectory(str(_FOLDER)).walk_revisions()
    return [_Step(each.revision, each.doc or "") for each in walked][::-1]


def _found(connection: Connection) -> str:
    named = f"{SCHEMA}.{VERSIONS}"
    if connection.exec_driver_sql(f"SELECT to_regclass('{named}')").scalar() is None:
        return ""
    return str(connection.exec_driver_sql(f"SELECT max(version_num) FROM {named}").scalar() or "")  # noqa: S608  # our own words
