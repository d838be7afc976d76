"""Settings from TOML files, with the file's name in every complaint."""

from __future__ import annotations

import tomllib
from pathlib import Path

from reuna.core.errors import SettingsError
from reuna.core.settings import Source


def read_toml(path: Path) -> Source:
    """The file's values. Raises `SettingsError` when it is missing or no TOML."""
    try:
        return Source(path.name, tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise SettingsError(f"there is no file {path}", f"Create {path.name} or name another file.") from None
    except (ValueError, RecursionError) as error:  # also a number of a million digits
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
