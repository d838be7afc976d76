"""A node's data folder as it is told of: a keyed digest of its files (`reuna.core.fingerprint`).

The key is made at the node, in its state folder, and never leaves it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from reuna.adapters.files import file_sha256, read_at_most, replace_file
from reuna.core.errors import StorageError
from reuna.core.fingerprint import KEY_SIZE, Window, digest_of, fingerprint, setup

log = logging.getLogger("reuna.edge")
DATA_KEY = "data.key"  #: in a node's state folder, mode 0600
SETTLED_NS = 2_000_000_000  #: what changed so shortly before it was read may change again within one tick
#: Path, bytes, ns of the last change of content and of anything, inode of each file.
Marks = tuple[tuple[str, int, int, int, int], ...]
Columns = tuple[str, ...] | None


class DataFolder:
    """A node's data, read anew when they may have changed since they were read last.

    What tells is what the system notes of each file, among it the time of its last change of any kind, which
    no program can set. Of files that changed within `SETTLED_NS` before they were read nothing is kept.
    """

    def __init__(self, folder: Path, key_file: Path) -> None:
        self._folder = folder
        self._key_file = key_file
        self._read: tuple[Marks, Window] | None = None  #: without a setup

    def marks(self) -> Marks | None:
        """What changes when a file does, without reading any; None when one cannot be looked at."""
        try:
            found = (
                (path.relative_to(self._folder).as_posix(), path.stat()) for path in _files(self._folder)
            )
            return tuple(
                sorted((name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in found)
            )
        except OSError:
            return None

    def anew(self, columns: Columns) -> Window | None:
        """The data as they are now, every byte read; None when they cannot be, or change meanwhile."""
        self._read = None
        return self.since(self.marks(), columns)

    def since(self, marks: Marks | None, columns: Columns) -> Window | None:
        """The data that were there when those marks were taken; None when they are not the same any more.

        Whoever has a worker load them takes the marks before: then the window is of what it loaded.
        """
        if self._read is not None and self._read[0] == marks == self.marks():
            return self._with_setup(self._read[1], columns)
        began, self._read = time.time_ns(), None
        found = window_of(self._folder, self._key_file)
        if found is None:
            return None
        if marks is None or self.marks() != marks:
            log.warning("the data have no fingerprint: they change while they are read")
            return None
        if all(max(changed, noted) + SETTLED_NS < began for _, _, changed, noted, _ in marks):
            self._read = (marks, found)
        return self._with_setup(found, columns)

    def _with_setup(self, window: Window, columns: Columns) -> Window | None:
        try:
            told = setup(node_key(self._key_file), digest_of_setup(columns))
        except (OSError, StorageError) as error:
            log.warning("the data have no fingerprint: %s", error)
            return None
        return msgspec.structs.replace(window, setup=told)


def window_of(folder: Path, key_file: Path) -> Window | None:
    """What may be told of a node's data; None, and a line in the log, when a file cannot be read.

    Every plain file counts that is not hidden, as deep as it lies; links are followed to files, not to
    folders. Work does not depend on it, so nothing is raised.
    """
    try:
        key = node_key(key_file)
        files = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
        digests = {name: file_sha256(path) for name, path in files.items()}
        size = sum(path.stat().st_size for path in files.values())
    except (OSError, StorageError) as error:
        log.warning("the data have no fingerprint: %s", error)
        return None
    return Window(fingerprint(key, digest_of(digests)), len(files), size)


def digest_of_setup(columns: Columns) -> str:
    """SHA-256 of what the bits of an update come from beside code, settings and data; it stays at the node.

    ``columns`` of the data that code may read (None: all), Python, and every package that is installed.
    """
    told = [columns, platform.python_version(), platform.machine(), _installed()]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _installed() -> list[str]:
    """Every package that can be imported, as the folder is called that says its name and version.

    Read from folders alone: what reads the metadata takes 4 MiB more of an edge.
    """
    found = set[str]()
    for folder in filter(None, sys.path):
        with suppress(OSError):
            found.update(each for each in os.listdir(folder) if each.endswith((".dist-info", ".egg-info")))
    return sorted(found)


def node_key(file: Path) -> bytes:
    """The node's key, made when there is none or when it is damaged. Raises `StorageError`."""
    found = read_at_most(file, KEY_SIZE)
    if found is None or len(found) != KEY_SIZE:
        found = secrets.token_bytes(KEY_SIZE)
        replace_file(file, found)
    return found


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (
            path for name in names if not name.startswith(".") and (path := Path(root) / name).is_file()
        )


def _raise(error: OSError) -> None:
    raise error
