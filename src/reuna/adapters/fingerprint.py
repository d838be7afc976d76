"""A node's data folder as it is told of: a keyed digest of its files (`reuna.core.fingerprint`).

The key is made at the node, in its state folder, and never leaves it.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from reuna.adapters.files import file_sha256, read_at_most, replace_file
from reuna.core.errors import StorageError
from reuna.core.fingerprint import KEY_SIZE, Window, digest_of, fingerprint

log = logging.getLogger("reuna.edge")
DATA_KEY = "data.key"  #: in a node's state folder, mode 0600


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
