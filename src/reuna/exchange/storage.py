"""Where a place keeps its tables: files of its own, or for the cloud the server that its settings name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reuna.adapters.postgresql import PostgresqlDatabase


def server_of(settings: Mapping[str, Any], name: str) -> PostgresqlDatabase | None:
    """The server's database for the store ``name``, open; None where files are kept.

    Raises `SettingsError`, `ExtraMissing`, `DatabaseTooNew`, `Unreachable`, `PermissionDenied`.
    """
    url = settings.get("database", "")
    if not url:
        return None
    from reuna.adapters.postgresql import PostgresqlDatabase

    return PostgresqlDatabase(url, name)


def tables_of(settings: Mapping[str, Any], file: str) -> Path | PostgresqlDatabase:
    """Where the store that would be ``file`` in the state folder has its tables. Raises as `server_of`."""
    return server_of(settings, Path(file).stem) or Path(settings["folder"]) / file
