"""What comes in the body of a request: a manifest, blocks with their hashes, a small message.

A body is read however slowly it comes, as long as it moves; each length is judged before anything of it is
read. `reuna.adapters.https_server` says what is on the wire.
"""

from __future__ import annotations

import asyncio
import hmac
import math
from collections.abc import Callable
from typing import TypeVar

import msgspec
from aiohttp import web

from reuna.core.errors import BadMessage, Refused
from reuna.core.ports import Receiver
from reuna.core.records import Contribution
from reuna.wire import BLOCK, HASH_SIZE, LIMITS, block_hash, decode

M = TypeVar("M", bound=msgspec.Struct)

LEAST_BPS = 100  #: bytes a second that a transfer must bring, or take, on the average to count as moving
LOOK_S = 1.0  #: between two looks at connections, and between two words about how far a body is
BUFFER = BLOCK  #: bytes waited for at most; aiohttp lets twice as many wait, then the line
FRAME = HASH_SIZE + BLOCK  #: a whole block and its hash


class LineCutError(Exception):
    """The peer went away or stalled."""


class WrongOffsetError(Exception):
    """The upload has to go on at another byte."""

    def __init__(self, offset: int, held: int = 0) -> None:
        self.offset = offset
        self.held = held


class SlowError(LineCutError):
    """The peer sends, but hardly anything."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Source:
    """Reads an upload's body; `LineCutError` when it ends early, stalls or trickles. To be ended."""

    def __init__(self, request: web.BaseRequest, stall_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._told_s = self._loop.time()
        self.told: Callable[[int, int], None] = lambda _done, _size: None
        self._stall_s = stall_s
        self._content = request.content
        self._length = request.content_length
        self._taken = 0
        self._waits_s = math.inf  #: since when it waits for a byte
        self._watch: asyncio.TimerHandle | None = None

    async def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes, however slowly they come."""
        data = await self.some(count)
        while len(data) < count:
            data += await self.some(count - len(data))
        return data

    async def some(self, count: int) -> bytes:
        """What there is, at most ``count`` bytes; waits for the first."""
        try:
            data = self._content.read_nowait(count) or await self._next(count)
        except (ConnectionError, TimeoutError, web.RequestPayloadError) as error:
            raise LineCutError from error
        if not data and count:
            raise LineCutError
        self._taken += len(data)
        self._judge_pace()
        return data

    def end(self) -> None:
        """Nothing more is read."""
        if self._watch is not None:
            self._watch.cancel()

    async def _next(self, count: int) -> bytes:
        """What comes next. One clock watches over all that is waited for: a timeout each costs 8 %."""
        self._waits_s = self._loop.time()
        if self._watch is None:
            self._watch = self._loop.call_later(self._stall_s, self._look)
        try:
            return await self._content.read(min(count, BUFFER))
        finally:
            self._waits_s = math.inf

    def _look(self) -> None:
        """Who has waited for too long hears it; else look again when that may be."""
        waited = max(0.0, self._loop.time() - self._waits_s)
        if waited >= self._stall_s:
            self._content.set_exception(TimeoutError(f"nothing came in {self._stall_s:g} s"))
        else:
            self._watch = self._loop.call_later(self._stall_s - waited, self._look)

    def tell(self, done: int, size: int) -> None:
        """How far the body is, now and then."""
        now = self._loop.time()
        if now - self._told_s >= LOOK_S:
            self._told_s = now
            self.told(done, size)

    def _judge_pace(self) -> None:
        """Raises `SlowError` when it came slower than `LEAST_BPS` since it began, but for a stall's time."""
        took_s = self._loop.time() - self._began
        if self._taken < LEAST_BPS * (took_s - self._stall_s):
            raise SlowError(f"sent {self._taken} bytes in {took_s:.0f} s")

    def expect(self, body_bytes: int, held: int = 0) -> None:
        """Judge the announced length against a body with its block hashes. Raises `Refused`.

        ``held`` of these bytes are here already.
        """
        if self._length != self._taken + _frames_size(body_bytes) - held:
            raise Refused("malformed", "the request's length is not that of the announced body")


async def read_manifest(source: Source) -> Contribution:
    """The length is judged before anything is read. Raises `Refused`."""
    length = int.from_bytes(await source.read(4), "little")
    if length > LIMITS[Contribution]:
        raise Refused("oversized", f"a manifest of {length} bytes")
    try:
        return decode(Contribution, await source.read(length))
    except BadMessage as error:
        raise Refused("malformed", error.message) from error


async def read_message(kind: type[M], request: web.BaseRequest, stall_s: float) -> M:
    """A request's whole body. The length is judged before anything is read. Raises `Refused`."""
    length = request.content_length
    if length is None or length > LIMITS[kind]:
        raise Refused("oversized", f"a {kind.__name__} of {length} bytes")
    source = Source(request, stall_s)
    try:
        return decode(kind, await source.read(length))
    except BadMessage as error:
        raise Refused("malformed", error.message) from error
    finally:
        source.end()


class Frame:
    """A block with its hash before it, as far as it has come: one buffer for all blocks of an upload."""

    def __init__(self, body_bytes: int, came: bytes = b"") -> None:
        """``body_bytes``: of what is to come, whose blocks may all be short."""
        self._buffer = memoryview(bytearray(min(FRAME, _frames_size(body_bytes))))
        self.size = 0
        self.take(came)

    def take(self, data: bytes) -> None:
        """What comes next of it."""
        self._buffer[self.size : self.size + len(data)] = data
        self.size += len(data)

    def forget(self) -> None:
        """Begin with the next one."""
        self.size = 0

    @property
    def came(self) -> bytes:
        """All that has come."""
        return bytes(self._buffer[: self.size])

    def good(self) -> tuple[memoryview, bytes] | None:
        """The block and its hash, None where they do not match."""
        known, block = bytes(self._buffer[:HASH_SIZE]), self._buffer[HASH_SIZE : self.size]
        return (block, known) if hmac.compare_digest(block_hash(block), known) else None


async def read_blocks(source: Source, receiver: Receiver, size: int, frame: Frame) -> None:
    """Take block after block; one that does not match its hash has to be sent again.

    They are checked here: a thread for the few that come at a time would take as long as their hashes. So
    an upload has one block and what is read of the next in memory, however many send at once.
    ``frame`` has what came of the first block before, and after a cut (`LineCutError`) what came behind
    the last whole one: a cut loses no byte. Raises `WrongOffsetError`.
    """
    every = left = _frames_size(size - receiver.offset)
    before = _frames_size(size) - every
    while left:
        whole = min(FRAME, left)
        while frame.size < whole:
            frame.take(await source.some(whole - frame.size))
            source.tell(before + every - left + frame.size, before + every)
        good = frame.good()
        if good is None:
            raise WrongOffsetError(receiver.offset)
        receiver.write(*good)
        left -= whole
        frame.forget()


def _frames_size(body_bytes: int) -> int:
    """Bytes on the wire of so many bytes of a body with the hash of each block."""
    return body_bytes + HASH_SIZE * -(-body_bytes // BLOCK)
