"""What PostgreSQL, psycopg and SQLAlchemy say, as errors of ours; never with a statement or its values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from reuna.core.errors import (
    BadMessage,
    Corrupted,
    DiskFull,
    NotUsable,
    PermissionDenied,
    ReunaError,
    SettingsError,
    Unreachable,
)

BY_FILE = "Give the password by PGPASSFILE or PGPASSWORD, or correct it; never in the URL."
AWAY = "See that the server runs and can be reached from here; a running cloud tries again by itself."
RIGHTS = "Let its owner run: GRANT CREATE ON DATABASE … TO …; see docs/how-to/storage.md."
#: What the server says while it refuses a connection, which then has no code.
_REFUSALS: tuple[tuple[str, type[ReunaError], str], ...] = (
    ("password authentication failed", PermissionDenied, BY_FILE),
    ("no password supplied", PermissionDenied, BY_FILE),
    ("no pg_hba.conf entry", PermissionDenied, "Let the server take this user from this machine."),
    ("role ", PermissionDenied, "Create the user, or name another in the URL."),
    ("permission denied", NotUsable, RIGHTS),
    ("database ", SettingsError, "Create it: createdb --owner USER NAME."),
)
#: By the first characters of an SQLSTATE (appendix A of PostgreSQL's manual), the longest first.
_STATES: tuple[tuple[str, type[ReunaError], str], ...] = (
    ("53100", DiskFull, "Free space on the server's disk."),
    ("53", Unreachable, AWAY),
    ("57P", Unreachable, AWAY),
    ("57014", Unreachable, AWAY),
    ("08", Unreachable, AWAY),
    ("25006", NotUsable, "The server takes no writes: name the primary."),
    ("28", PermissionDenied, BY_FILE),
    ("3D000", SettingsError, "Create it: createdb --owner USER NAME."),
    ("42501", NotUsable, RIGHTS),
    ("55P03", NotUsable, "Another process writes for long: try again."),
    ("XX001", Corrupted, "Restore the server's backup."),
    ("XX002", Corrupted, "Run REINDEX on the server, or restore its backup."),
    ("23", Corrupted, "Restore the server's backup."),
    ("22", BadMessage, "Nothing was written."),
)


@contextmanager
def own_errors(where: str) -> Iterator[None]:
    """Errors of the libraries as ours, about the server ``where``."""
    try:
        yield
    except SQLAlchemyError as error:
        raise own_error(error, where) from None  # its text holds the statement and its values


def own_error(error: SQLAlchemyError, where: str) -> ReunaError:
    """Whose fault it is, by the server's code, else by its words.

    >>> from sqlalchemy.exc import TimeoutError
    >>> type(own_error(TimeoutError("QueuePool limit reached"), "db/reuna")).__name__
    'Unreachable'
    """
    original = error.orig if isinstance(error, DBAPIError) else None
    said = _said(original) if original is not None else type(error).__name__
    state = getattr(original, "sqlstate", None) or ""
    for known, kind, step in _STATES:
        if state.startswith(known):
            return kind(f"{where}: {said}", step)
    if not state:
        if type(original).__name__ == "DataError":  # psycopg's own, of a text with a zero byte
            return BadMessage(f"{where}: {said}", "Nothing was written.")
        for words, kind, step in _REFUSALS:
            if f"FATAL:  {words}" in str(original):
                return kind(f"{where}: {said}", step)
        return Unreachable(f"{where}: {said}", AWAY)
    return NotUsable(f"{where}: {said} ({state})")


def _said(original: BaseException) -> str:
    """The first line of what was said, or the primary message: details may hold values."""
    diagnosis = getattr(original, "diag", None)
    primary = getattr(diagnosis, "message_primary", None)
    if primary:
        return str(primary)
    lines = str(original).strip().splitlines() or [type(original).__name__]
    return next((line.partition("FATAL:  ")[2] for line in lines if "FATAL:  " in line), lines[0])
