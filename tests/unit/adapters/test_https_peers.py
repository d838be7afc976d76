"""Who may speak to an HTTPS depot, what one peer cannot take from others, and what the operator sees."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.https_client import HttpsFreight
from reuna.adapters.https_server import CONNECTIONS_PER_PEER, serve_depot
from reuna.adapters.tls import client_context
from reuna.core.errors import PermissionDenied, Unreachable
from reuna.core.ports import Blob
from reuna.sim.storage import MemoryBlobs
from tests.unit.adapters.depots import (
    PEER,
    Site,
    body_of,
    context_of,
    frames_of,
    head_of,
    manifest_of,
    put,
    reason,
)

pytestmark = pytest.mark.asyncio


async def test_a_sender_that_is_not_in_the_certificate_is_denied(site: Site) -> None:
    body = body_of(10)
    data = head_of(manifest_of(body, sender="edge-2")) + frames_of(body)
    assert (await (await site.line()).ask(put(len(data)), data)).status == 403
    line = await site.line(site.context("edge-2"))
    assert (await line.ask(put(len(data)), data)).status == 200


async def test_a_certificate_without_an_identity_is_denied(site: Site, tmp_path: Path) -> None:
    context = nameless_context(site.authority, tmp_path)
    answer = await (await site.line(context)).ask("GET /v1/blobs/x HTTP/1.1\nHost: x")
    assert answer.status == 403


async def test_a_connection_without_a_certificate_is_refused(site: Site) -> None:
    context = ssl.create_default_context(cafile=site.authority.certificate)
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await (await site.line(context)).ask("GET / HTTP/1.1\nHost: x")


async def test_a_parent_with_another_hosts_certificate_is_not_spoken_to(site: Site) -> None:
    context = context_of(site.authority.pair("fog", "elsewhere"))
    other = await serve_depot(site.depot, "127.0.0.1", 0, context)
    freight = HttpsFreight("127.0.0.1", other.port, site.context(), MemoryBlobs())
    with pytest.raises(Unreachable, match="certificate"):
        await freight.fetch("a" * 64, 10)
    await freight.close()
    await other.stop()


async def test_a_blob_that_is_not_for_this_node_is_denied(site: Site) -> None:
    async def blob(peer: str, digest: str) -> Blob:
        raise PermissionDenied(f"not for {peer}")

    site.depot.blob = blob  # type: ignore[method-assign]
    freight = site.freight()
    with pytest.raises(PermissionDenied, match=f"not for {PEER}"):
        await freight.fetch("a" * 64, 10)
    await freight.close()


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
