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


<<<<<<< ours
async def test_an_upload_has_two_blocks_in_memory_at_most(
=======
# --- the node's side -------------------------------------------------------------------------


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


def nameless_context(authority: CertificateAuthority, folder: Path) -> ssl.SSLContext:
    """A client whose certificate is of the authority but has no URI."""
    root_key = serialization.load_pem_private_key((authority.folder / "authority.key").read_bytes(), None)
    assert isinstance(root_key, ec.EllipticCurvePrivateKey)
    root = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    pair = authority.pair("edge", PEER)
    known = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(known.subject)
        .issuer_name(root.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(known.not_valid_before_utc)
        .not_valid_after(known.not_valid_after_utc)
    )
    for extension in known.extensions:
        if extension.oid not in (
            x509.oid.ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
            x509.oid.ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ):
            builder = builder.add_extension(extension.value, extension.critical)
    names = x509.SubjectAlternativeName([x509.DNSName("nobody")])
    ski = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = builder.add_extension(names, False).add_extension(ski, False)
    certificate = builder.sign(root_key, hashes.SHA256())
    (folder / "c.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "c.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return client_context(folder / "c.crt", folder / "c.key", authority.certificate)


# --- what the operator sees, and one peer among many ----------------------------------------------


async def test_one_peer_cannot_take_all_connections(
    patient_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site, asks = patient_site, "GET /v1/trust/timestamp.json HTTP/1.1\nHost: x"
    crowd = [await site.line() for _ in range(CONNECTIONS_PER_PEER + 3)]
    other = await site.line(site.context("edge-2"))
    ends = [await line.ended() for line in crowd[CONNECTIONS_PER_PEER:]]
    assert all(ends)
    for line in (crowd[0], crowd[CONNECTIONS_PER_PEER - 1], other):
        assert (await line.ask(asks)).status == 404
    assert f"dropped a connection of {PEER}: it has more than" in caplog.text


async def test_who_was_refused_what_stands_in_the_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    line = await site.line()
    assert (await line.ask("GET /v1/trust/..%2f..%2fledger.key HTTP/1.1\nHost: x")).status == 404
    assert f"refused {PEER}: R306: nothing is at '/v1/trust/../../ledger.key'; 1 times" in caplog.text
    message = (2**31).to_bytes(4, "little")
    assert reason(await line.ask(put(len(message)), message)) == "oversized"
    assert f"refused {PEER}: oversized: a manifest of 2147483648 bytes" in caplog.text


# --- windows -------------------------------------------------------------------------------------


def doubtful(project: str = "big") -> bytes:
    window = Window(0, 0, 2, {"a": (bytes(16), b"\1\1")})
    return encode(Doubtful(project, 1.0, 10**9, {"a": "bar"}, (window,), 1.0))


async def test_who_asks_about_windows_is_who_its_certificate_says(patient_site: Site) -> None:
    for name in (PEER, "edge-2"):
        freight = patient_site.freight(name)
        assert decode(Opinions, await freight.advise(doubtful())).release == name
        await freight.close()
    assert patient_site.asked.by == [PEER, "edge-2"]


async def test_a_fog_that_refuses_windows_says_why(patient_site: Site) -> None:
    freight = patient_site.freight()
    with pytest.raises(Refused) as told:
        await freight.advise(doubtful("other"))
    assert told.value.reason == "no-model"
    await freight.close()


@pytest.mark.parametrize("body", [b"", b"\1\x09\xff", encode(Opinions(7, "x", ()))])
async def test_windows_that_cannot_be_read_reach_no_model(patient_site: Site, body: bytes) -> None:
    line = await patient_site.line()
    found = await line.ask(f"POST /v1/windows HTTP/1.1\nHost: x\nContent-Length: {len(body)}", body)
    assert found.status == 422
    assert patient_site.asked.by == []


async def test_too_many_windows_are_refused_before_they_are_read(patient_site: Site) -> None:
    line = await patient_site.line()
    found = await line.ask(f"POST /v1/windows HTTP/1.1\nHost: x\nContent-Length: {LIMITS[Doubtful] + 1}")
    assert found.status == 422
    assert b"oversized" in found.body


async def test_a_parent_that_answers_no_windows_is_unreachable_for_them(patient_site: Site) -> None:
    patient_site.server._adviser = None
    freight = patient_site.freight()
    with pytest.raises(Unreachable, match="/v1/windows"):
        await freight.advise(doubtful())
    await freight.close()


# --- memory ----------------------------------------------------------------------------------


async def test_an_upload_has_one_block_in_memory_and_what_is_read_of_the_next(
>>>>>>> theirs
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
