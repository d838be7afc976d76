"""Where a place keeps its tables: files of its own, or for the cloud the server that its settings name.

Never both, and never half of it: a folder whose tables are not where the settings say is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuna.adapters.files import FileBlobs
from reuna.core.errors import NotUsable

if TYPE_CHECKING:
    from reuna.adapters.object_store import StoredBlobs
    from reuna.adapters.postgresql import PostgresqlDatabase

FIRST = "register.sqlite"  #: the file that every place has which keeps its tables in files
MOVED = ".moved"  #: added to the names of files whose tables are on a server now
DUMP = "database.dump"  #: in the state folder: what `reuna restore` found in a backup, to be loaded by hand
LOAD = "pg_restore --clean --if-exists --no-owner --dbname DATABASE"


def server_of(settings: Mapping[str, Any], name: str) -> PostgresqlDatabase | None:
    """The server's database for the store ``name``, open; None where files are kept.

    Raises `NotUsable`, `SettingsError`, `ExtraMissing`, `DatabaseTooNew`, `Unreachable`, `PermissionDenied`.
    """
    check_whole(settings)
    url = settings.get("database", "")
    if not url:
        return None
    from reuna.adapters.postgresql import PostgresqlDatabase

    return PostgresqlDatabase(url, name)


def tables_of(settings: Mapping[str, Any], file: str) -> Path | PostgresqlDatabase:
    """Where the store that would be ``file`` in the state folder has its tables. Raises as `server_of`."""
    return server_of(settings, Path(file).stem) or Path(settings["folder"]) / file


def blobs_of(settings: Mapping[str, Any], folder: Path) -> FileBlobs | StoredBlobs:
    """A cloud's blobs: in ``folder``, which is the cache of a bucket where the settings name one.

    Raises `SettingsError`, `ExtraMissing`, `Unreachable`, `PermissionDenied` when it cannot be written.
    """
    if not settings["store"]:
        return FileBlobs(folder)
    from reuna.adapters.object_store import StoredBlobs, open_bucket

    return StoredBlobs(folder, open_bucket(settings["store"]))


def check_whole(settings: Mapping[str, Any]) -> None:
    """Raises `NotUsable` for a folder whose tables are not where the settings say."""
    folder, served = Path(settings["folder"]), bool(settings.get("database", ""))
    if (folder / DUMP).exists():
        raise NotUsable(
            f"{folder / DUMP} was restored and is not loaded yet",
            f"{LOAD} {folder / DUMP}; then move that file away.",
        )
    if served and (folder / FIRST).exists():
        raise NotUsable(
            f"database names a server, and the tables are in {folder}",
            "Stop the cloud and run `reuna storage move SETTINGS`, or take `database` out.",
        )
    if not served and (folder / f"{FIRST}{MOVED}").exists() and not (folder / FIRST).exists():
        raise NotUsable(
            f"the tables of {folder} were moved to a server, and database is empty",
            "Name the server as before; see docs/how-to/storage.md.",
        )
