"""What a node trusts, kept on its disk.

FOLDER/state          the accepted metadata; replaced as a whole
FOLDER/floor          the newest round accepted of each run; replaced before a plan is acted on
FOLDER/files/NAME     the accepted files by name: a fog gives them to its edges

State and floor begin with the SHA-256 of the rest: a damaged file is told from a forged one and
never read as an empty one, which would forget what protects against replay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from reuna.adapters.files import replace_file, storage_error
from reuna.core.errors import Corrupted
from reuna.trust.metadata import TrustState
from reuna.trust.plans import Floor
from reuna.trust.roles import FILE_NAME, file_name

_HASH = 32

S = TypeVar("S", bound=msgspec.Struct)


class TrustStore:
    """One node's folder. One process writes it."""

    def __init__(self, folder: Path) -> None:
        (folder / "files").mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder

    def state(self) -> TrustState | None:
        """What was accepted, None on a new node. Raises `Corrupted`."""
        return self._load("state", TrustState)

    def written(self) -> tuple[int, int]:
        """Other numbers whenever something else was accepted."""
        try:
            status = (self._folder / "state").stat()
        except FileNotFoundError:
            return 0, 0
        return status.st_mtime_ns, status.st_ino

    def keep(self, state: TrustState, files: Mapping[str, bytes]) -> None:
        """Make an accepted state durable, with the files it came from. Raises `DiskFull`.

        Roots stay, for nodes below that were long away; of the other roles only what the state holds.
        """
        for name, data in files.items():
            if FILE_NAME.fullmatch(name) is not None:
                replace_file(self._folder / "files" / name, data)
        self._save("state", state)
        held = {file_name(role, file.version) for role, file in state.files.items()}
        for path in (self._folder / "files").iterdir():
            if path.name not in held and not path.name.endswith(".root.json"):
                path.unlink()

    def floor(self) -> Floor:
        """What was accepted of each run. Raises `Corrupted`."""
        return self._load("floor", Floor) or Floor()

    def keep_floor(self, floor: Floor) -> None:
        """Make it durable, before the plan is acted on. Raises `DiskFull`."""
        self._save("floor", floor)

    def file(self, name: str) -> bytes | None:
        """An accepted file, for the nodes below."""
        path = self._folder / "files" / name
        if FILE_NAME.fullmatch(name) is None or not path.is_file():
            return None
        return path.read_bytes()

    def _save(self, name: str, record: msgspec.Struct) -> None:
        data = msgspec.msgpack.encode(record)
        replace_file(self._folder / name, hashlib.sha256(data).digest() + data)

    def _load(self, name: str, kind: type[S]) -> S | None:
        path = self._folder / name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, path) from error
        if hashlib.sha256(data[_HASH:]).digest() != data[:_HASH]:
            raise _damaged(path)
        try:
            return msgspec.msgpack.decode(data[_HASH:], type=kind)
        except msgspec.DecodeError as error:
            raise _damaged(path) from error


def _damaged(path: Path) -> Corrupted:
    return Corrupted(
        f"{path} is damaged",
        "Remove the folder and bring this node the fleet's root again; it then starts anew.",
    )
