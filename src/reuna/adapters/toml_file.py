"""Settings from TOML files, with file, line and column in every complaint."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from reuna.core.errors import SettingsError
from reuna.core.settings import Source
from reuna.core.toml_places import places

_AT = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")
#: what the reader says -> what most often is behind it
HINTS = {
    "Invalid value": "text stands in quotes, and it is true and false, in small letters",
    "Cannot overwrite a value": "the key is there twice",
    "Cannot declare": "the section is there twice",
    "Expected '=' after a key": "a line is `key = value`, a section `[name]`",
    "Illegal character '\\n'": "a quote is not closed",
    "Expected newline or end of document after a statement": "a list stands in [brackets], text in quotes",
}


def read_toml(path: Path) -> Source:
    """The file's values, each with its place. Raises `SettingsError` when it is missing or no TOML."""
    try:
        return parse_toml(path.name, path.read_bytes(), str(path))
    except FileNotFoundError:
        raise SettingsError(f"there is no file {path}", f"Create {path.name} or name another file.") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error


def parse_toml(name: str, data: bytes, where: str = "") -> Source:
    """The values in a file's bytes, each with its place; ``where`` the file lies, for the complaint.

    Raises `SettingsError`.
    """
    text = ""
    try:
        text = data.decode("utf-8")
        values, found = tomllib.loads(text), places(text)
    except tomllib.TOMLDecodeError as error:
        said = _syntax(where or name, text, str(error))
        raise SettingsError(said, "Correct the line named above.") from error
    except (ValueError, RecursionError) as error:  # also a number of a million digits
        raise SettingsError(f"{where or name} is not valid TOML: {error}") from error
    return Source(name, values, {key: f"{name}:{line}:{column}" for key, (line, column) in found.items()})


def _syntax(where: str, text: str, said: str) -> str:
    """A mistake of the writing, at its place; what follows it in the file is not looked at."""
    lines = text.split("\n")
    match = _AT.search(said)
    line, column = len(lines), len(lines[-1]) + 1
    if match and match["line"]:
        line, column = int(match["line"]), int(match["column"])
    what = _AT.sub("", said)
    hint = next((hint for start, hint in HINTS.items() if what.startswith(start)), "")
    return f"{where}:{line}:{column}: is not valid TOML: {what}{'; ' if hint else ''}{hint}"
