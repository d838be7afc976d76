"""What an officer looks at before code may run at a site: what waits, and how it differs from what ran."""

from __future__ import annotations

import difflib
import io
import zipfile
from pathlib import Path

import msgspec

from reuna.core.errors import SettingsError
from reuna.wire import digest_bytes

MAX_TEXT = 1 << 20  #: characters of a file that are compared


class Review(msgspec.Struct, frozen=True):
    """A bundle that waits, the one that ran before ('' when none did), and the difference line by line."""

    digest: str
    before: str
    files: list[str]
    changes: list[str]


def review(state: Path) -> Review:
    """What waits at an edge, by its state folder, or the one with that in it as ``state``.

    Raises `SettingsError` when nothing does.
    """
    if not (state / "work").is_dir() and (state / "state" / "work").is_dir():
        state /= "state"
    waiting, ran = state / "work" / "waiting.zip", state / "work" / "ran.zip"
    if not waiting.is_file():
        raise SettingsError(f"no code waits at {state}", "Name the folder of an edge, as its settings do.")
    new, old = _texts(waiting.read_bytes()), _texts(ran.read_bytes()) if ran.is_file() else {}
    changes: list[str] = []
    for name in sorted(new.keys() | old.keys()):
        lines = difflib.unified_diff(
            old.get(name, "").splitlines(),
            new.get(name, "").splitlines(),
            f"before/{name}",
            name,
            lineterm="",
        )
        changes += lines
    before = digest_bytes(ran.read_bytes()) if ran.is_file() else ""
    return Review(digest_bytes(waiting.read_bytes()), before, sorted(new), changes)


def _texts(bundle: bytes) -> dict[str, str]:
    """The files of a bundle as text; what is no text shows its size."""
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as packed:
            for info in packed.infolist():
                found[info.filename] = _text(packed, info)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
        raise SettingsError(f"the bundle that waits cannot be read: {error}", "Do not approve it.") from error
    return found


def _text(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    with packed.open(info) as file:
        data = file.read(MAX_TEXT + 1)
    try:
        return data.decode("utf-8") if len(data) <= MAX_TEXT else f"({info.file_size} bytes)"
    except UnicodeDecodeError:
        return f"({info.file_size} bytes)"
