"""A server's database as the stores see it, and the lease by which one cloud has the journal."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from reuna.adapters.postgresql.errors import own_errors
from reuna.adapters.postgresql.versions import SCHEMA, Versions, bring_up, versions
from reuna.core.errors import ExtraMissing, JournalError, ReunaError, SettingsError

CONNECT_S = 5  #: seconds until a host that does not answer counts as away
WAIT_S = 10  #: seconds, for another process that writes
_SECRETS = {"password", "passfile", "sslpassword"}
_DEAD = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}
ELSEWHERE = "Take it out and give it by PGPASSFILE or PGPASSWORD; see docs/how-to/storage.md."


def read_url(text: str) -> URL:
    """The setting ``database``. Raises `SettingsError`, which never shows it."""
    try:
        url = make_url(text)
    except (SQLAlchemyError, ValueError):
        raise SettingsError("database is no URL", "Write it as postgresql://USER@HOST:5432/NAME.") from None
    if url.password is not None or _SECRETS & set(url.query):
        raise SettingsError("database holds a password", ELSEWHERE)
    if url.drivername not in {"postgresql", "postgresql+psycopg"} or not url.database:
        raise SettingsError(
            "database names no database of PostgreSQL", "Write it as postgresql://USER@HOST:5432/NAME."
        )
    return url.set(drivername="postgresql+psycopg")


def where(text: str) -> str:
    """A database as messages name it. Raises `SettingsError`."""
    return _where(read_url(text))


def _where(url: URL) -> str:
    host = url.host or url.query.get("host") or "the local socket"
    port = f":{url.port}" if url.port else ""
    return f"PostgreSQL {host}{port}/{url.database}"


def key(name: str) -> int:
    """The number of an advisory lock, 64 bits."""
    return int.from_bytes(hashlib.sha256(f"reuna {name}".encode()).digest()[:8], "big", signed=True)


def make_engine(url: URL, name: str) -> Engine:
    """Connections that look first whether the server is still there. Raises `ExtraMissing`."""
    try:
        engine = create_engine(
            url,
            pool_pre_ping=True,
            connect_args={"connect_timeout": CONNECT_S, "application_name": name, **_DEAD},
            hide_parameters=True,
        )
    except ImportError as error:
        raise ExtraMissing(
            "database is a PostgreSQL, whose driver is not installed", "pip install 'reuna[postgresql]'"
        ) from error

    @event.listens_for(engine, "connect")
    def settle(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET search_path = {SCHEMA}")
            cursor.execute(f"SET lock_timeout = '{WAIT_S}s'")
            cursor.execute("SET synchronous_commit = on")
        connection.commit()

    return engine


class PostgresqlDatabase:
    """The `Database` of one store on a server. ``name``: of the store, whose writers wait for each other.

    Opening it brings the tables to this version, unless it ``looks`` only. Raises `SettingsError`,
    `ExtraMissing`, `DatabaseTooNew`.
    """

    def __init__(self, url: str, name: str, looks: bool = False) -> None:
        self._url = read_url(url)
        self.where = _where(self._url)
        self._key = key(name)
        self._engine = make_engine(self._url, f"reuna {name}")
        if looks:
            return
        try:
            with own_errors(self.where), self._engine.connect() as connection:
                bring_up(connection, self.where, key("schema"))
        except ReunaError:
            self._engine.dispose()
            raise

    def versions(self) -> Versions:
        """Which version the tables have. Raises `DatabaseTooNew`."""
        with own_errors(self.where), self._engine.connect() as connection:
            return versions(connection, self.where)

    def rows(self, query: str, *values: Any) -> Sequence[Any]:
        """See `Database.rows`."""
        with own_errors(self.where), self._engine.connect() as connection:
            return _Statements(connection).execute(query, values).fetchall()

    @contextmanager
    def writing(self) -> Iterator[_Statements]:
        """See `Database.writing`: a lock of the server that ends with the transaction."""
        with own_errors(self.where), self._engine.begin() as connection:
            tables = _Statements(connection)
            tables.execute("SELECT pg_advisory_xact_lock(?)", (self._key,))
            yield tables

    def durability(self) -> str:
        """See `Database.durability`."""
        names = ("fsync", "synchronous_commit", "full_page_writes")
        return " ".join(f"{name}={self.rows(f'SHOW {name}')[0][0]}" for name in names)

    def close(self) -> None:
        """See `Database.close`."""
        self._engine.dispose()

    # --- the journal's ---------------------------------------------------------------------------

    def engine(self) -> Engine:
        """Connections of the journal's own; whoever asks for them disposes of them."""
        return make_engine(self._url, "reuna journal")

    def lease(self) -> Lease:
        """The right to carry out the runs of this database."""
        return Lease(self._url)


class _Statements:
    """The `Tables` of a transaction. A statement's ``?`` become what psycopg wants."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Sequence[Any] = ()) -> CursorResult[Any]:
        return self._connection.exec_driver_sql(_marked(statement), tuple(values))

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            self._connection.exec_driver_sql(_marked(statement), [tuple(row) for row in rows])


def _marked(statement: str) -> str:
    """Our statements hold no text with a ``?`` in it.

    >>> _marked("SELECT 1 FROM runs WHERE name LIKE 'round %' AND at = ?")
    "SELECT 1 FROM runs WHERE name LIKE 'round %%' AND at = %s"
    """
    return statement.replace("%", "%%").replace("?", "%s")


class Lease:
    """Held by one process as long as its connection lives; the server ends it with that. Blocking."""

    def __init__(self, url: URL) -> None:
        self._where = _where(url)
        self._engine = make_engine(url, "reuna lease")
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    def take(self) -> None:
        """Raises `JournalError` when another process has it, `Unreachable`."""
        with self._lock, own_errors(self._where):
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            found = connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({key('journal')})").scalar()
            if not found:
                connection.close()
                raise JournalError(
                    f"another process uses the journal in {self._where}",
                    "Stop the other cloud process first.",
                )
            self._connection = connection

    def check(self) -> None:
        """Look that it is still held, and take it again after the server was away.

        Raises `JournalError` when another process took it meanwhile, `Unreachable` while the server is away.
        """
        with self._lock:
            held = self._connection
            if held is not None:
                try:
                    with own_errors(self._where):
                        held.exec_driver_sql("SELECT 1")
                except ReunaError:
                    self._connection = None
                    held.invalidate()
                    held.close()
                    raise
                return
        self.take()

    def give(self) -> None:
        """Let it go."""
        with self._lock:
            held, self._connection = self._connection, None
            if held is not None:
                held.invalidate()  # not kept for another: the lock is the session's
                held.close()
            self._engine.dispose()
