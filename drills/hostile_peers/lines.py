"""The freight protocol spoken by hand, so that it can be spoken wrongly."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from reuna.core.records import Contribution
from reuna.fleet.ports import HOST
from reuna.wire import BLOCK, block_hash, encode

ANSWER_S = 20.0
PIECE = 1 << 16


@dataclass(frozen=True)
class Answer:
    """Status 0: the line was cut."""

    status: int
    body: bytes = b""

    @property
    def reason(self) -> str:
        """Why it was refused, as the server says it."""
        try:
            said: Any = msgspec.msgpack.decode(self.body)
            return str(said["reason"])
        except (msgspec.DecodeError, KeyError, TypeError):
            return ""


class Freight:
    """HTTPS to one place under one certificate; one connection a request."""

    def __init__(self, port: int, tls: ssl.SSLContext) -> None:
        self.port = port
        self._tls = tls

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection whose handshake is done."""
        return await asyncio.open_connection(HOST, self.port, ssl=self._tls)

    async def get(self, path: str) -> Answer:
        """Ask for a path as it stands, whatever is in it."""
        return await self._ask(f"GET {path} HTTP/1.1\r\nHost: fog\r\n\r\n".encode(), [])

    async def put(self, manifest: Contribution, body: bytes, extra: int = 0) -> Answer:
        """Hand over a contribution; ``extra`` bytes more than its manifest announces."""
        return await self.put_raw(encode(manifest), body, extra)

    async def put_raw(self, manifest: bytes, body: bytes, extra: int = 0) -> Answer:
        """The same with the manifest's bytes."""
        data = len(manifest).to_bytes(4, "little") + manifest + frames(body) + bytes(extra)
        return await self.put_bytes(len(data), [data])

    async def put_bytes(self, length: int, pieces: Iterable[bytes]) -> Answer:
        """An upload of any bytes; it ends early when the answer comes early."""
        head = f"PUT /v1/contributions HTTP/1.1\r\nHost: fog\r\nContent-Length: {length}\r\n\r\n"
        return await self._ask(head.encode(), pieces)

    async def _ask(self, head: bytes, pieces: Iterable[bytes]) -> Answer:
        reader, writer = await self.open()
        answering = asyncio.create_task(_answer(reader))
        try:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                writer.write(head)
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    if answering.done():
                        break
            async with asyncio.timeout(ANSWER_S):
                return await answering
        finally:
            answering.cancel()
            writer.transport.abort()


async def _answer(reader: asyncio.StreamReader) -> Answer:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(fields.get("content-length", "0")))
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
        return Answer(0)
    return Answer(int(head[0].split()[1]), body)


def frames(body: bytes) -> bytes:
    """A body as it stands on the wire: before each block its hash."""
    blocks = (body[at : at + BLOCK] for at in range(0, len(body), BLOCK))
    return b"".join(block_hash(block) + block for block in blocks)


async def stays_open(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> bool:
    """Whether the other side leaves a connection open for so long; it is ended then."""
    try:
        async with asyncio.timeout(seconds):
            await reader.read()
    except TimeoutError:
        return True
    except (OSError, ssl.SSLError):
        return False
    finally:
        writer.transport.abort()
    return False
