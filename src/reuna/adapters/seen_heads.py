"""Countersigned heads of ledgers, a file for each node: kept by the cloud, passed on by fogs.

FOLDER/NODE.seen    the newest countersignature
FOLDER/NODE.log     cloud only: all of them, one a line in hexadecimal, for `reuna ledger verify --heads`
FOLDER/NODE.key     cloud only: the key with which the node signed its first head, in hexadecimal
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from reuna.adapters.files import replace_file, storage_error

FILE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\.seen")


def file_of(node: str) -> str:
    """The name under which a node's newest countersignature is offered."""
    return f"{node}.seen"


class SeenHeads:
    """One folder. One process writes it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder

    def file(self, name: str) -> bytes | None:
        """A node's newest countersignature, for the nodes below; None for any other name."""
        path = self._folder / name
        return path.read_bytes() if FILE.fullmatch(name) and path.is_file() else None

    def keep(self, node: str, statement: bytes) -> None:
        """The newest one, in place of the one before. Raises `DiskFull`."""
        replace_file(self._folder / file_of(node), statement)

    def note(self, node: str, statement: bytes) -> None:
        """Also among all of them; on the disk when it returns. Raises `DiskFull`, `Corrupted`."""
        path = self._folder / f"{node}.log"
        try:
            with path.open("ab") as file:
                file.write(statement.hex().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(error, path) from error
        self.keep(node, statement)

    def noted(self, node: str, part: bytes) -> bool:
        """Whether one of them holds these bytes."""
        path = self._folder / f"{node}.log"
        return path.is_file() and part.hex().encode() in path.read_bytes()

    def key(self, node: str, first: bytes) -> bytes:
        """The node's key; ``first`` when none is known yet, and from then on. Raises `DiskFull`."""
        path = self._folder / f"{node}.key"
        if not path.is_file():
            replace_file(path, first.hex().encode())
        return bytes.fromhex(path.read_text(encoding="ascii"))
