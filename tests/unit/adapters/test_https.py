"""What only the HTTPS adapters promise: what is on the wire."""

from __future__ import annotations

import asyncio
import os

import pytest

from reuna.adapters.https_client import HttpsFreight
from reuna.core.errors import BlobNotFound, Refused, Unreachable
from reuna.core.records import Contribution, Receipt
from reuna.core.second import Doubtful, Opinions, Window
from reuna.sim.storage import MemoryBlobs
from reuna.wire import BLOCK, LIMITS, block_hash, decode, encode
from tests.unit.adapters.depots import PEER, Site, body_of, frames_of, head_of, manifest_of, put, reason

pytestmark = pytest.mark.asyncio


async def test_a_range_gives_the_rest_of_a_blob(site: Site) -> None:
    blob = site.depot.blobs.put(os.urandom(3 * BLOCK))
    line = await site.line()
    path = f"GET /v1/blobs/{blob.digest} HTTP/1.1\nHost: x"
    whole = await line.ask(path)
    assert (whole.status, whole.body) == (200, blob.read(0, blob.size))
    rest = await line.ask(f"{path}\nRange: bytes=100-")
    assert (rest.status, rest.body) == (206, blob.read(100, blob.size))
    assert rest.headers["content-range"] == f"bytes 100-{blob.size - 1}/{blob.size}"
    assert (await line.ask(f"{path}\nRange: bytes={blob.size}-")).status == 416
    assert (await line.ask(f"{path}\nRange: bytes=5-7,9-")).status == 200


async def test_a_blob_is_told_of_once_however_many_wait_for_it(site: Site) -> None:
    blob, came = site.depot.blobs.put(b"x" * 100), []
    freight = HttpsFreight(
        "127.0.0.1", site.server.port, site.context(), MemoryBlobs(), lambda *what: came.append(what)
    )
    await asyncio.gather(*(freight.fetch(blob.digest, blob.size) for _ in range(3)))
    await freight.fetch(blob.digest, blob.size)  # held
    with pytest.raises(BlobNotFound):
        await freight.fetch("0" * 64, 5)
    await freight.close()
    assert came == [(blob.digest, 100)]


async def test_the_list_of_blocks_is_their_hashes(site: Site) -> None:
    blob = site.depot.blobs.put(os.urandom(2 * BLOCK + 1))
    line = await site.line()
    answer = await line.ask(f"GET /v1/blobs/{blob.digest}/blocks HTTP/1.1\nHost: x")
    parts = [blob.read(at, BLOCK) for at in range(0, blob.size, BLOCK)]
    assert answer.body == b"".join(map(block_hash, parts))


async def test_an_upload_is_answered_with_the_receipt(site: Site) -> None:
    body = body_of(BLOCK + 5)
    data = head_of(manifest_of(body)) + frames_of(body)
    answer = await (await site.line()).ask(put(len(data)), data)
    assert answer.status == 200
    assert decode(Receipt, answer.body).digest == body.digest


async def test_a_known_contribution_is_answered_before_its_body_comes(site: Site) -> None:
    body = body_of(3 * BLOCK)
    head = head_of(manifest_of(body))
    data = head + frames_of(body)
    line = await site.line()
    first = await line.ask(put(len(data)), data)
    assert await line.ask(put(len(data)), head) == first


async def test_a_wrong_offset_is_answered_with_the_right_one(site: Site) -> None:
    body = body_of(3 * BLOCK)
    head = head_of(manifest_of(body))
    answer = await (await site.line()).ask(put(len(head), body.size), head)
    assert (answer.status, answer.headers["upload-offset"]) == (409, "0")


async def test_a_damaged_block_is_asked_for_again_and_the_good_ones_stay(site: Site) -> None:
    body = body_of(3 * BLOCK)
    head, frames = head_of(manifest_of(body)), bytearray(frames_of(body))
    frames[2 * (BLOCK + 32) + 40] ^= 1
    answer = await (await site.line()).ask(put(len(head) + len(frames)), head + frames)
    assert (answer.status, answer.headers["upload-offset"]) == (409, str(2 * BLOCK))
    data = head + frames_of(body, 2 * BLOCK)
    assert (await (await site.line()).ask(put(len(data), 2 * BLOCK), data)).status == 200


async def test_a_manifest_over_its_limit_is_refused_before_it_is_read(site: Site) -> None:
    length = LIMITS[Contribution] + 1
    answer = await (await site.line()).ask(put(length + 4), length.to_bytes(4, "little"))
    assert (answer.status, reason(answer)) == (422, "oversized")
    assert site.depot.refusals == [(PEER, "oversized")]


@pytest.mark.parametrize("message", [b"", b"\x01\x02nonsense", b"\xff" * 40])
async def test_a_malformed_manifest_is_refused(site: Site, message: bytes) -> None:
    data = len(message).to_bytes(4, "little") + message
    answer = await (await site.line()).ask(put(len(data)), data)
    assert (answer.status, reason(answer)) == (422, "malformed")


@pytest.mark.parametrize("extra", [-1, 1, 1000])
async def test_a_length_that_is_not_the_bodys_is_refused(site: Site, extra: int) -> None:
    body = body_of(1000)
    data = head_of(manifest_of(body)) + frames_of(body)
    length = len(data) + extra
    answer = await (await site.line()).ask(put(length), data[:length])
    assert (answer.status, reason(answer)) == (422, "malformed")


@pytest.mark.parametrize("offset", ["-1", "x", "9" * 40, "\u0663"])
async def test_an_offset_that_is_no_number_is_refused(site: Site, offset: str) -> None:
    body = body_of(10)
    data = head_of(manifest_of(body)) + frames_of(body)
    answer = await (await site.line()).ask(put(len(data), offset), data)
    assert (answer.status, reason(answer)) == (422, "malformed")


@pytest.mark.parametrize("line", ["GET /", "GET /v1/blobs", "POST /v1/contributions", "DELETE /v1/blobs/abc"])
async def test_other_paths_and_methods_are_not_there(site: Site, line: str) -> None:
    assert (await (await site.line()).ask(f"{line} HTTP/1.1\nHost: x")).status == 404


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
