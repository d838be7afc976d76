"""Whether this version can go on with what an installation has: schemas, formats, versions of nodes.

What this version makes anew is the reference: a store that it opens for the first time, in a folder of
its own. So there is no second list of tables that could differ from the first.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.database_copy import open_to_read
from reuna.adapters.events import EventLog
from reuna.adapters.files import database_error
from reuna.adapters.head_store import HeadStore
from reuna.adapters.journal_state import JournalState, in_file, on_server
from reuna.adapters.ledger_file import segments
from reuna.adapters.people import PeopleStore
from reuna.adapters.policy_store import PolicyStore
from reuna.adapters.register import Register
from reuna.adapters.spool import DiskSpool
from reuna.adapters.trust_store import TrustStore
from reuna.cloud.files import HEADS, PEOPLE
from reuna.core.errors import DatabaseTooNew, ReunaError, StorageError
from reuna.fleet.inventory import Place
from reuna.fleet.marks import JOURNAL
from reuna.trust import ledger
from reuna.trust.policy import FORMAT
from reuna.wire import OLDEST, VERSION

Tables = Mapping[str, tuple[str, ...]]  #: table -> its columns


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at: what it has, what this version knows, and whether it can go on."""

    what: str
    found: str
    known: str
    ok: bool
    why: str = ""


def _spool(path: Path) -> DiskSpool:
    return DiskSpool(path.parent)


#: File in the state folder -> what opens a new one.
STORES: Mapping[str, Callable[[Path], Any]] = {
    "register.sqlite": Register,
    PEOPLE: PeopleStore,
    HEADS: HeadStore,
    "events.sqlite": EventLog,
    "spool/spool.db": _spool,
    "outbox/spool.db": _spool,
}


def check(place: Place) -> list[Finding]:
    """Everything that is there; what is not there yet is made at the next start. Changes nothing."""
    state = place.state
    if place.values.get("database"):
        return server_findings(place)
    found = [*_databases(state), *_journal(state / JOURNAL), *_ledger(state / "ledger")]
    return [*found, *_policy(state / "policy"), *_trusted(state / "trust"), *_nodes(place)]


# --- databases -------------------------------------------------------------------------------------


def _databases(state: Path) -> Iterator[Finding]:
    there = [name for name in STORES if (state / name).is_file()]
    with tempfile.TemporaryDirectory() as fresh:
        for name in there:
            made = Path(fresh) / name
            STORES[name](made).close()
            yield _compared(name, _tables(state / name), _tables(made))


def _tables(path: Path) -> Tables | StorageError:
    """Tables and columns of a database; the error when it cannot be read."""
    try:
        with closing(open_to_read(path)) as database:
            names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            mine = [name for (name,) in names if not name.startswith("sqlite_")]
            return {
                name: tuple(row[1] for row in database.execute(f'PRAGMA table_info("{name}")'))
                for name in mine
            }
    except sqlite3.Error as error:
        return database_error(error, path)
    except StorageError as error:
        return error


def _compared(name: str, found: Tables | StorageError, known: Tables | StorageError) -> Finding:
    what = f"schema of {name}"
    if isinstance(found, StorageError) or isinstance(known, StorageError):
        return Finding(what, "cannot be read", "", ok=False, why=str(found))
    strange = sorted(set(found) - set(known))
    lacking = sorted(set(known) - set(found))
    other = sorted(table for table in found if table in known and found[table] != known[table])
    why = ""
    if strange:
        why = f"this version knows no table {', '.join(strange)}: a newer one wrote it"
    elif other:
        why = f"the table {', '.join(other)} has other columns"
    elif lacking:
        return Finding(
            what,
            _words(found),
            _words(known),
            ok=True,
            why=f"{', '.join(lacking)} is added at the next start",
        )
    return Finding(what, _words(found), _words(known), ok=not why, why=why)


def _words(tables: Tables) -> str:
    return f"{len(tables)} tables, {sum(len(columns) for columns in tables.values())} columns"


def _journal(file: Path) -> Iterator[Finding]:
    if not file.is_file():
        return
    try:
        with closing(open_to_read(file)) as database:
            state = in_file(database)
    except (sqlite3.Error, StorageError) as error:
        yield Finding("schema of the journal", "cannot be read", "", ok=False, why=str(error))
        return
    yield from _runs(state, served=False)


def _runs(state: JournalState, served: bool) -> Iterator[Finding]:
    from reuna.adapters.journal_dbos import VERSION as RUNS
    from reuna.adapters.journal_dbos import newest_schema

    newest = newest_schema(served)
    yield Finding("schema of the journal", str(state.schema), f"up to {newest}", state.schema <= newest)
    for each in state.runs:
        ok = each.version == RUNS
        why = "" if ok else "it can be finished only by the version that began it"
        yield Finding(f"journal of {each.run}", each.version, RUNS, ok, why)


# --- formats ---------------------------------------------------------------------------------------


def _ledger(folder: Path) -> Iterator[Finding]:
    """The first and the last record of each file: a format is raised from some record on."""
    try:
        formats = {number for path in segments(folder) for number in _formats(path.read_bytes())}
    except OSError as error:
        yield Finding("format of the ledger", "cannot be read", "", ok=False, why=str(error))
        return
    if formats:
        found = ", ".join(str(number) for number in sorted(formats))
        yield Finding("format of the ledger", found, str(ledger.FORMAT), formats == {ledger.FORMAT})


def _formats(data: bytes) -> set[int]:
    records = ledger.split(data).records
    found = set()
    for raw in (records[:1] + records[-1:]) if records else ():
        fields = msgspec.msgpack.decode(raw[ledger.HASH :])
        found.add(int(fields[0]) if isinstance(fields, list) and fields and type(fields[0]) is int else 0)
    return found


def _policy(folder: Path) -> Iterator[Finding]:
    if not (folder / "policy").is_file():
        return
    try:
        floor = PolicyStore(folder / "policy.toml", folder).floor()
    except ReunaError as error:
        yield Finding("policy in force", "cannot be read", "", ok=False, why=str(error))
        return
    yield Finding("policy in force", f"serial {floor.serial if floor else 0}", FORMAT, ok=True)


def _trusted(folder: Path) -> Iterator[Finding]:
    if not (folder / "state").is_file():
        return
    try:
        store = TrustStore(folder)
        state, _ = store.state(), store.floor()
    except ReunaError as error:
        yield Finding("metadata trusted", "cannot be read", "", ok=False, why=str(error))
        return
    yield Finding("metadata trusted", f"root {state.root.version if state else 0}", "TUF 1.0", ok=True)


# --- nodes -----------------------------------------------------------------------------------------


def _nodes(place: Place) -> Iterator[Finding]:
    """Children of this place, each by the version with which it was last heard."""
    file = place.state / "register.sqlite"
    if not file.is_file():
        return
    try:
        with closing(open_to_read(file)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
            rows = database.execute(_SPOKEN).fetchall() if {"nodes", "spoken"} <= tables else []
    except (sqlite3.Error, StorageError):
        return  # said above, under its schema
    yield from _spoken(rows)


def _spoken(rows: Iterable[Any]) -> Iterator[Finding]:
    for name, version, protocol in rows:
        ok, known = OLDEST <= protocol <= VERSION, f"{OLDEST} to {VERSION}"
        why = "" if ok else "bring it to this version, or this place to its"
        yield Finding(f"wire version of {name}", f"{protocol} (Reuna {version})", known, ok, why)


# --- on a server -----------------------------------------------------------------------------------


def server_findings(place: Place) -> list[Finding]:
    """Of a cloud whose tables are on a server. Raises `Unreachable`, `PermissionDenied`, `SettingsError`."""
    from reuna.adapters.postgresql import PostgresqlDatabase

    with closing(PostgresqlDatabase(place.values["database"], "upgrade", looks=True)) as server:
        try:
            found, newest, steps = server.versions()
        except DatabaseTooNew as error:
            return [Finding(f"schema in {server.where}", error.found, error.known, ok=False, why=str(error))]
        why = f"at the next start: {'; '.join(steps)}" if steps else ""
        schema = Finding(f"schema in {server.where}", found or "none", newest, ok=True, why=why)
        spoken = server.rows(_SPOKEN) if found else ()
        return [schema, *_runs(on_server(server.rows), served=True), *_spoken(spoken)]


_SPOKEN = """
SELECT s.name, s.version, s.protocol FROM spoken s LEFT JOIN nodes n ON n.name = s.name
WHERE n.revoked IS NULL ORDER BY s.name
"""
