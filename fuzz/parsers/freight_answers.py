"""`reuna.adapters.https_client`: whatever a parent answers to a download, an upload, a question.

The first byte says what was asked; the rest is what comes back on the line, again on each try.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec

from fuzz.kit import RECEIPT, UPDATE, attempt
from reuna.adapters import https_line
from reuna.adapters.https_client import Download, Half, HttpsFreight, Upload
from reuna.core.errors import (
    BlobNotFound,
    Corrupted,
    PermissionDenied,
    Refused,
    ReunaError,
    Unreachable,
    Untrusted,
)
from reuna.sim.storage import MemoryBlob, MemoryBlobs
from reuna.wire import BLOCK, digest_bytes, encode, hash_blocks

SMALL = b"a model"
LARGE = bytes(BLOCK + 1)
LIMIT = 500
ERRORS: tuple[type[ReunaError], ...] = (
    BlobNotFound,
    Corrupted,
    PermissionDenied,
    Refused,
    Unreachable,
    Untrusted,
)


def seeds() -> Iterator[bytes]:
    problem = msgspec.msgpack.encode({"reason": "closed", "message": "too late"})
    yield b"\0" + _answer(200, SMALL)
    yield b"\0" + _answer(404, problem)
    yield b"\1" + _answer(200, hash_blocks(LARGE))
    yield b"\2" + _answer(200, encode(RECEIPT))
    yield b"\2" + _answer(409, b"", "Upload-Offset: 16\r\n")
    yield b"\2" + _answer(409, b"", "Upload-Offset: 0\r\nUpload-Held: 7\r\n")
    yield b"\2" + _answer(422, problem)
    yield b"\2" + _answer(507, problem)
    yield b"\3" + _answer(200, b"{}")
    yield b"\3HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"


def _answer(status: int, body: bytes, more: str = "") -> bytes:
    return f"HTTP/1.1 {status} OK\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def check(data: bytes) -> None:
    asked, answer = (data[0] & 3, data[1:]) if data else (0, b"")
    lines, job, blobs = _Lines(answer), _Job(), MemoryBlobs()
    freight = HttpsFreight("parent", 1, cast("ssl.SSLContext", None), blobs)
    freight._lines = lines
    body = MemoryBlob(bytes(16), UPDATE.digest)
    calls: tuple[Callable[[], Any], ...] = (
        lambda: Download(lines, job, blobs, digest_bytes(SMALL), _half(blobs, SMALL)).run(),
        lambda: Download(lines, job, blobs, digest_bytes(LARGE), _half(blobs, LARGE)).run(),
        lambda: Upload(lines, job, UPDATE, body).run(),
        lambda: freight._metadata(job, "root.json", LIMIT),
    )
    found = attempt(calls[asked], *ERRORS)
    if asked < 2 and found is not None:
        assert found.read(0, len(LARGE)) == (SMALL, LARGE)[asked]
    assert asked != 3 or found is None or len(found) <= LIMIT


def _half(blobs: MemoryBlobs, blob: bytes) -> Half:
    return Half(len(blob), blobs.half(digest_bytes(blob), len(blob)))


class _Job(https_line.Job):
    def wait(self, seconds: float) -> None:
        """The next try comes at once."""


class _Lines(https_line.Lines):
    """Each connection brings the same answer."""

    def __init__(self, answer: bytes) -> None:
        super().__init__("parent", 1, cast("ssl.SSLContext", None))
        self._bytes = answer

    def _connect(self) -> https_line.Line:
        return https_line.Line(cast("ssl.SSLSocket", _Socket(self._bytes)), "parent:1")


class _Socket:
    """What a peer has sent."""

    def __init__(self, data: bytes) -> None:
        self._left = data

    def recv(self, count: int) -> bytes:
        data, self._left = self._left[:count], self._left[count:]
        return data

    def recv_into(self, buffer: memoryview) -> int:
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: memoryview) -> int:
        """The peer takes everything."""
        return len(data)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """There is no kernel behind it."""

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        """Nothing is known of it."""
        return b""

    def settimeout(self, seconds: float) -> None:
        """It never stalls."""

    def close(self) -> None:
        """Nothing is open."""
