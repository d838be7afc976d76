"""Take a cloud's tables from the files of its folder to the server that its settings name, all or none."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from reuna.adapters.database import Tables
from reuna.adapters.database_copy import Moment
from reuna.adapters.files import sync_folder
from reuna.adapters.journal_state import in_file
from reuna.adapters.postgresql import PostgresqlDatabase
from reuna.cloud.files import EVENTS, HEADS, PEOPLE
from reuna.core.errors import NotUsable, SettingsError
from reuna.exchange.parent import REGISTER
from reuna.exchange.storage import MOVED
from reuna.fleet.marks import JOURNAL

FILES = (PEOPLE, EVENTS, HEADS, REGISTER)  #: the register last: while it is there, nothing was moved
ROWS = 1000  #: sent at a time


def move(settings: Mapping[str, Any]) -> dict[str, int]:
    """Copy every table in one transaction, then rename the files; how many rows each table had.

    Raises `NotUsable` while the cloud or a run goes on, or when the server has tables with rows;
    `SettingsError` when the settings name no server, and what `PostgresqlDatabase` raises.
    """
    folder = Path(settings["folder"])
    if not settings["database"]:
        raise SettingsError("database is empty", "Name the server in the settings, then move.")
    if not (folder / REGISTER).exists():
        raise NotUsable(f"there are no tables in {folder}", "Nothing has to be moved: start the cloud.")
    with _stopped(folder / JOURNAL), closing(PostgresqlDatabase(settings["database"], "move")) as server:
        with server.writing() as tables:
            done = {}
            for name in FILES:
                if (folder / name).exists():
                    done.update(_copied(folder / name, tables, server.where))
        _rename(folder)
    return done


@contextmanager
def _stopped(journal: Path) -> Iterator[None]:
    """Nobody starts the cloud meanwhile. Raises `NotUsable`."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(journal.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise NotUsable("the cloud is running", "Stop it, then move.") from error
        _check_runs(journal)
        yield
    finally:
        os.close(fd)


def _check_runs(journal: Path) -> None:
    """A run is finished by the journal that began it. Raises `NotUsable`."""
    if not journal.exists():
        return
    with closing(Moment.of(journal)) as moment:
        runs = ", ".join(each.run for each in in_file(moment.database).runs)
    if runs:
        raise NotUsable(f"not finished: {runs}", "Let them end or `reuna stop` them before you move.")


def _copied(file: Path, tables: Tables, where: str) -> dict[str, int]:
    """Rows of each table in a file. Raises `NotUsable` when one is not empty on the server."""
    done = {}
    with closing(Moment.of(file)) as moment:
        for name in _in_order(moment):
            if tables.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone():  # noqa: S608  # a table of ours
                raise NotUsable(
                    f"{where} has rows in {name} already", "Name an empty database: it is another cloud's."
                )
            done[name] = _copy(moment, name, tables)
    return done


def _in_order(moment: Moment) -> list[str]:
    """Accounts before what belongs to them."""
    found = moment.database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    names = [name for (name,) in found if not name.startswith("sqlite_")]
    return sorted(names, key=lambda name: (name != "people", name))


def _copy(moment: Moment, name: str, tables: Tables) -> int:
    found = moment.database.execute(f"SELECT * FROM {name}")  # noqa: S608  # a table of ours
    columns = [column[0] for column in found.description]
    marks = ", ".join("?" * len(columns))
    put = f"INSERT INTO {name} ({', '.join(columns)}) OVERRIDING SYSTEM VALUE VALUES ({marks})"  # noqa: S608
    count = 0
    while rows := found.fetchmany(ROWS):
        tables.executemany(put, rows)
        count += len(rows)
    if "number" in columns:
        last = f"(SELECT coalesce(max(number), 0) + 1 FROM {name})"  # noqa: S608  # a table of ours
        tables.execute(f"SELECT setval(pg_get_serial_sequence('{name}', 'number'), {last}, false)")
    return count


def _rename(folder: Path) -> None:
    for name in (JOURNAL, *FILES):
        for path in (folder / name, folder / f"{name}-wal", folder / f"{name}-shm"):
            if path.exists():
                path.rename(path.with_name(path.name.replace(Path(name).name, f"{Path(name).name}{MOVED}")))
    sync_folder(folder)
