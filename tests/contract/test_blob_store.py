"""The `BlobStore` port over HTTPS on loopback with mutual TLS, and in memory: one contract."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.files import FileBlobs
from reuna.adapters.https_client import HttpsFreight
from reuna.adapters.https_server import DepotServer, serve_depot
from reuna.adapters.spool import DiskSpool
from reuna.adapters.tls import client_context, server_context
from reuna.core.errors import BlobNotFound, Corrupted, Refused, Unreachable
from reuna.core.ports import Blob, Blobs, BlobStore, Receiver
from reuna.core.records import Contribution, Member, Receipt
from reuna.sim.freight import MemoryFreight, PlainDepot, Weather
from reuna.sim.storage import MemoryBlobs, MemorySpool
from reuna.wire import BLOCK

pytestmark = pytest.mark.asyncio
PEER = "edge-1"
BIG = 40 * BLOCK + 17


class Flaky:
    """A blob that gives wrong bytes at one offset for its first reads of it."""

    def __init__(self, good: Blob, wrong_at: int, times: int) -> None:
        self.digest, self.size, self.hashes = good.digest, good.size, good.hashes
        self.times = times
        self._good = good
        self._wrong_at = wrong_at

    def read(self, offset: int, count: int) -> bytes:
        data = bytearray(self._good.read(offset, count))
        if offset <= self._wrong_at < offset + count and self.times > 0:
            self.times -= 1
            data[self._wrong_at - offset] ^= 1
        return bytes(data)


class Parent(PlainDepot):
    """A depot that counts, lies and stalls as a test asks."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.asked = 0
        self.written: list[int] = []
        self.wrong: dict[str, Flaky] = {}
        self.on_received: Callable[[], None] = lambda: None

    async def blob(self, peer: str, digest: str) -> Blob:
        self.asked += 1
        await asyncio.sleep(0)
        return self.wrong.get(digest) or await super().blob(peer, digest)

    def receive(self, peer: str, manifest: Contribution) -> Receiver | Receipt:
        receiver = super().receive(peer, manifest)
        if not isinstance(receiver, Receipt):
            self.written.append(receiver.offset)
        return receiver

    async def received(self, receipt: Receipt) -> None:
        await super().received(receipt)
        self.on_received()


class World:
    """A parent, a node's store, the line between them."""

    def __init__(self, depot: Parent, local: Blobs, store: BlobStore) -> None:
        self.depot = depot
        self.local = local
        self.store = store
        self.own = MemoryBlobs()

    def cut_once(self, what: str, at: int) -> None:
        raise NotImplementedError

    def lose_answer_once(self) -> None:
        raise NotImplementedError

    def go_down(self) -> None:
        raise NotImplementedError

    def contribution(self, size: int, sender: str = PEER, round: int = 1) -> tuple[Contribution, Blob]:
        body = self.own.put(os.urandom(size))
        return manifest_of(body, sender, round), body


def manifest_of(body: Blob | None, sender: str = PEER, round: int = 1) -> Contribution:
    size, digest = (body.size, body.digest) if body else (0, "")
    return Contribution(
        run="r-1",
        round=round,
        attempt=1,
        sender=sender,
        plan="p" * 64,
        kind="update" if body else "report",
        params=size,
        width=1,
        weight=1,
        digest=digest,
        size=size,
        members=(Member(node=sender, weight=1, digest=digest),),
    )


# --- in memory -------------------------------------------------------------------------------


class PlannedWeather(Weather):
    def __init__(self) -> None:
        self.cuts: list[tuple[str, int]] = []
        self.lost = 0
        self.down = False

    async def before(self, what: str) -> None:
        if self.down:
            raise Unreachable("the line is down")

    def cut_at(self, what: str, size: int) -> int | None:
        if self.cuts and self.cuts[0][0] == what:
            return self.cuts.pop(0)[1]
        return None

    def loses_answer(self) -> bool:
        self.lost -= 1
        return self.lost >= 0


class MemoryWorld(World):
    def __init__(self) -> None:
        depot, local = Parent(MemoryBlobs(), MemorySpool()), MemoryBlobs()
        self._weather = PlannedWeather()
        super().__init__(depot, local, MemoryFreight(lambda: depot, PEER, local, self._weather))

    def cut_once(self, what: str, at: int) -> None:
        self._weather.cuts.append((what, at))

    def lose_answer_once(self) -> None:
        self._weather.lost = 1

    def go_down(self) -> None:
        self._weather.down = True

    async def close(self) -> None:
        await self.store.close()


# --- over HTTPS ------------------------------------------------------------------------------


class Wire:
    """A TCP relay that can be cut after a number of bytes in one direction."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.limits: dict[str, int] = {}
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers.add(up_writer)
        for pump in (self._pump("send", reader, up_writer), self._pump("fetch", up_reader, writer)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(16384):
                if way in self.limits:
                    self.limits[way] -= len(data)
                    if self.limits[way] < 0:
                        del self.limits[way]
                        self.cut()
                        return
                writer.write(data)
                await writer.drain()
            writer.close()
        except ConnectionError:
            return

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def stop(self) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class HttpsWorld(World):
    def __init__(self, depot: Parent, local: Blobs, freight: HttpsFreight, wire: Wire) -> None:
        super().__init__(depot, local, freight)
        self.server: DepotServer | None = None
        self._wire = wire

    def cut_once(self, what: str, at: int) -> None:
        self._wire.limits[what] = at

    def lose_answer_once(self) -> None:
        def lose() -> None:
            self.depot.on_received = lambda: None
            self._wire.cut()

        self.depot.on_received = lose

    def go_down(self) -> None:
        self._wire.limits = {"send": 0, "fetch": 0}
        self._wire._server.close()
        self._wire.cut()

    async def close(self) -> None:
        await self.store.close()
        await self._wire.stop()
        assert self.server is not None
        await self.server.stop()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    made = CertificateAuthority.create(tmp_path_factory.mktemp("authority"), "test-fleet")
    made.issue("fog", "fog-1", hosts=["127.0.0.1"])
    made.issue("edge", PEER)
    return made


async def https_world(folder: Path, authority: CertificateAuthority) -> HttpsWorld:
    fog, edge = authority.pair("fog", "fog-1"), authority.pair("edge", PEER)
    depot = Parent(FileBlobs(folder / "blobs"), DiskSpool(folder / "spool"))
    context = server_context(fog.certificate, fog.key, fog.authority)
    server = await serve_depot(depot, "127.0.0.1", 0, context)
    wire = Wire(server.port)
    await wire.start()
    local = FileBlobs(folder / "local")
    context = client_context(edge.certificate, edge.key, edge.authority)
    world = HttpsWorld(depot, local, HttpsFreight("127.0.0.1", wire.port, context, local), wire)
    world.server = server
    return world


@pytest_asyncio.fixture(params=["memory", "https"])
async def world(
    request: pytest.FixtureRequest, tmp_path: Path, authority: CertificateAuthority
) -> AsyncIterator[World]:
    made = MemoryWorld() if request.param == "memory" else await https_world(tmp_path, authority)
    yield made
    await made.close()
    made.depot.spool.close()  # type: ignore[attr-defined]


# --- fetching --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, BIG])
async def test_a_blob_arrives_whole_and_stays(world: World, size: int) -> None:
    data = os.urandom(size)
    blob = world.depot.blobs.put(data)
    got = await world.store.fetch(blob.digest, size)
    assert (got.digest, got.size, got.read(0, size)) == (blob.digest, size, data)
    asked = world.depot.asked
    await world.store.fetch(blob.digest, size)
    assert world.depot.asked == asked


async def test_a_cut_fetch_goes_on_where_it_stopped(world: World) -> None:
    blob = world.depot.blobs.put(os.urandom(BIG))
    world.cut_once("fetch", BIG // 2)
    got = await world.store.fetch(blob.digest, BIG)
    assert got.read(0, BIG) == blob.read(0, BIG)
    assert world.depot.asked > 1


async def test_calls_for_the_same_blob_share_one_transfer(world: World) -> None:
    blob = world.depot.blobs.put(os.urandom(BLOCK))
    got = await asyncio.gather(*(world.store.fetch(blob.digest, BLOCK) for _ in range(5)))
    assert {each.digest for each in got} == {blob.digest}
    assert world.depot.asked == 1


async def test_a_caller_that_gives_up_does_not_stop_the_others(world: World) -> None:
    blob = world.depot.blobs.put(os.urandom(BIG))
    first = asyncio.create_task(world.store.fetch(blob.digest, BIG))
    second = asyncio.create_task(world.store.fetch(blob.digest, BIG))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).digest == blob.digest


async def test_a_block_damaged_once_is_fetched_again(world: World) -> None:
    blob = world.depot.blobs.put(os.urandom(BLOCK - 5))
    world.depot.wrong[blob.digest] = Flaky(blob, wrong_at=100, times=1)
    got = await world.store.fetch(blob.digest, BLOCK - 5)
    assert got.read(0, BLOCK) == blob.read(0, BLOCK)


async def test_a_block_damaged_within_a_large_blob_is_fetched_again(world: World) -> None:
    blob = world.depot.blobs.put(os.urandom(BIG))
    await world.store.fetch(blob.digest, BIG)  # so that the parent knows its list of blocks
    world.local.drop(blob.digest)
    world.depot.wrong[blob.digest] = flaky = Flaky(blob, wrong_at=BIG // 2, times=1)
    got = await world.store.fetch(blob.digest, BIG)
    assert got.read(0, BIG) == blob.read(0, BIG)
    assert flaky.times == 0


@pytest.mark.parametrize("size", [1000, BIG])
async def test_a_block_that_stays_damaged_is_corrupted(world: World, size: int) -> None:
    blob = world.depot.blobs.put(os.urandom(size))
    world.depot.wrong[blob.digest] = Flaky(blob, wrong_at=size - 3, times=1_000)
    with pytest.raises(Corrupted):
        await world.store.fetch(blob.digest, size)
    assert world.local.get(blob.digest) is None


async def test_a_blob_of_another_size_than_announced_is_corrupted(world: World) -> None:
    blob = world.depot.blobs.put(os.urandom(1000))
    with pytest.raises(Corrupted):
        await world.store.fetch(blob.digest, 999)


async def test_a_blob_the_parent_does_not_hold_is_not_found(world: World) -> None:
    for size in (10, BIG):
        with pytest.raises(BlobNotFound):
            await world.store.fetch("a" * 64, size)


async def test_a_line_that_stays_down_is_unreachable(world: World) -> None:
    blob = world.depot.blobs.put(b"data")
    manifest, body = world.contribution(100)
    world.go_down()
    with pytest.raises(Unreachable):
        await world.store.fetch(blob.digest, 4)
    with pytest.raises(Unreachable):
        await world.store.send(manifest, body)


# --- sending ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, BLOCK, BIG])
async def test_a_contribution_is_held_and_acknowledged(world: World, size: int) -> None:
    manifest, body = world.contribution(size)
    receipt = await world.store.send(manifest, body)
    assert receipt == Receipt("r-1", 1, 1, PEER, body.digest)
    assert world.depot.receipts == [receipt]
    assert world.depot.spool.rows("r-1", 1, 1) == [manifest]
    assert world.depot.spool.body(manifest).read(0, size) == body.read(0, size)


async def test_a_report_has_no_body(world: World) -> None:
    receipt = await world.store.send(manifest_of(None), None)
    assert world.depot.receipts == [receipt]


@pytest.mark.parametrize("size", [1000, BIG])
async def test_a_duplicate_gets_the_same_receipt_and_counts_once(world: World, size: int) -> None:
    manifest, body = world.contribution(size)
    first = await world.store.send(manifest, body)
    assert await world.store.send(manifest, body) == first
    assert world.depot.receipts == [first]


async def test_a_second_digest_for_the_same_key_is_a_conflict(world: World) -> None:
    await world.store.send(*world.contribution(1000))
    with pytest.raises(Refused) as caught:
        await world.store.send(*world.contribution(1000))
    assert caught.value.reason == "conflict"
    assert len(world.depot.spool.rows("r-1", 1, 1)) == 1


@pytest.mark.parametrize("size", [1000, BIG])
async def test_a_lost_answer_is_asked_for_again_and_counted_once(world: World, size: int) -> None:
    manifest, body = world.contribution(size)
    world.lose_answer_once()
    receipt = await world.store.send(manifest, body)
    assert world.depot.receipts == [receipt]


async def test_a_cut_upload_goes_on_at_the_durable_offset(world: World) -> None:
    manifest, body = world.contribution(BIG)
    world.cut_once("send", BIG // 2)
    await world.store.send(manifest, body)
    assert max(world.depot.written) > BLOCK
    assert world.depot.spool.body(manifest).read(0, BIG) == body.read(0, BIG)


async def test_a_sender_that_is_not_the_peer_is_refused(world: World) -> None:
    with pytest.raises(Refused) as caught:
        await world.store.send(*world.contribution(100, sender="edge-2"))
    assert caught.value.reason == "identity"
    assert world.depot.spool.rows("r-1", 1, 1) == []


@pytest.mark.parametrize("size", [2 * BLOCK, BIG])
async def test_an_oversized_contribution_is_refused(world: World, size: int) -> None:
    world.depot.largest = BLOCK
    with pytest.raises(Refused) as caught:
        await world.store.send(*world.contribution(size))
    assert caught.value.reason == "oversized"


async def test_a_contribution_after_the_close_is_refused(world: World) -> None:
    world.depot.open_round = 2
    with pytest.raises(Refused) as caught:
        await world.store.send(*world.contribution(100))
    assert caught.value.reason == "closed"


async def test_a_contribution_that_fails_the_check_of_the_whole_is_forgotten(world: World) -> None:
    def judge(manifest: Contribution, body: Blob | None) -> None:
        raise Refused("range", "a value lies outside the grid")

    world.depot.judge = judge  # type: ignore[method-assign]
    manifest, body = world.contribution(BIG)
    with pytest.raises(Refused) as caught:
        await world.store.send(manifest, body)
    assert caught.value.reason == "range"
    assert world.depot.spool.held(manifest) == 0


async def test_a_body_that_is_not_the_announced_one_is_refused(world: World) -> None:
    manifest, _ = world.contribution(1000)
    with pytest.raises(Refused) as caught:
        await world.store.send(manifest, world.own.put(os.urandom(1000)))
    assert caught.value.reason == "digest"


async def test_uploads_of_many_rounds_go_side_by_side(world: World) -> None:
    sends: list[Awaitable[Receipt]] = [
        world.store.send(*world.contribution(3 * BLOCK, round=number)) for number in range(1, 4)
    ]
    assert len({receipt.round for receipt in await asyncio.gather(*sends)}) == 3


async def test_what_is_made_is_sent_and_nothing_is_when_nothing_is_made(world: World) -> None:
    made = world.contribution(3 * BLOCK)
    receipt = await world.store.send_made(lambda: made)
    assert receipt is not None
    assert receipt.digest == made[0].digest
    assert await world.store.send_made(lambda: None) is None
    assert world.depot.spool.rows("r-1", 1, 1) == [made[0]]


async def test_an_error_of_who_makes_it_reaches_the_caller_and_nothing_is_sent(world: World) -> None:
    def fail() -> tuple[Contribution, Blob | None]:
        raise Refused("policy", "the kill switch is on")

    with pytest.raises(Refused, match="kill switch"):
        await world.store.send_made(fail)
    assert world.depot.spool.rows("r-1", 1, 1) == []
    assert await world.store.send(*world.contribution(100)) is not None
