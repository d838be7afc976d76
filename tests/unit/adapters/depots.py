"""A depot over HTTPS on loopback with its certificates, and lines on which a test writes what it likes."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec

from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.https_client import HttpsFreight
from reuna.adapters.https_server import DepotServer, serve_depot
from reuna.adapters.tls import KeyPair, client_context, server_context
from reuna.core.errors import Refused
from reuna.core.ports import Blob
from reuna.core.records import Contribution, Member
from reuna.core.second import Doubtful, Opinion, Opinions
from reuna.sim.freight import PlainDepot
from reuna.sim.storage import MemoryBlobs, MemorySpool
from reuna.wire import BLOCK, block_hash, encode

PEER = "edge-1"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Line:
    """A connection on which a test writes what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, head: str, body: bytes = b"") -> None:
        self.writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        await self.writer.drain()

    async def answer(self) -> Answer:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(head[0].split()[1]), headers, body)

    async def ask(self, head: str, body: bytes = b"") -> Answer:
        await self.say(head, body)
        return await self.answer()

    async def ended(self) -> bool:
        """Whether the server ends the connection (the test's own time limit ends the wait)."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True


class Asked:
    """A fog that notes who asks, and has an answer for some."""

    def __init__(self) -> None:
        self.by: list[str] = []

    async def advise(self, peer: str, asked: Doubtful) -> Opinions:
        self.by.append(peer)
        if asked.project != "big":
            raise Refused("no-model", "no such release")
        return Opinions(7, peer, (Opinion(True, False, 1.0, (0.25, 0.75)),))


@dataclass
class Site:
    """A server over a depot in memory, and the certificates to reach it."""

    authority: CertificateAuthority
    depot: PlainDepot
    server: DepotServer
    lines: list[Line]
    asked: Asked

    def context(self, name: str = PEER) -> ssl.SSLContext:
        pair = self.authority.pair("edge", name)
        return client_context(pair.certificate, pair.key, pair.authority)

    async def line(self, context: ssl.SSLContext | None = None) -> Line:
        made = Line(
            *await asyncio.open_connection("127.0.0.1", self.server.port, ssl=context or self.context())
        )
        self.lines.append(made)
        return made

    def freight(self, name: str = PEER) -> HttpsFreight:
        return HttpsFreight("127.0.0.1", self.server.port, self.context(name), MemoryBlobs())


def context_of(pair: KeyPair) -> ssl.SSLContext:
    return server_context(pair.certificate, pair.key, pair.authority)


async def served(authority: CertificateAuthority, stall_s: float) -> AsyncIterator[Site]:
    depot = PlainDepot(MemoryBlobs(), MemorySpool())
    context = context_of(authority.pair("fog", "fog-1"))
    asked = Asked()
    server = await serve_depot(depot, "127.0.0.1", 0, context, stall_s, adviser=asked)
    made = Site(authority, depot, server, [], asked)
    async with asyncio.timeout(20):
        yield made
    for line in made.lines:
        line.writer.transport.abort()
    await made.server.stop()


def manifest_of(body: Blob, sender: str = PEER, round: int = 1) -> Contribution:
    return Contribution(
        run="r-1",
        round=round,
        attempt=1,
        sender=sender,
        plan="p" * 64,
        kind="update",
        params=body.size,
        width=1,
        weight=1,
        digest=body.digest,
        size=body.size,
        members=(Member(node=sender, weight=1, digest=body.digest),),
    )


def body_of(size: int) -> Blob:
    return MemoryBlobs().put(os.urandom(size))


def head_of(manifest: Contribution) -> bytes:
    message = encode(manifest)
    return len(message).to_bytes(4, "little") + message


def frames_of(body: Blob, start: int = 0) -> bytes:
    parts = [body.read(at, BLOCK) for at in range(start, body.size, BLOCK)]
    return b"".join(block_hash(part) + part for part in parts)


def put(length: int, offset: int | str = 0) -> str:
    return f"PUT /v1/contributions HTTP/1.1\nHost: x\nUpload-Offset: {offset}\nContent-Length: {length}"


def reason(answer: Answer) -> str:
    return str(msgspec.msgpack.decode(answer.body)["reason"])
