"""Settings from TOML files, with the file's name in every complaint."""

from __future__ import annotations

import tomllib
from pathlib import Path

from reuna.core.errors import SettingsError
from reuna.core.settings import Source


def read_toml(path: Path) -> Source:
    """The file's values. Raises `SettingsError` when it is missing or no TOML."""
    try:
        return parse_toml(path.name, path.read_bytes(), str(path))
    except FileNotFoundError:
        raise SettingsError(f"there is no file {path}", f"Create {path.name} or name another file.") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error


def parse_toml(name: str, data: bytes, where: str = "") -> Source:
    """The values in a file's bytes; ``where`` it lies, for the complaint. Raises `SettingsError`."""
    try:
        return Source(name, tomllib.loads(data.decode("utf-8")))
    except (ValueError, RecursionError) as error:  # also a number of a million digits
        raise SettingsError(f"{where or name} is not valid TOML: {error}") from error
