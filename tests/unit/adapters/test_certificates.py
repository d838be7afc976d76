"""The small authority, and the TLS contexts made of what it issues."""

from __future__ import annotations

import asyncio
import ssl
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from reuna.adapters.certificates import CertificateAuthority, identity_in
from reuna.adapters.tls import (
    KeyPair,
    client_context,
    identity_of,
    parse_identity,
    server_context,
)
from reuna.core.errors import Corrupted, PermissionDenied, SettingsError
from reuna.core.records import Identity

HOST = "127.0.0.1"


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority.create(tmp_path / "pki", "demo")


def read(pair: KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes())


async def shake(server: KeyPair, client: KeyPair, host: str = HOST) -> tuple[Any, Any, str]:
    """Both ends' view of the other's certificate after a handshake, and the protocol spoken."""
    seen: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            seen.set_result(writer.get_extra_info("peercert"))
            writer.write(await reader.readexactly(1))
        finally:
            writer.close()

    context = server_context(server.certificate, server.key, server.authority)
    listener = await asyncio.start_server(serve, HOST, 0, ssl=context)
    async with listener:
        reader, writer = await asyncio.open_connection(
            HOST,
            listener.sockets[0].getsockname()[1],
            ssl=client_context(client.certificate, client.key, client.authority),
            server_hostname=host,
        )
        writer.write(b"x")
        try:
            await reader.readexactly(1)
            spoken = writer.get_extra_info("ssl_object").version()
            return await seen, writer.get_extra_info("peercert"), spoken
        finally:
            writer.close()


def test_keys_are_readable_by_their_owner_only(authority: CertificateAuthority) -> None:
    pair = authority.issue("edge", "plant-1")
    for key in (pair.key, authority.folder / "authority.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_the_identity_is_the_one_uri_of_the_certificate(authority: CertificateAuthority) -> None:
    certificate = read(authority.issue("fog", "north", ["127.0.0.1", "north.example"]))
    assert identity_in(certificate) == Identity("demo", "fog", "north")


def test_a_device_without_hosts_cannot_serve(authority: CertificateAuthority) -> None:
    usages = read(authority.issue("edge", "plant-1")).extensions.get_extension_for_class(
        x509.ExtendedKeyUsage
    )
    assert list(usages.value) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_certificate_lives_for_a_year_unless_told_otherwise(
    authority: CertificateAuthority,
) -> None:
    year = read(authority.issue("edge", "plant-1")).not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=364) < year <= timedelta(days=365)
    hour = authority.issue("edge", "plant-2", lifetime=timedelta(hours=1))
    assert read(hour).not_valid_after_utc - datetime.now(UTC) <= timedelta(hours=1)


def test_key_identifiers_chain_so_that_strict_verification_passes(
    authority: CertificateAuthority,
) -> None:
    root = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    own = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    issued = read(authority.issue("edge", "plant-1")).extensions
    assert issued.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == own


def test_a_loaded_authority_issues_for_the_same_fleet(authority: CertificateAuthority) -> None:
    again = CertificateAuthority.load(authority.folder)
    assert again.fleet == "demo"
    assert identity_in(read(again.issue("edge", "plant-1"))).fleet == "demo"


def test_an_authority_is_never_overwritten(authority: CertificateAuthority) -> None:
    with pytest.raises(SettingsError):
        CertificateAuthority.create(authority.folder, "demo")


def test_an_authority_that_cannot_be_read_says_which_folder(tmp_path: Path) -> None:
    with pytest.raises(Corrupted, match=str(tmp_path)):
        CertificateAuthority.load(tmp_path)


@pytest.mark.parametrize("name", ["", "a/b", "../up", "A", "a.b", "a" * 64])
def test_a_name_that_is_no_name_is_not_certified(authority: CertificateAuthority, name: str) -> None:
    with pytest.raises(SettingsError):
        authority.issue("edge", name)
    with pytest.raises(SettingsError):
        authority.issue(name, "plant-1")


def test_the_longest_names_fit(tmp_path: Path) -> None:
    long = "a" * 63
    authority = CertificateAuthority.create(tmp_path / "pki", long)
    assert identity_in(read(authority.issue(long, long))) == Identity(long, long, long)


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://demo/edge",
        "spiffe://demo/edge/a/b",
        "spiffe://demo/edge/",
        "spiffe:///edge/a",
        "https://demo/edge/a",
        "spiffe://demo/edge/a?x=1",
        "spiffe://demo/edge/a#x",
        "spiffe://demo/edge/A",
        "spiffe://user@demo/edge/a",
        "spiffe://demo:1/edge/a",
        "SPIFFE://demo/edge/a",
        "spiffe://demo/edge/a\n",
    ],
)
def test_text_that_is_nearly_an_identity_is_refused(uri: str) -> None:
    with pytest.raises(PermissionDenied):
        parse_identity(uri)


@pytest.mark.parametrize(
    "names",
    [
        (),
        (("DNS", "spiffe://demo/edge/a"),),
        (("URI", "spiffe://demo/edge/a"), ("URI", "spiffe://demo/edge/b")),
    ],
)
def test_a_peer_without_exactly_one_identity_is_refused(names: tuple[Any, ...]) -> None:
    with pytest.raises(PermissionDenied):
        identity_of({"subjectAltName": names})


def test_a_peer_without_a_certificate_is_refused() -> None:
    with pytest.raises(PermissionDenied):
        identity_of(None)


@pytest.mark.asyncio
async def test_both_ends_learn_who_the_other_is(authority: CertificateAuthority) -> None:
    server, client = authority.issue("fog", "north", [HOST]), authority.issue("edge", "plant-1")
    at_server, at_client, spoken = await shake(server, client)
    assert identity_of(at_server).uri == "spiffe://demo/edge/plant-1"
    assert identity_of(at_client).uri == "spiffe://demo/fog/north"
    assert spoken == "TLSv1.3"


@pytest.mark.asyncio
async def test_a_server_under_another_host_is_refused(authority: CertificateAuthority) -> None:
    server, client = authority.issue("fog", "north", [HOST]), authority.issue("edge", "plant-1")
    with pytest.raises(ssl.SSLCertVerificationError):
        await shake(server, client, "north.example")


@pytest.mark.asyncio
async def test_a_client_of_another_authority_is_refused(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    other = CertificateAuthority.create(tmp_path / "other", "demo").issue("edge", "plant-1")
    pair = KeyPair(other.certificate, other.key, authority.certificate)
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await shake(authority.issue("fog", "north", [HOST]), pair)


@pytest.mark.asyncio
async def test_an_expired_certificate_is_refused(authority: CertificateAuthority) -> None:
    old = authority.issue("fog", "north", [HOST], lifetime=timedelta(minutes=-1))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        await shake(old, authority.issue("edge", "plant-1"))


def test_a_device_needs_no_cryptography_package() -> None:
    code = "import sys, reuna.adapters.tls; print('cryptography' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "False"
