"""`reuna.adapters.https_body`: the body of an upload, manifest and blocks, into a real spool's fake."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

from msgspec.structs import replace

from fuzz.kit import UPDATE, attempt, run
from reuna.adapters import https_body
from reuna.core.errors import Refused
from reuna.wire import BLOCK, block_hash, encode


def seeds() -> Iterator[bytes]:
    body = bytes(16)
    head = encode(UPDATE)
    yield len(head).to_bytes(4, "little") + head + block_hash(body) + body
    report = encode(replace(UPDATE, kind="report", size=0, params=0, width=0))
    yield len(report).to_bytes(4, "little") + report


def check(data: bytes) -> None:
    attempt(lambda: run(_take(data)), Refused)


async def _take(data: bytes) -> None:
    request = SimpleNamespace(content=_Content(data), content_length=len(data))
    source = https_body.Source(cast("Any", request), 5.0)
    receiver = _Receiver()
    try:
        manifest = await https_body.read_manifest(source)
        source.expect(manifest.size)
        frame = https_body.Frame(manifest.size)
        await https_body.read_blocks(source, cast("Any", receiver), manifest.size, frame)
    except (https_body.LineCutError, https_body.WrongOffsetError):
        return
    finally:
        source.end()
    assert receiver.offset == manifest.size


class _Content:
    """What came of a request's body; nothing comes after it."""

    def __init__(self, data: bytes) -> None:
        self._left = data

    def read_nowait(self, count: int) -> bytes:
        some, self._left = self._left[:count], self._left[count:]
        return some

    async def read(self, count: int) -> bytes:
        return self.read_nowait(count)


class _Receiver:
    """Counts good blocks."""

    offset = 0

    def write(self, data: bytes, hashes: bytes) -> None:
        assert len(hashes) == 32 * -(-len(data) // BLOCK)
        self.offset += len(data)
