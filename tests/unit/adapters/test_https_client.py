"""What only the node's side of HTTPS promises."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Generator

import pytest

from reuna.adapters.https_client import TRIES
from reuna.adapters.https_server import serve_depot
from reuna.core.errors import Corrupted, Refused, Unreachable
from reuna.core.ports import Blob, Entry
from reuna.core.records import Contribution, Receipt
from reuna.sim.storage import MemoryBlobs
from reuna.wire import BLOCK
from tests.unit.adapters.depots import Site, body_of, context_of, manifest_of

pytestmark = pytest.mark.asyncio


async def test_one_connection_serves_many_calls(site: Site) -> None:
    freight = site.freight()
    for number in range(1, 4):
        body = body_of(40_000)
        await freight.send(manifest_of(body, round=number), body)
    blob = site.depot.blobs.put(os.urandom(3 * BLOCK))
    await freight.fetch(blob.digest, blob.size)
    assert len(site.server._http.connections) == 1
    await freight.close()


async def test_a_restarted_parent_is_found_again(site: Site) -> None:
    freight, body = site.freight(), body_of(10)
    await freight.send(manifest_of(body), body)
    port = site.server.port
    await site.server.stop()
    context = context_of(site.authority.pair("fog", "fog-1"))
    site.server = await serve_depot(site.depot, "127.0.0.1", port, context)
    assert (await freight.send(manifest_of(body, round=2), body)).round == 2
    await freight.close()


async def test_an_upload_that_is_given_up_ends_its_connection(site: Site) -> None:
    go, began = threading.Event(), threading.Event()

    def judge(manifest: Contribution, body: Blob | None) -> None:
        began.set()
        go.wait(10)

    site.depot.judge = judge  # type: ignore[method-assign]
    freight, body = site.freight(), body_of(10)
    sending = asyncio.create_task(freight.send(manifest_of(body), body))
    await asyncio.to_thread(began.wait, 10)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await asyncio.wait_for(freight.close(), 5)
    go.set()
    while not site.depot.receipts:  # what was begun at the parent is still counted
        await asyncio.sleep(0.01)


class Restless:
    """A receiver that never stands where the sender goes on."""

    asked = 0
    suspended = 0

    def __init__(self) -> None:
        Restless.asked += 1
        self.offset = BLOCK * (Restless.asked % 2)

    def write(self, data: bytes | memoryview, hashes: bytes = b"") -> None:
        raise AssertionError("no block can come")

    def suspend(self) -> None:
        Restless.suspended += 1

    def commit(self) -> Receipt:
        raise AssertionError("nothing can be whole")

    def committing(self) -> Generator[Entry, None, Receipt]:
        raise AssertionError("nothing can be whole")


async def test_a_parent_that_always_asks_for_another_block_is_given_up(site: Site) -> None:
    site.depot.receive = lambda peer, manifest: Restless()  # type: ignore[method-assign]
    freight, body = site.freight(), body_of(2 * BLOCK)
    with pytest.raises(Unreachable, match="asks again"):
        await freight.send(manifest_of(body), body)
    assert Restless.suspended == Restless.asked <= 2 * TRIES + 1
    await freight.close()


class Counting:
    """A body that counts how much of it was read."""

    def __init__(self, body: Blob) -> None:
        self.digest, self.size, self.hashes, self.taken = body.digest, body.size, b"", 0
        self._body = body

    def read(self, offset: int, count: int) -> bytes:
        self.taken += count
        return self._body.read(offset, count)


async def test_a_refusal_stops_the_sender_before_the_end(site: Site) -> None:
    site.depot.largest = BLOCK
    freight, body = site.freight(), Counting(MemoryBlobs().put(bytes(64 << 20)))
    with pytest.raises(Refused):
        await freight.send(manifest_of(body), body)
    assert body.taken < body.size // 2
    await freight.close()


async def test_a_list_of_blocks_of_another_blob_is_found_out_first(site: Site) -> None:
    blob = site.depot.blobs.put(os.urandom(3 * BLOCK))
    blob.hashes = bytes(3 * 32)
    freight = site.freight()
    with pytest.raises(Corrupted, match="list of blocks"):
        await freight.fetch(blob.digest, blob.size)
    await freight.close()


async def test_a_list_made_from_a_bad_read_is_not_kept(site: Site) -> None:
    blob, reads = site.depot.blobs.put(os.urandom(3 * BLOCK)), 0

    class Once(Counting):
        def read(self, offset: int, count: int) -> bytes:
            nonlocal reads
            reads += 1
            return bytes(count) if reads == 1 else super().read(offset, count)

    bad_once = Once(blob)

    async def give(peer: str, digest: str) -> Blob:
        return bad_once

    site.depot.blob = give  # type: ignore[method-assign]
    freight = site.freight()
    assert (await freight.fetch(blob.digest, blob.size)).digest == blob.digest
    await freight.close()


async def test_the_nodes_side_does_without_a_server() -> None:
    code = "import sys, reuna.adapters.https_client; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
