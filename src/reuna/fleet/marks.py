"""How far a place has come in what never goes back, read from its folders; nothing is changed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from reuna.adapters.database_copy import open_to_read
from reuna.adapters.journal_state import in_file, on_server
from reuna.adapters.ledger_file import segments
from reuna.adapters.policy_store import PolicyStore
from reuna.adapters.trust_store import TrustStore
from reuna.adapters.tuf_repository import LISTED, TufRepository
from reuna.cloud.files import HEADS
from reuna.core.backup import Marks
from reuna.core.errors import ReunaError, StorageError
from reuna.core.foreign import UNREADABLE
from reuna.trust import ledger
from reuna.trust.ledger_verify import Fault, follow

ROLES = ("root", *LISTED, "snapshot", "timestamp")
JOURNAL = "journal/journal.sqlite"
_HEADS = "SELECT node, max(seq) FROM heads GROUP BY node ORDER BY node"


def marks_of(state: Path, trust: Path | None = None, database: str = "") -> Marks:
    """Of the place with this state folder; ``trust`` at a cloud, ``database`` where it has a server.

    What cannot be read in the folder counts as nothing. Raises what a server raises.
    """
    name, records = _ledger(state / "ledger")
    return Marks(
        ledger=name,
        records=records,
        policy_serial=_serial(state / "policy"),
        metadata=_published(trust) if trust else _accepted(state / "trust"),
        **(_on_server(database) if database else _in_files(state)),
    )


def _in_files(state: Path) -> dict[str, dict[str, int]]:
    return {"runs": _runs(state / JOURNAL), "heads": _heads(state / HEADS)}


def _on_server(url: str) -> dict[str, dict[str, int]]:
    from reuna.adapters.postgresql import PostgresqlDatabase

    with closing(PostgresqlDatabase(url, "marks", looks=True)) as server:
        if not server.versions().found:
            return {}
        runs = {each.run: each.rounds for each in on_server(server.rows).runs}
        return {"runs": runs, "heads": dict(server.rows(_HEADS))}


def _ledger(folder: Path) -> tuple[str, int]:
    """Its own name, and how many records its files hold by their names and the last one's lengths."""
    try:
        files = segments(folder)
        if not files:
            return "", 0
        begun = follow(None, ledger.split(files[0].read_bytes()).records[0], frozenset())
        last = ledger.split(files[-1].read_bytes())
    except (OSError, IndexError):
        return "", 0
    known = "" if isinstance(begun, Fault) else begun.state.owner.ledger
    return known, int(files[-1].stem) + len(last.records)


def _serial(folder: Path) -> int:
    if not (folder / "policy").is_file():
        return 0
    try:
        floor = PolicyStore(folder / "policy.toml", folder).floor()
    except ReunaError:
        return 0
    return floor.serial if floor else 0


def _accepted(folder: Path) -> dict[str, int]:
    if not (folder / "state").is_file():
        return {}
    try:
        state = TrustStore(folder).state()
    except ReunaError:
        return {}
    if state is None:
        return {}
    return {"root": state.root.version, **{role: file.version for role, file in state.files.items()}}


def _published(trust: Path) -> dict[str, int]:
    if not (trust / "public").is_dir():
        return {}
    try:
        repository = TufRepository(trust / "public")
        return {role: repository.version(role) for role in ROLES}
    except (ReunaError, OSError):
        return {}


def _runs(file: Path) -> dict[str, int]:
    if not file.is_file():
        return {}
    try:
        with closing(open_to_read(file)) as database:
            return {each.run: each.rounds for each in in_file(database).runs}
    except (sqlite3.Error, StorageError, *UNREADABLE):
        return {}


def _heads(file: Path) -> dict[str, int]:
    if not file.is_file():
        return {}
    try:
        with closing(open_to_read(file)) as database:
            return dict(database.execute(_HEADS).fetchall())
    except (sqlite3.Error, StorageError, *UNREADABLE):
        return {}
