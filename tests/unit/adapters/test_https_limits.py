"""What stalls is dropped, what is full says so, and what waits in memory stays small."""

from __future__ import annotations

import asyncio
import threading
from asyncio import sslproto

import pytest
from aiohttp import web

from reuna.adapters import https_body
from reuna.adapters.https_body import FRAME
from reuna.adapters.https_client import HttpsFreight
from reuna.adapters.https_server import UPLOADS_PER_PEER, serve_depot
from reuna.adapters.tls import READ, read_in_pieces
from reuna.core.errors import DiskFull, PortInUse, Unreachable
from reuna.core.ports import Blob
from reuna.core.records import Contribution
from reuna.sim.storage import MemoryBlobs, MemoryDisk, MemorySpool
from reuna.wire import BLOCK
from tests.unit.adapters.depots import Site, body_of, context_of, frames_of, head_of, manifest_of, put

pytestmark = pytest.mark.asyncio


async def test_a_connection_that_says_nothing_is_dropped(site: Site) -> None:
    assert await (await site.line()).ended()


async def test_a_sender_that_stalls_is_dropped_and_its_whole_blocks_stay(site: Site) -> None:
    body = body_of(3 * BLOCK)
    manifest = manifest_of(body)
    data = head_of(manifest) + frames_of(body)
    line = await site.line()
    await line.say(put(len(data)), data[:-10])
    assert await line.ended()
    assert site.depot.spool.held(manifest) == 2 * BLOCK


async def test_a_reader_that_stalls_is_dropped(site: Site) -> None:
    blob = site.depot.blobs.put(bytes(64 << 20))
    line = await site.line()
    line.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await line.say(f"GET /v1/blobs/{blob.digest} HTTP/1.1\nHost: x")
    while site.server._http.connections:
        await asyncio.sleep(0.05)


async def test_one_peer_has_few_uploads_at_once_and_others_are_not_touched(site: Site) -> None:
    for _ in range(UPLOADS_PER_PEER):
        await (await site.line()).say(put(1000), b"\x01")
    busy = await site.line()
    while (await busy.ask(put(0))).status != 429:
        await asyncio.sleep(0.01)
    body = body_of(10)
    data = head_of(manifest_of(body, sender="edge-2")) + frames_of(body)
    other = await site.line(site.context("edge-2"))
    assert (await other.ask(put(len(data)), data)).status == 200


async def test_a_newer_upload_takes_over_from_one_that_hangs(patient_site: Site) -> None:
    site = patient_site
    body = body_of(3 * BLOCK)
    manifest = manifest_of(body)
    data = head_of(manifest) + frames_of(body)
    hanging = await site.line()
    await hanging.say(put(len(data)), data[: 2 * BLOCK])
    while not site.server._uploads:
        await asyncio.sleep(0.01)
    freight = site.freight()
    assert (await freight.send(manifest, body)).digest == body.digest
    assert await hanging.ended()
    await freight.close()


async def test_an_upload_that_comes_during_its_own_commit_gets_the_receipt(site: Site) -> None:
    body, go = body_of(1000), threading.Event()

    def judge(manifest: Contribution, body: Blob | None) -> None:
        go.wait(10)

    site.depot.judge = judge  # type: ignore[method-assign]
    freight = site.freight()
    first = asyncio.create_task(freight.send(manifest_of(body), body))
    second = asyncio.create_task(freight.send(manifest_of(body), body))
    await asyncio.sleep(0.2)
    go.set()
    assert await first == await second
    assert len(site.depot.receipts) == 1
    await freight.close()


async def test_a_full_disk_at_the_parent_means_try_again_later(site: Site) -> None:
    site.depot.spool = MemorySpool(MemoryDisk(capacity=100))
    freight, body = site.freight(), body_of(1000)
    with pytest.raises(Unreachable, match="no space left"):
        await freight.send(manifest_of(body), body)
    await freight.close()


async def test_a_full_disk_at_the_node_is_said(site: Site) -> None:
    blob = site.depot.blobs.put(bytes(1000))
    small = MemoryBlobs(MemoryDisk(capacity=10))
    freight = HttpsFreight("127.0.0.1", site.server.port, site.context(), small)
    with pytest.raises(DiskFull):
        await freight.fetch(blob.digest, 1000)
    await freight.close()


async def test_a_port_in_use_is_said(site: Site) -> None:
    context = context_of(site.authority.pair("fog", "fog-1"))
    with pytest.raises(PortInUse, match=str(site.server.port)):
        await serve_depot(site.depot, "127.0.0.1", site.server.port, context)


async def test_an_upload_has_one_block_in_memory_and_what_is_read_of_the_next(
    patient_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    good = https_body.Frame.good

    def noted(frame: https_body.Frame) -> object:
        sizes.append(len(frame._buffer))
        return good(frame)

    monkeypatch.setattr(https_body.Frame, "good", noted)
    freight, body = patient_site.freight(), body_of(20 * BLOCK + 1)
    await freight.send(manifest_of(body), body)
    await freight.close()
    assert len(sizes) == 21
    assert max(sizes) == FRAME


async def test_of_a_body_few_bytes_wait_to_be_read_and_few_go_out_at_a_time(
    patient_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[int] = []
    some = https_body.Source.some

    async def noted(source: https_body.Source, count: int) -> bytes:
        data = await some(source, count)
        waiting.append(source._content.get_read_buffer_limits()[1])
        return data

    monkeypatch.setattr(https_body.Source, "some", noted)
    freight, body = patient_site.freight(), body_of(20 * BLOCK)
    await freight.send(manifest_of(body), body)
    assert max(waiting) <= 2 * BLOCK, "aiohttp lets as much wait as the largest read asked for, twice"

    pieces: list[int] = []
    write = web.StreamResponse.write

    async def noted_write(response: web.StreamResponse, data: bytes) -> None:
        pieces.append(len(data))
        await write(response, data)

    monkeypatch.setattr(web.StreamResponse, "write", noted_write)
    kept = patient_site.depot.blobs.put(body.read(0, body.size))
    await freight.fetch(kept.digest, kept.size)
    await freight.close()
    assert max(pieces) <= BLOCK


async def test_asyncio_reads_little_of_a_line_at_a_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sslproto.SSLProtocol, "max_size", 1 << 18)
    read_in_pieces()
    assert (await (await site.line()).ask("GET /v1/blobs/x HTTP/1.1\nHost: x")).status == 404
    for connection in site.server._http.connections:
        assert len(connection.transport._ssl_protocol.get_buffer(-1)) == READ  # type: ignore[union-attr]
