"""The audit trail: one JSON line for each thing somebody did or tried, each with the hash of the one before.

A line is on the disk when `append` returns. Several processes may write: the cloud, and the commands
on its machine. ``hash`` is the SHA-256 of the line's other fields as JSON, ``previous`` the ``hash`` of
the line before. Who holds the file can cut its end, or write it anew: keep a copy elsewhere.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from reuna.adapters.files import storage_error
from reuna.core.errors import Corrupted

BEGIN = "0" * 64  #: before the first line
_TAIL = 1 << 16
_HASH = b', "hash": "%s"}\n'


class AuditTrail:
    """The trail in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, at: float, who: str, via: str, what: str, verdict: str, **more: str) -> None:
        """Write what somebody did, ``at`` seconds since the epoch. Raises `DiskFull`, `Corrupted`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(
                os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b", buffering=0
            ) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                number, previous = _end(file)
                said = {"number": number, "at": round(at, 3), "who": who, "via": via, "what": what}
                file.write(_line({**said, "verdict": verdict, **more, "previous": previous}))
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(error, self.path) from error

    def read(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """Lines from number ``after`` on, each checked. Raises `Corrupted` that names the first wrong one."""
        previous = BEGIN
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error(error, self.path) from error
        with file:
            for number, line in enumerate(file):
                entry = _entry(line)
                if entry is None or entry.get("number") != number or entry.get("previous") != previous:
                    raise Corrupted(
                        f"{self.path}: line {number + 1} is not as it was written, or one before it is gone",
                        "Keep the file as it is, and compare it with a copy.",
                    )
                previous = entry["hash"]
                if number >= after:
                    yield entry


def _end(file: IO[bytes]) -> tuple[int, str]:
    """Number of the next line, and the hash of the last. A line that a crash cut is cut off."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    tail = file.read()
    whole = tail[: tail.rfind(b"\n") + 1]
    if len(whole) < len(tail):
        file.truncate(size - len(tail) + len(whole))
    if not whole:
        return 0, BEGIN
    entry = _entry(whole.splitlines(keepends=True)[-1])
    if entry is None:
        raise Corrupted(f"{file.name}: the last line is not as it was written", "See `reuna audit verify`.")
    return int(entry["number"]) + 1, str(entry["hash"])


def _line(said: dict[str, Any]) -> bytes:
    """What was said, with the SHA-256 of just that at its end."""
    body = json.dumps(said).encode()
    return body[:-1] + _HASH % hashlib.sha256(body).hexdigest().encode()


def _entry(line: bytes) -> dict[str, Any] | None:
    """What a line says; None when its own hash is not that of the rest."""
    said = line[: -len(_HASH % (b"0" * 64))] + b"}"
    try:
        found = json.loads(said)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or type(found.get("number")) is not int or _line(found) != line:
        return None
    return {**found, "hash": hashlib.sha256(said).hexdigest()}
