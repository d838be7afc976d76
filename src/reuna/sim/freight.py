"""Freight in memory: a node's `BlobStore` that calls its parent's `Depot` directly.

`MemoryFreight` keeps the contract of `reuna.adapters.https_client`: blocks are checked, a cut is
resumed, an answer that got lost is asked for again. `Weather` says what goes wrong, and when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from reuna.adapters.receiver import SpoolReceiver, commit_all, receipt_of
from reuna.core.errors import (
    BadMessage,
    BlobNotFound,
    Corrupted,
    DiskFull,
    PermissionDenied,
    Refused,
    ReunaError,
    StorageError,
    Unreachable,
    Untrusted,
)
from reuna.core.ports import Blob, Blobs, BlobWriter, Depot, Make, Receiver, Spool
from reuna.core.records import Contribution, Receipt
from reuna.wire import BLOCK, decode, digest_bytes, encode

TRIES = 5

T = TypeVar("T")


class Weather:
    """What the line does to each try of a call. This one is fair; subclass it to plant faults.

    ``what`` is ``fetch`` or ``send``.
    """

    async def before(self, what: str) -> None:
        """Delay here, or raise `Unreachable` for a line that is down."""

    def cut_at(self, what: str, size: int) -> int | None:
        """The byte of the body before which the line is cut; None to let it pass."""
        return None

    def seconds(self, what: str, size: int) -> float:
        """How long the line needs for so many bytes."""
        return 0.0

    def loses_answer(self) -> bool:
        """Whether the parent's receipt is lost on its way back."""
        return False


class PlainDepot:
    """A `Depot` over any blobs and spool that admits one open round, for tests of the freight.

    ``largest`` is the largest body in bytes; ``receipts`` are those told through `received`.
    """

    def __init__(self, blobs: Blobs, spool: Spool, open_round: int = 1) -> None:
        self.blobs = blobs
        self.spool = spool
        self.open_round = open_round
        self.largest = 1 << 30
        self.receipts: list[Receipt] = []
        self.refusals: list[tuple[str, str]] = []
        self.moved: list[tuple[str, str, int, int]] = []

    async def blob(self, peer: str, digest: str) -> Blob:
        held = self.blobs.get(digest)
        if held is None:
            raise BlobNotFound(f"no blob {digest[:12]} is offered to {peer}")
        return held

    def receive(self, peer: str, manifest: Contribution) -> Receiver | Receipt:
        if manifest.sender != peer:
            raise PermissionDenied(f"{peer} may not speak for {manifest.sender}")
        if manifest in self.spool.rows(*manifest.key[:3]):
            return receipt_of(manifest)
        if manifest.round < self.open_round:
            raise Refused("closed", f"round {manifest.round} is closed")
        if manifest.size > self.largest:
            raise Refused("oversized", f"{manifest.size} bytes are more than the plan allows")
        return SpoolReceiver(self.spool, manifest, self.judge)

    def commit(self, receivers: Sequence[Receiver]) -> Sequence[Receipt | ReunaError]:
        return commit_all(self.spool, receivers)

    def judge(self, manifest: Contribution, body: Blob | None) -> None:
        """Judge the whole contribution; this depot takes all."""

    def metadata(self, name: str) -> bytes | None:
        """There is none."""
        return None

    def count_refusal(self, peer: str, refusal: Refused) -> None:
        """See `Depot.count_refusal`."""
        self.refusals.append((peer, refusal.reason))

    def moves(self, peer: str, what: str, done: int, size: int) -> None:
        """See `Depot.moves`."""
        self.moved.append((peer, what, done, size))

    async def received(self, receipt: Receipt) -> None:
        self.receipts.append(receipt)


class _CutError(Exception):
    """The line was cut; the next try may get through."""


class MemoryFreight:
    """The `BlobStore` port of the node ``peer`` over a parent's depot.

    ``depot`` is called for each try, so that a parent may be replaced; it raises `Unreachable`
    while the parent is down.
    """

    def __init__(
        self, depot: Callable[[], Depot], peer: str, blobs: Blobs, weather: Weather | None = None
    ) -> None:
        self._depot = depot
        self._peer = peer
        self._blobs = blobs
        self._weather = weather or Weather()
        self._flights: dict[str, asyncio.Task[Blob]] = {}

    async def fetch(self, digest: str, size: int) -> Blob:
        """See `BlobStore.fetch`. Calls for the same digest share one transfer."""
        held = self._blobs.get(digest)
        if held is not None:
            return held
        flight = self._flights.get(digest)
        if flight is None:
            flight = asyncio.create_task(self._download(digest, size))
            self._flights[digest] = flight
            flight.add_done_callback(lambda done: self._landed(digest, done))
        return await asyncio.shield(flight)

    def _landed(self, digest: str, flight: asyncio.Task[Blob]) -> None:
        self._flights.pop(digest, None)
        if not flight.cancelled():
            flight.exception()

    async def send(self, manifest: Contribution, body: Blob | None) -> Receipt:
        """See `BlobStore.send`."""
        message = encode(manifest)
        return await _again(lambda: self._upload(message, body))

    async def send_made(self, make: Make) -> Receipt | None:
        """See `BlobStore.send_made`."""
        made = make()
        return None if made is None else await self.send(*made)

    async def metadata(self, name: str, limit: int) -> bytes | None:
        """See `BlobStore.metadata`."""
        data = self._depot().metadata(name)
        if data is not None and len(data) > limit:
            raise Untrusted("oversized", f"{name} has more than {limit} bytes")
        return data

    async def close(self) -> None:
        """Give up what runs."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    # --- down --------------------------------------------------------------------------------

    async def _download(self, digest: str, size: int) -> Blob:
        data = bytearray()
        await _again(lambda: self._fetch_rest(digest, size, data))
        writer = self._blobs.new(size)
        _copy(bytes(data), writer)
        return writer.seal(durable=False)

    async def _fetch_rest(self, digest: str, size: int, data: bytearray) -> None:
        """Go on at the last good block. A bad block is fetched once more."""
        await self._weather.before("fetch")
        try:
            blob = await self._depot().blob(self._peer, digest)
        except DiskFull as error:
            raise Unreachable(f"the parent cannot give it now: {error.message}") from error
        cut = self._weather.cut_at("fetch", size)
        if blob.size != size:
            raise Corrupted(f"the parent's blob {digest[:12]} has {blob.size} bytes, not {size}")
        while len(data) < size:
            if cut is not None and len(data) + BLOCK > cut:
                raise _CutError("the line was cut")
            await self._carry(self._depot(), "fetch", digest, len(data), min(BLOCK, size - len(data)), size)
            data += blob.read(len(data), min(BLOCK, size - len(data)))
        if digest_bytes(memoryview(data)) != digest:
            data[:] = blob.read(0, size)
        if digest_bytes(memoryview(data)) != digest:
            raise Corrupted(f"blob {digest[:12]} is not what the parent sent")

    # --- up ----------------------------------------------------------------------------------

    async def _upload(self, message: bytes, body: Blob | None) -> Receipt:
        await self._weather.before("send")
        manifest = _manifest(message)
        receipt = await self._hand_over(self._depot(), manifest, body)
        if self._weather.loses_answer():
            raise _CutError("the answer was lost")
        return receipt

    async def _hand_over(self, depot: Depot, manifest: Contribution, body: Blob | None) -> Receipt:
        try:
            receiver = depot.receive(self._peer, manifest)
            if isinstance(receiver, Receipt):
                return receiver
            await self._send_blocks(depot, receiver, manifest, body)
            receipt = receiver.commit()
        except PermissionDenied as error:
            raise Refused("identity", error.message) from error
        except DiskFull as error:
            raise Unreachable(f"the parent cannot take it now: {error.message}") from error
        except StorageError as error:
            raise _CutError(error.message) from error
        await depot.received(receipt)
        return receipt

    async def _send_blocks(
        self, depot: Depot, receiver: Receiver, manifest: Contribution, body: Blob | None
    ) -> None:
        cut = self._weather.cut_at("send", manifest.size)
        try:
            for at in range(receiver.offset, manifest.size, BLOCK):
                if cut is not None and at + BLOCK > cut:
                    raise _CutError("the line was cut")
                if body is None:
                    raise Refused("digest", "the contribution announces a body that is not there")
                count = min(BLOCK, manifest.size - at)
                await self._carry(depot, "send", manifest.digest, at, count, manifest.size)
                receiver.write(body.read(at, min(BLOCK, manifest.size - at)))
        except (_CutError, Refused, StorageError, Unreachable):
            receiver.suspend()
            raise

    async def _carry(self, depot: Depot, what: str, digest: str, at: int, count: int, size: int) -> None:
        """Bytes come slowly over a slow line, and the parent sees them come."""
        left = takes = self._weather.seconds(what, count)
        while left > 0:
            await asyncio.sleep(min(1.0, left))
            left -= 1.0
            depot.moves(self._peer, digest, at + int(count * min(1.0, 1 - left / takes)), size)


def _manifest(message: bytes) -> Contribution:
    try:
        return decode(Contribution, message)
    except BadMessage as error:
        raise Refused("malformed", error.message) from error


async def _again(work: Callable[[], Awaitable[T]]) -> T:
    """Try until it works. Raises `Unreachable` after the last try."""
    for _ in range(TRIES - 1):
        try:
            return await work()
        except _CutError:
            continue
    try:
        return await work()
    except _CutError as error:
        raise Unreachable(str(error)) from error


def _copy(data: bytes, writer: BlobWriter) -> None:
    for start in range(0, len(data), BLOCK):
        writer.write(data[start : start + BLOCK])
