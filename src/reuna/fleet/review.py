"""What an officer looks at before code may run at a site: what waits, and how it differs from what ran."""

from __future__ import annotations

import difflib
import io
import zipfile
import zlib
from pathlib import Path

import msgspec

from reuna.adapters.project import MAX_FILE, source_text
from reuna.core.errors import ProjectError, SettingsError
from reuna.wire import digest_bytes


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
    new, old = _files(waiting.read_bytes()), _files(ran.read_bytes()) if ran.is_file() else {}
    changes: list[str] = []
    for name in sorted(new.keys() | old.keys()):
        if old.get(name) != new.get(name):
            changes += _difference(name, old.get(name), new.get(name))
    before = digest_bytes(ran.read_bytes()) if ran.is_file() else ""
    return Review(digest_bytes(waiting.read_bytes()), before, sorted(new), changes)


def _files(bundle: bytes) -> dict[str, bytes]:
    """The files of a bundle, each up to one byte more than it may have."""
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as packed:
            return {info.filename: _content(packed, info) for info in packed.infolist()}
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, OSError, EOFError) as error:
        raise SettingsError(f"the bundle that waits cannot be read: {error}", "Do not approve it.") from error


def _content(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with packed.open(info) as file:
        return file.read(MAX_FILE + 1)


def _difference(name: str, old: bytes | None, new: bytes | None) -> list[str]:
    """Line by line where both are text that everybody reads alike, else that it is another."""
    try:
        before, now = ([] if each is None else source_text(name, each).split("\n") for each in (old, new))
    except ProjectError as error:
        return [
            f"--- {_about('before', name, old)}",
            f"+++ {_about('now', name, new)}",
            f"!   {error.message}",
        ]
    return list(difflib.unified_diff(before, now, f"before/{name}", name, lineterm=""))


def _about(when: str, name: str, content: bytes | None) -> str:
    if content is None:
        return f"{when}: no {name}"
    return f"{when}: {name} changed, {len(content)} bytes, SHA-256 {digest_bytes(content)}"
