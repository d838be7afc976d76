"""Over a thin line a cut costs no byte that came, and whoever hardly moves is given up by name."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from reuna.adapters import https_body, https_client, https_line, https_server, thin_lines
from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.files import FileBlobs
from reuna.adapters.https_client import HttpsFreight
from reuna.adapters.tls import server_context
from reuna.core.errors import Unreachable
from reuna.core.line import Rates
from reuna.core.pace import Pace
from reuna.core.ports import Blob
from reuna.core.records import Receipt
from reuna.sim.storage import MemoryBlobs
from reuna.wire import BLOCK, decode
from tests.contract.test_blob_store import Wire
from tests.unit.adapters.depots import PEER, Site, body_of, frames_of, head_of, manifest_of, put

CHUNK = 512  #: what a relay carries at a time, and loses at a cut
SLACK = 24_000  #: bytes of handshakes, heads, lists of hashes, and a record that was cut


class Reading:
    """Whether the server waits for more of a body."""

    def __init__(self) -> None:
        self.waits = False

    async def has_all(self, writer: asyncio.StreamWriter) -> None:
        """Until all that was written was read, and the server has worked on it."""
        await read_all(writer)
        for _ in range(3):  # by now it goes on with what was read
            await asyncio.sleep(0)
        while not self.waits:
            await asyncio.sleep(0.01)


async def read_all(writer: asyncio.StreamWriter) -> None:
    """Until the other side has read all that was written: a cut throws away what it has not."""
    while writer.transport.get_write_buffer_size() or unread(writer.get_extra_info("socket")):
        await asyncio.sleep(0.01)


def unread(sock: socket.socket) -> int:
    """Bytes on their way to the other end of a connection of this machine, or there and not read."""
    ends = ["{:08X}:{:04X}".format(*struct.unpack("=I", socket.inet_aton(host)), port)
            for host, port in (sock.getsockname(), sock.getpeername())]  # fmt: skip
    waiting = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        own, other, (to_send, to_read) = (words := line.split())[1], words[2], words[4].split(":")
        waiting += int(to_send, 16) if [own, other] == ends else 0
        waiting += int(to_read, 16) if [other, own] == ends else 0
    return waiting


@pytest.fixture(autouse=True)
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    told, wait = Reading(), https_body.Source._next

    async def waiting(source: https_body.Source, count: int) -> bytes:
        told.waits = True
        try:
            return await wait(source, count)
        finally:
            told.waits = False

    monkeypatch.setattr(https_body.Source, "_next", waiting)
    return told


class Counted(Wire):
    """A relay that counts what it carries each way."""

    def __init__(self, target: int, reading: Reading) -> None:
        super().__init__(target)
        self.reading = reading
        self.carried = {"send": 0, "fetch": 0}
        self.holds: dict[str, int] = {}  #: nothing is passed on any more after so many bytes

    async def _pump(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK):
                self.carried[way] += len(data)
                if self.carried[way] > self.holds.get(way, 1 << 60):
                    return
                if way in self.limits:
                    self.limits[way] -= len(data)
                    if self.limits[way] < 0:
                        del self.limits[way]
                        await (self.reading.has_all(writer) if way == "send" else read_all(writer))
                        self.cut()
                        return
                writer.write(data)
                await writer.drain()
            writer.close()
        except ConnectionError:
            return


@pytest_asyncio.fixture
async def wire(site: Site, reading: Reading) -> AsyncIterator[Counted]:
    made = Counted(site.server.port, reading)
    await made.start()
    yield made
    await made.stop()


def freight(site: Site, wire: Counted) -> HttpsFreight:
    return HttpsFreight("127.0.0.1", wire.port, site.context(), MemoryBlobs())


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel finds every line slow."""
    monkeypatch.setattr(thin_lines, "NEAR_S", 0.0)


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("cut_at", [30_000, BLOCK + 50_000, 3 * BLOCK + 60_000])
async def test_a_cut_fetch_goes_on_at_the_byte(site: Site, wire: Counted, cut_at: int) -> None:
    blob, node = site.depot.blobs.put(os.urandom(5 * BLOCK)), freight(site, wire)
    wire.limits["fetch"] = cut_at
    assert (await node.fetch(blob.digest, blob.size)).read(0, blob.size) == blob.read(0, blob.size)
    assert wire.carried["fetch"] < blob.size + SLACK
    await node.close()


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("cut_at", [30_000, BLOCK + 50_000, 3 * BLOCK + 60_000])
async def test_a_cut_upload_goes_on_at_the_byte(site: Site, wire: Counted, cut_at: int) -> None:
    body, node = body_of(5 * BLOCK), freight(site, wire)
    wire.limits["send"] = cut_at
    assert (await node.send(manifest_of(body), body)).digest == body.digest
    assert wire.carried["send"] < body.size + SLACK
    await node.close()


@pytest.mark.usefixtures("far")
async def test_a_fetch_that_was_given_up_goes_on_when_it_is_asked_for_again(
    site: Site, reading: Reading
) -> None:
    blob, wire = site.depot.blobs.put(os.urandom(5 * BLOCK)), Counted(site.server.port, reading)
    await wire.start()
    node = freight(site, wire)
    wire.limits["fetch"] = 3 * BLOCK
    fetching = asyncio.create_task(node.fetch(blob.digest, blob.size))
    while "fetch" in wire.limits:
        await asyncio.sleep(0.01)
    wire._server.close()
    with pytest.raises(Unreachable):
        await fetching
    wire._server = await asyncio.start_server(wire._relay, "127.0.0.1", wire.port)
    await node.fetch(blob.digest, blob.size)
    assert wire.carried["fetch"] < blob.size + SLACK
    await node.close()
    await wire.stop()


async def test_the_parent_says_which_bytes_of_a_frame_it_has(site: Site, reading: Reading) -> None:
    body = body_of(3 * BLOCK)
    manifest, frames = manifest_of(body), frames_of(body)
    head = head_of(manifest)
    cut = await site.line()
    await cut.say(put(len(head) + len(frames)), head + frames[: BLOCK + 32 + 1000])
    await reading.has_all(cut.writer)
    cut.writer.transport.abort()
    line = await site.line()
    answer = await line.ask(put(len(head), body.size), head)
    assert (answer.status, answer.headers["upload-offset"]) == (409, str(BLOCK))
    assert answer.headers["upload-held"] == "1000"
    rest = head + frames[BLOCK + 32 + 1000 :]
    answer = await line.ask(put(len(rest), BLOCK) + "\nUpload-Held: 1000", rest)
    assert decode(Receipt, answer.body).digest == body.digest


async def test_a_sender_that_knows_of_no_held_bytes_begins_at_the_block(site: Site, reading: Reading) -> None:
    """An older one: what was kept is dropped."""
    body = body_of(2 * BLOCK)
    data = head_of(manifest_of(body)) + frames_of(body)
    cut = await site.line()
    await cut.say(put(len(data)), data[:5000])
    await reading.has_all(cut.writer)
    cut.writer.transport.abort()
    line = await site.line()
    answer = await line.ask(put(len(data)), data)
    assert decode(Receipt, answer.body).digest == body.digest


async def test_held_bytes_that_are_not_the_bodys_are_asked_for_again(site: Site, reading: Reading) -> None:
    body = body_of(2 * BLOCK)
    head, frames = head_of(manifest_of(body)), frames_of(body)
    cut = await site.line()
    await cut.say(put(len(head) + len(frames)), head + bytes(1000))
    await reading.has_all(cut.writer)
    cut.writer.transport.abort()
    line = await site.line()
    rest = head + frames[1000:]
    answer = await line.ask(put(len(rest)) + "\nUpload-Held: 1000", rest)
    assert (answer.status, answer.headers["upload-offset"]) == (409, "0")
    assert "upload-held" not in answer.headers
    data = head + frames
    assert (await (await site.line()).ask(put(len(data)), data)).status == 200


async def test_held_bytes_are_not_those_of_a_body_that_says_another_size(
    site: Site, reading: Reading
) -> None:
    body = body_of(2 * BLOCK)
    manifest = manifest_of(body)
    head, frames = head_of(manifest), frames_of(body)
    cut = await site.line()
    await cut.say(put(len(head) + len(frames)), head + frames[:1000])
    await reading.has_all(cut.writer)
    cut.writer.transport.abort()
    small = head_of(msgspec.structs.replace(manifest, size=100, params=100))
    answer = await (await site.line()).ask(put(len(small)) + "\nUpload-Held: 1000", small)
    assert (answer.status, answer.headers["upload-offset"]) == (409, "0")
    assert "upload-held" not in answer.headers


async def test_bytes_kept_after_cuts_are_of_few_uploads(
    site: Site, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(https_server, "TAILS", 2)
    for number in range(1, 5):
        body = body_of(BLOCK)
        data = head_of(manifest_of(body, round=number)) + frames_of(body)
        line = await site.line()
        await line.say(put(len(data)), data[:2000])
        await reading.has_all(line.writer)
        before = set(site.server._tails)
        line.writer.transport.abort()
        while set(site.server._tails) == before:
            await asyncio.sleep(0.01)
    assert len(site.server._tails) == 2


# --- who hardly moves ------------------------------------------------------------------------


async def test_a_sender_that_trickles_is_given_up_and_named(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(https_body, "LEAST_BPS", 1_000_000)
    body = body_of(3 * BLOCK)
    data = head_of(manifest_of(body)) + frames_of(body)
    line = await site.line()
    await line.say(put(len(data)), data[:2000])

    async def trickle() -> None:
        for at in range(2000, len(data)):
            line.writer.write(data[at : at + 1])
            await asyncio.sleep(0.05)

    trickling = asyncio.create_task(trickle())
    assert await line.ended()
    trickling.cancel()
    assert site.depot.refusals == [(PEER, "slow")]


async def test_a_reader_that_stops_is_named(site: Site) -> None:
    blob = site.depot.blobs.put(bytes(64 << 20))
    line = await site.line()
    line.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await line.say(f"GET /v1/blobs/{blob.digest} HTTP/1.1\nHost: x")
    while not site.depot.refusals:
        await asyncio.sleep(0.05)
    assert site.depot.refusals == [(PEER, "slow")]


async def test_a_slow_reader_is_served_for_longer_than_a_stall_lasts(site: Site) -> None:
    """A lot of 512 KiB takes this one twice the time after which who takes nothing is dropped."""
    blob = site.depot.blobs.put(os.urandom(3 << 20))
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    plain.connect(("127.0.0.1", site.server.port))

    def slowly() -> bytes:
        import time

        found = bytearray()
        with site.context().wrap_socket(plain, server_hostname="127.0.0.1") as line:
            line.sendall(f"GET /v1/blobs/{blob.digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            while len(found) < blob.size:
                data = line.recv(16384)
                if not data:
                    break
                found += data
                time.sleep(0.02)
        return bytes(found)

    assert (await asyncio.to_thread(slowly)).endswith(blob.read(blob.size - 1000, 1000))
    assert site.depot.refusals == []
    assert [peer for peer, *_ in site.depot.moved] == [PEER] * len(site.depot.moved) != []


async def test_a_newer_fetch_of_the_same_peer_takes_over(site: Site) -> None:
    """The older one is on a line that died without a word."""
    blob = site.depot.blobs.put(bytes(64 << 20))
    ask = f"GET /v1/blobs/{blob.digest} HTTP/1.1\nHost: x"
    older = await site.line()
    older.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await older.say(ask)
    while not site.server._sending:
        await asyncio.sleep(0.01)
    other = await site.line(site.context("edge-2"))
    await other.say(ask)
    newer = await site.line()
    await newer.say(ask)
    older.writer.transport.resume_reading()  # type: ignore[attr-defined]
    with contextlib.suppress(ConnectionError):
        while await older.reader.read(1 << 20):
            pass
    assert len(await newer.reader.readexactly(1 << 20)) == len(await other.reader.readexactly(1 << 20))


async def test_who_comes_from_another_address_has_left_its_older_connections(site: Site) -> None:
    async def asks(name: str, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        line = await asyncio.open_connection(
            "127.0.0.1", site.server.port, ssl=site.context(name), local_addr=(address, 0)
        )
        line[1].write(b"GET /v1/trust/root.json HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"404" in await line[0].readuntil(b"\r\n\r\n")
        return line

    older, beside, other = [await asks(name, "127.0.0.1") for name in (PEER, PEER, "edge-2")]
    newer = await asks(PEER, "127.0.0.2")
    for reader, writer in (older, beside):
        with contextlib.suppress(ConnectionError):
            await reader.read()  # to its end, which comes
        writer.transport.abort()
    for reader, writer in (other, newer):
        writer.write(b"GET /v1/trust/root.json HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"404" in await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()


async def test_a_node_that_lost_its_address_gives_up_its_line_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would wait for two minutes for an answer that cannot come."""

    async def never(peer: str, digest: str) -> Blob:
        await asyncio.sleep(60)
        raise AssertionError

    site.depot.blob = never  # type: ignore[method-assign]
    monkeypatch.setattr(https_line, "LOOK_S", 0.05)
    monkeypatch.setattr(thin_lines, "has_address", lambda _sock: False)
    node = site.freight()
    with pytest.raises(Unreachable, match="another address"):
        await asyncio.wait_for(node.fetch("a" * 64, 10), 10)
    await node.close()


# --- what the kernel says --------------------------------------------------------------------


def test_an_address_that_this_machine_has_not_is_found_out() -> None:
    class Gone:
        family = socket.AF_INET

        def getsockname(self) -> tuple[str, int]:
            return ("203.0.113.7", 4711)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert thin_lines.has_address(listening)
    assert not thin_lines.has_address(Gone())  # type: ignore[arg-type]


def test_what_the_other_side_took_is_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname())
        far, _ = listening.accept()
        with near, far:
            before = thin_lines.acknowledged(near)
            near.sendall(bytes(5000))
            assert far.recv(5000, socket.MSG_WAITALL) == bytes(5000)
            after = thin_lines.acknowledged(near)
            assert before is not None
            assert after == before + 5000
    assert thin_lines.acknowledged(near) is None


def test_records_are_small_until_the_line_has_shown_that_it_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert thin_lines.Pieces(listening, 10**6, 0.0).next(0.0) == 10**6, "an answer came at once"
        monkeypatch.setattr(thin_lines, "NEAR_S", -1.0)
        slow, fast = (thin_lines.Pieces(listening, 10**6, 0.0) for _ in range(2))
    for second in range(1, 1000):
        slow.sent(8_000)
        fast.sent(2_000_000)
        assert slow.next(second) == thin_lines.PIECE
        assert fast.next(second) == 10**6


def test_what_is_acknowledged_shows_that_a_line_is_fast_and_what_waits_before_it_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    acknowledged = [1000]
    monkeypatch.setattr(thin_lines, "acknowledged", lambda _sock: acknowledged[-1])
    pieces = thin_lines.Pieces(None, 10**6, 0.0)
    pieces.sent(10**6)
    acknowledged.append(1000 + thin_lines.BURST)
    assert pieces.next(0.0) == thin_lines.PIECE, "as much may come back from a slow line's queue"
    acknowledged.append(1000 + thin_lines.BURST + 100_001)
    assert pieces.next(0.1) == 10**6
    assert pieces.next(0.2) == thin_lines.PIECE, "it has become slow"


def test_much_waits_in_the_kernel_only_while_the_line_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(sock: socket.socket) -> int:
        return sock.getsockopt(socket.IPPROTO_TCP, 25)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thin_lines.Pieces(listening, 10**6, 0.0).next(0.0)
        assert waits(listening) == thin_lines.UNSENT_FAST
        monkeypatch.setattr(thin_lines, "NEAR_S", -1.0)
        thin_lines.Pieces(listening, 10**6, 0.0).next(1.0)
        assert waits(listening) == thin_lines.UNSENT, "the next transfer finds a slow line"


def test_a_ticket_is_small_and_who_enrols_gets_none(authority: CertificateAuthority) -> None:
    pair = authority.pair("fog", "fog-1")
    context = server_context(pair.certificate, pair.key, pair.authority)
    assert context.num_tickets == 1
    assert context.options & ssl.OP_NO_TICKET, "a number, and not the whole session with its certificate"
    assert server_context(pair.certificate, pair.key, pair.authority, client=False).num_tickets == 0


def test_who_asks_too_often_waits_and_nobody_else_does() -> None:
    pace = Pace(per_s=100.0, burst=10)
    waits = [pace.wait_s("flood", 0.0) for _ in range(1000)]
    assert waits[:11] == [0.0] * 11
    assert abs(waits[-1] - 9.89) < 1e-6
    assert pace.wait_s("edge-1", 0.0) == 0.0
    assert pace.wait_s("flood", 100.0) == 0.0


async def test_what_the_line_carries_is_known_after_a_transfer_each_way(site: Site) -> None:
    node, body, blob = site.freight(), body_of(5 * BLOCK), site.depot.blobs.put(os.urandom(5 * BLOCK))
    began = node.rates
    await node.fetch(blob.digest, blob.size)
    came = node.rates
    await node.send(manifest_of(body), body)
    went = node.rates
    assert (began, came) == (Rates(), Rates(None, came.down)), "nothing was sent yet"
    assert went.up is not None
    assert went.up > 1_000_000, "loopback"
    assert (came.down or 0) > 100_000
    await node.close()


@pytest.mark.usefixtures("far")
async def test_what_is_slow_to_come_is_told_of_and_the_line_is_busy_until_it_is_there(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(https_client, "TOLD_S", 0.0)
    node, blob = site.freight(), site.depot.blobs.put(os.urandom(5 * BLOCK))
    told: list[tuple[str, int, int]] = []
    busy: list[bool] = []

    def comes(*word: object) -> None:
        told.append(word)  # type: ignore[arg-type]
        busy.append(node.is_busy())

    node.on_comes = comes
    await node.fetch(blob.digest, blob.size)
    assert all(word[::2] == (blob.digest, blob.size) for word in told)
    came = [done for _, done, _ in told]
    assert came == sorted(came)
    assert came[-1] == blob.size
    assert all(busy)
    assert busy
    assert node.is_busy() is False
    await node.close()


def test_a_transfer_over_a_cut_line_is_busy_for_a_moment_and_not_for_ever() -> None:
    job = https_line.Job()
    assert not job.moved(0.0), "not a byte of it yet"
    job._moved_s = 5.0
    assert job.moved(5.0 + https_line.MOVING_S - 1)
    assert not job.moved(5.0 + https_line.MOVING_S)


#: A node that fetches into a folder until it is killed.
FETCHING = """
import asyncio, sys
from pathlib import Path
from reuna.adapters import https_client
from reuna.adapters.files import FileBlobs
from reuna.adapters.tls import client_context
port, folder, digest, size, *pair = sys.argv[1:]
https_client.TOLD_S = 0.0
blobs = FileBlobs(Path(folder))
node = https_client.HttpsFreight("127.0.0.1", int(port), client_context(*map(Path, pair)), blobs)
node.on_comes = lambda digest, done, size: print(done, flush=True)
asyncio.run(node.fetch(digest, int(size)))
"""


class Kept:
    """A node's folder, a blob above, and a relay that counts what comes down and stops after so much."""

    def __init__(self, site: Site, wire: Counted, folder: Path) -> None:
        self.site, self.wire, self.folder = site, wire, folder
        self.data = os.urandom(5 * BLOCK + 1000)
        self.blob = site.depot.blobs.put(self.data)

    async def killed_after(self, count: int) -> int:
        """A process fetches and is killed when it has told of so many bytes; how many it told of."""
        pair = self.site.authority.pair("edge", PEER)
        words = [str(self.wire.port), str(self.folder), self.blob.digest, str(self.blob.size)]
        fetching = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FETCHING, *words, str(pair.certificate), str(pair.key), str(pair.authority),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert fetching.stdout is not None
        self.wire.holds["fetch"] = count
        done = 0
        while done < count - 14_000:  # the rest is TLS, heads, and a record that is not whole
            done = int(await fetching.stdout.readline())
        fetching.kill()
        await fetching.wait()
        self.wire.holds.clear()
        self.wire.carried["fetch"] = 0
        return done

    async def fetched(self) -> None:
        """By the next process; exactly the blob, and nothing half is left."""
        node = HttpsFreight("127.0.0.1", self.wire.port, self.site.context(), FileBlobs(self.folder))
        got = await node.fetch(self.blob.digest, self.blob.size)
        await node.close()
        assert got.read(0, got.size) == self.data
        assert [path.name for path in self.folder.iterdir()] == [self.blob.digest]


@pytest.fixture
def kept(site: Site, wire: Counted, tmp_path: Path) -> Kept:
    return Kept(site, wire, tmp_path / "blobs")


@pytest.mark.usefixtures("far")
async def test_a_fetch_whose_process_is_killed_goes_on_at_the_byte_in_the_next(kept: Kept) -> None:
    done = await kept.killed_after(3 * BLOCK + 20_000)
    await kept.fetched()
    assert kept.wire.carried["fetch"] < kept.blob.size - done + SLACK


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("at", [100, 2 * BLOCK + 5, 3 * BLOCK + 5])
async def test_what_a_dead_process_left_is_believed_as_far_as_it_is_good(kept: Kept, at: int) -> None:
    """Planted: a byte of the half is another one, as after a power cut."""
    await kept.killed_after(3 * BLOCK + 20_000)
    (half,) = kept.folder.iterdir()
    data = bytearray(half.read_bytes())
    data[at] ^= 1
    half.write_bytes(data)
    await kept.fetched()
    assert kept.wire.carried["fetch"] > kept.blob.size - at - SLACK


async def test_a_half_of_more_bytes_than_the_blob_has_is_cut(kept: Kept) -> None:
    kept.folder.mkdir()
    (kept.folder / f"{kept.blob.digest}.half").write_bytes(kept.data + b"more")
    await kept.fetched()
    assert kept.wire.carried["fetch"] < SLACK, "its list of blocks alone"
