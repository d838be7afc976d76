"""One value in a small file that says of itself whether it is whole: SHA-256, 32 bytes, then JSON.

Whoever reads it finds the value that was written last, durable, or learns that there is none to be used.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from reuna.adapters.files import read_at_most, replace_file
from reuna.core.errors import BadMessage, StorageError
from reuna.core.foreign import UNREADABLE

log = logging.getLogger("reuna.files")
T = TypeVar("T")
_HASH = 32


class CheckedFile(Generic[T]):
    """A value of ``kind``, of at most ``most`` bytes."""

    def __init__(self, path: Path, kind: Any, most: int) -> None:
        self.path = path
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind)
        self._most = most

    def read(self) -> T | None:
        """The value; None when there is none, or none that can be used, which is said in the log."""
        try:
            data = read_at_most(self.path, self._most)
            if data is None:
                return None
            if hashlib.sha256(data[_HASH:]).digest() != data[:_HASH]:
                raise BadMessage("it is damaged")
            return self._decoder.decode(data[_HASH:])
        except (StorageError, BadMessage, *UNREADABLE) as error:
            log.warning("%s is not used: %s", self.path, error)
            return None

    def write(self, value: T) -> None:
        """Durable when it returns. Raises `DiskFull`, `NotUsable`, `Corrupted`."""
        data = msgspec.json.encode(value)
        replace_file(self.path, hashlib.sha256(data).digest() + data)
