"""Certificate after certificate that must not get in, against the real servers, and both logs say why.

A site's nats-server and its freight server take the edges plant-1 and plant-2 of site north in fleet
demo. The site's authority is as constrained as `CertificateAuthority.site` makes it.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage

from reuna.adapters.certificates import CertificateAuthority, flaw
from reuna.adapters.clock import SystemClock
from reuna.adapters.https_server import serve_depot
from reuna.adapters.nats_bus import NatsBus
from reuna.adapters.nats_server import LeafConfig, NatsServer, find_server
from reuna.adapters.register import Register
from reuna.adapters.tls import client_context, server_context
from reuna.core.errors import BusDown, PermissionDenied
from reuna.exchange.admission import Admission
from reuna.fleet.ports import free_ports
from reuna.sim.freight import PlainDepot
from reuna.sim.storage import MemoryBlobs, MemorySpool
from tests.system.craft import (
    GOOD,
    HOUR,
    NOW,
    Signer,
    Wish,
    flipped,
    make,
    save,
    sub_authority,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.system]
HOST = "127.0.0.1"


@dataclass
class Lab:
    """A fleet's authorities, and the two servers of site north."""

    folder: Path
    root: CertificateAuthority
    north: CertificateAuthority
    south: CertificateAuthority
    nats: NatsServer
    config: LeafConfig
    https_port: int

    @property
    def by_root(self) -> Signer:
        return Signer.of(self.root)

    @property
    def by_north(self) -> Signer:
        return Signer.of(self.north)

    @property
    def by_south(self) -> Signer:
        return Signer.of(self.south)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    root = CertificateAuthority.create(folder / "ca", "demo")
    north = root.site(folder / "north", "north", [HOST])
    south = root.site(folder / "south", "south", [HOST])
    own = north.issue("gateway", "north", [HOST])
    register = Register(folder / "register.sqlite")
    register.revoke("plant-2", 1.0, "stolen")
    admission = Admission("demo", "edge", "north", register, ["plant-1", "plant-2"], SystemClock())
    names = tuple(sorted(admission.names))
    config = LeafConfig("demo", "north", names, HOST, free_ports(1)[0], own)
    nats = NatsServer(find_server(), config, folder / "nats")
    await nats.start()
    server = await serve_depot(
        PlainDepot(MemoryBlobs(), MemorySpool()), HOST, 0,
        server_context(own.certificate, own.key, own.authority, flaw=flaw), admit=admission.admit,
    )  # fmt: skip
    yield Lab(folder, root, north, south, nats, config, server.port)
    await server.stop()
    await nats.stop()


# --- trying ----------------------------------------------------------------------------------


def careless(lab: Lab, file: Path | None) -> ssl.SSLContext:
    """A client that shows whatever it has; it still believes only the fleet's root."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.load_verify_locations(lab.root.certificate)
    if file is not None:
        context.load_cert_chain(file)
    return context


async def over_https(lab: Lab, context: ssl.SSLContext) -> str:
    """What the client hears; empty when it was let through."""

    def ask() -> str:
        line = http.client.HTTPSConnection(HOST, lab.https_port, timeout=10, context=context)
        try:
            line.request("GET", "/v1/blobs/" + "0" * 64)
            answer = line.getresponse()
            said = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        finally:
            line.close()
        return said if answer.status == 403 else ""

    return await asyncio.to_thread(ask)


async def over_nats(lab: Lab, context: ssl.SSLContext) -> str:
    """The same at the nats-server."""
    url = f"tls://{HOST}:{lab.config.port}"
    try:
        bus = await NatsBus.connect(url, context, "plant-1", timeout_s=3.0)
    except (PermissionDenied, BusDown) as error:
        return repr(error)
    await bus.close()
    return ""


# --- the clients' certificates ---------------------------------------------------------------

Made = tuple[bytes, Any, tuple[x509.Certificate, ...]]
Craft = Callable[[Lab], Made]


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def by_north(**wish: Any) -> Craft:
    def craft(lab: Lab) -> Made:
        certificate, key = make(lab.by_north, Wish(**wish))
        return pem(certificate), key, lab.by_north.chain

    return craft


def by_root(**wish: Any) -> Craft:
    def craft(lab: Lab) -> Made:
        certificate, key = make(lab.by_root, Wish(**wish))
        return pem(certificate), key, ()

    return craft


def by_stranger(lab: Lab) -> Made:
    other = CertificateAuthority.create(lab.folder / f"ca-{len(list(lab.folder.iterdir()))}", "demo")
    site = other.site(other.folder / "north", "north")
    certificate, key = make(Signer.of(site), Wish())
    return pem(certificate), key, Signer.of(site).chain


def self_signed(lab: Lab) -> Made:
    certificate, key = make(None, Wish())
    return pem(certificate), key, ()


def by_south(lab: Lab) -> Made:
    certificate, key = make(lab.by_south, Wish(uris=["spiffe://south.demo/edge/plant-1"]))
    return pem(certificate), key, lab.by_south.chain


def too_long(lab: Lab) -> Made:
    below = sub_authority(lab.by_north, "north")
    certificate, key = make(below, Wish())
    return pem(certificate), key, below.chain


def unconstrained_below(lab: Lab) -> Made:
    """The site's authority tries to make one that is held to nothing."""
    below = sub_authority(lab.by_north, None)
    certificate, key = make(below, Wish(uris=["spiffe://demo/cloud/cloud"]))
    return pem(certificate), key, below.chain


def without_the_middle(lab: Lab) -> Made:
    certificate, key = make(lab.by_north, Wish())
    return pem(certificate), key, ()


def of_an_ended_authority(lab: Lab) -> Made:
    below = sub_authority(lab.by_root, "north", begins=NOW - 3 * HOUR, ends=NOW - HOUR, path_length=0)
    certificate, key = make(below, Wish(begins=NOW - 2 * HOUR))
    return pem(certificate), key, below.chain


def of_an_authority_that_is_none(lab: Lab) -> Made:
    """An edge signs for another with its own key."""
    edge, edge_key = make(lab.by_north, Wish())
    certificate, key = make(Signer(edge, edge_key), Wish(uris=["spiffe://north.demo/edge/plant-2"]))
    return pem(certificate), key, (edge, *lab.by_north.chain)


def tampered_signature(lab: Lab) -> Made:
    certificate, key = make(lab.by_north, Wish())
    return flipped(certificate, -1), key, lab.by_north.chain


def tampered_name(lab: Lab) -> Made:
    certificate, key = make(lab.by_north, Wish(uris=["spiffe://north.demo/edge/plant-0"]))
    der = certificate.public_bytes(serialization.Encoding.DER)
    return flipped(certificate, der.index(b"plant-0") + 6), key, lab.by_north.chain


def authority_itself(lab: Lab) -> Made:
    return pem(lab.by_north.certificate), lab.by_north.key, ()


def root_itself(lab: Lab) -> Made:
    return pem(lab.by_root.certificate), lab.by_root.key, ()


def edge_of(uri: str) -> Craft:
    return by_north(uris=[uri])


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")
# What our log says of it, as OpenSSL words it since 1.1, and what the line of a nats-server says.
ISSUER = "unable to get local issuer certificate"
SELF = "self.signed certificate"
ENDED = "certificate has expired"
SUBTREE = "permitted subtree violation"
PURPOSE = "unsu(itable|pported) certificate purpose"
BAD_SIGNATURE = "certificate signature failure"
UNHANDLED = "unhandled critical extension"
FORM = "is not an identity of the form"
STRANGER = "certificate signed by unknown authority"
CONSTRAINT = "is not permitted by any constraint"
TOO_DEEP = "too many intermediates for path length constraint"
AUTH = "authentication error"  #: it shook hands, and says no more of why it knows no such user


class Case(NamedTuple):
    """A certificate that must not get in, and the cause by each side's log."""

    craft: Craft
    ours: str
    theirs: str


REFUSED: dict[str, Case] = {
    "of a stranger's authority with our names": Case(by_stranger, ISSUER, STRANGER),
    "self-signed": Case(self_signed, SELF, STRANGER),
    "expired": Case(by_north(begins=NOW - 3 * HOUR, ends=NOW - HOUR), ENDED, "is after"),
    "not yet valid": Case(
        by_north(begins=NOW + HOUR, ends=NOW + 2 * HOUR), "certificate is not yet valid", "is before"
    ),
    "without an identity": Case(by_north(uris=[], hosts=[HOST]), "names 0 identities", AUTH),
    "without any name": Case(by_north(names=False), "names 0 identities", AUTH),
    "of two others": Case(
        by_north(uris=["spiffe://north.demo/edge/plant-8", "spiffe://north.demo/edge/plant-9"]),
        "names 2 identities",
        AUTH,
    ),
    "of a name that nobody invited": Case(
        edge_of("spiffe://north.demo/edge/plant-9"), "edge/plant-9 is not admitted here", AUTH
    ),
    "of an edge without its site": Case(
        by_root(uris=["spiffe://demo/edge/plant-1"]), "demo/edge/plant-1 is not admitted here", AUTH
    ),
    "of another fleet": Case(
        by_root(uris=["spiffe://north.other/edge/plant-1"]),
        "north.other/edge/plant-1 is not admitted here",
        AUTH,
    ),
    "of another site by its own authority": Case(
        by_south, "south.demo/edge/plant-1 is not admitted here", AUTH
    ),
    "of another site by this site's authority": Case(
        edge_of("spiffe://south.demo/edge/plant-1"), SUBTREE, CONSTRAINT
    ),
    "of the fleet by this site's authority": Case(edge_of("spiffe://demo/edge/plant-1"), SUBTREE, CONSTRAINT),
    "of the fog by its site's authority": Case(edge_of("spiffe://demo/fog/north"), SUBTREE, CONSTRAINT),
    "of the cloud by a site's authority": Case(edge_of("spiffe://demo/cloud/cloud"), SUBTREE, CONSTRAINT),
    "of an operator by a site's authority": Case(edge_of("spiffe://north.demo/operator/op"), FORM, AUTH),
    "with a foreign host by a site's authority": Case(by_north(hosts=["cloud.example"]), SUBTREE, CONSTRAINT),
    "with a foreign address by a site's authority": Case(by_north(hosts=["10.9.8.7"]), SUBTREE, CONSTRAINT),
    "with a deeper path": Case(edge_of(GOOD + "/more"), FORM, AUTH),
    "with another scheme": Case(edge_of("https://north.demo/edge/plant-1"), FORM, AUTH),
    "with a port in its name": Case(edge_of("spiffe://north.demo:1/edge/plant-1"), FORM, AUTH),
    "with a query in its name": Case(edge_of(GOOD + "?x=1"), FORM, AUTH),
    "for servers only": Case(by_north(usages=[Usage.SERVER_AUTH]), PURPOSE, "incompatible key usage"),
    "for signing code": Case(by_north(usages=[Usage.CODE_SIGNING]), PURPOSE, "incompatible key usage"),
    "below an authority too deep": Case(too_long, "path length constraint exceeded", TOO_DEEP),
    "below an unconstrained authority of a site": Case(
        unconstrained_below, "path length constraint exceeded", TOO_DEEP
    ),
    "without the authority between": Case(without_the_middle, ISSUER, STRANGER),
    "of an authority that has ended": Case(of_an_ended_authority, ENDED, "is after"),
    "signed by another edge": Case(of_an_authority_that_is_none, "invalid CA certificate", STRANGER),
    "with a tampered signature": Case(tampered_signature, BAD_SIGNATURE, STRANGER),
    "with a tampered name": Case(tampered_name, BAD_SIGNATURE, STRANGER),
    "of the site's authority itself": Case(authority_itself, PURPOSE, AUTH),
    "of the root itself": Case(root_itself, PURPOSE, AUTH),
    "with a critical extension of nobody": Case(by_north(extra=UNKNOWN), UNHANDLED, UNHANDLED),
    "revoked": Case(edge_of("spiffe://north.demo/edge/plant-2"), "edge/plant-2 is not admitted here", AUTH),
}


async def test_the_good_one_gets_in_everywhere(lab: Lab, tmp_path: Path) -> None:
    context = careless(lab, save(tmp_path, *by_north()(lab)))
    assert await over_https(lab, context) == ""
    assert await over_nats(lab, context) == ""


@pytest.mark.parametrize("variant", REFUSED)
async def test_a_certificate_is_refused_and_both_sides_say_why(
    lab: Lab, tmp_path: Path, variant: str, caplog: pytest.LogCaptureFixture
) -> None:
    case = REFUSED[variant]
    context = careless(lab, save(tmp_path, *case.craft(lab)))
    heard, said = await heard_and_said(lab, context, caplog)
    assert heard, f"{variant}: let in over HTTPS"
    assert re.search(rf"{case.ours}|\balert\b|reset by peer", heard), heard
    assert any(re.search(case.ours, line) for line in said), (heard, said)
    seen = lab.nats.log_file.stat().st_size
    heard = await over_nats(lab, context)
    assert heard, f"{variant}: let in by the nats-server"
    kind = AUTH if case.theirs == AUTH else f"TLS handshake error: .*{case.theirs}"
    assert await logged(lab, seen, kind), lab.nats.log_file.read_bytes()[seen:]


async def heard_and_said(
    lab: Lab, context: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> tuple[str, list[str]]:
    """What the client hears over HTTPS, and what our log says of it."""
    with caplog.at_level(logging.INFO):
        heard = await over_https(lab, context)
    return heard, [r.getMessage() for r in caplog.records if r.name in {"reuna.tls", "reuna.admission"}]


async def logged(lab: Lab, seen: int, words: str) -> bool:
    """Whether the server says so; it may write its line after it has told the client."""
    end = time.monotonic() + 10
    while not re.search(words, lab.nats.log_file.read_bytes()[seen:].decode(errors="replace")):
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.02)
    return True


ONLY_HTTPS: dict[str, tuple[Craft, str]] = {
    "of two, one of them good": (
        by_north(uris=[GOOD, "spiffe://north.demo/edge/plant-9"]),
        "names 2 identities",
    ),
    "without a key identifier": (by_north(aki=False), "Missing Authority Key Identifier"),
    "of an authority, as a client": (by_north(ca=True), "is an authority's and no node's"),
    "for no purpose": (by_north(usages=None), "does not say what it is for"),
    "not for signing": (by_north(signs=False), PURPOSE),
    "with a key of another kind": (
        by_north(key=rsa.generate_private_key(65537, 2048)),
        "a key of a kind that is not certified",
    ),
    "with a key of 1024 bits": (
        by_north(key=rsa.generate_private_key(65537, 1024)),
        "EE certificate key too weak",
    ),
}


@pytest.mark.parametrize("variant", ONLY_HTTPS)
async def test_what_a_nats_server_cannot_see_is_refused_over_https_and_never_signed_by_us(
    lab: Lab, tmp_path: Path, variant: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Our authorities sign none of these: see tests/unit/exchange/test_enrolment.py."""
    craft, why = ONLY_HTTPS[variant]
    heard, said = await heard_and_said(lab, careless(lab, save(tmp_path, *craft(lab))), caplog)
    assert heard
    assert any(re.search(why, line) for line in said), (heard, said)


async def test_nobody_comes_in_without_a_certificate_or_with_an_older_protocol(
    lab: Lab, tmp_path: Path
) -> None:
    older = careless(lab, save(tmp_path, *by_north()(lab)))
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    for context in (careless(lab, None), older):
        assert await over_https(lab, context)
        assert await over_nats(lab, context)


BROKEN = {
    "empty": lambda good: b"",
    "garbage": lambda good: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "cut": lambda good: good[: len(good) // 2],
    "no key": lambda good: good[good.index(b"-----BEGIN CERT") :],
    "binary": lambda good: bytes(range(256)),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_file_is_an_error_where_it_lies(lab: Lab, tmp_path: Path, kind: str) -> None:
    file = save(tmp_path, *by_north()(lab))
    file.write_bytes(BROKEN[kind](file.read_bytes()))
    with pytest.raises(OSError):
        client_context(file, file, lab.root.certificate)


async def test_the_key_of_another_certificate_is_an_error_where_it_lies(lab: Lab, tmp_path: Path) -> None:
    certificate, _, chain = by_north()(lab)
    file = save(tmp_path, certificate, ec.generate_private_key(ec.SECP256R1()), chain)
    with pytest.raises(ssl.SSLError, match="MISMATCH"):
        client_context(file, file, lab.root.certificate)


# --- the servers' certificates ---------------------------------------------------------------

GATEWAY = "spiffe://north.demo/gateway/north"
SERVES = [Usage.CLIENT_AUTH, Usage.SERVER_AUTH]


def server(**wish: Any) -> Craft:
    return by_north(**{"uris": [GATEWAY], "hosts": [HOST], "usages": SERVES, **wish})


def by_south_for(uri: str, host: str) -> Craft:
    def craft(lab: Lab) -> Made:
        certificate, key = make(lab.by_south, Wish(uris=[uri], hosts=[host], usages=SERVES))
        return pem(certificate), key, lab.by_south.chain

    return craft


def stranger_server(lab: Lab) -> Made:
    certificate, key = make(None, Wish(uris=[GATEWAY], hosts=[HOST], usages=SERVES))
    return pem(certificate), key, ()


IMPOSTORS: dict[str, tuple[Craft, str]] = {
    "under another host": (server(hosts=["localhost"]), "IP address mismatch"),
    "under a host that its site may not have": (server(hosts=[HOST, "cloud.example"]), SUBTREE),
    "expired": (server(begins=NOW - 3 * HOUR, ends=NOW - HOUR), ENDED),
    "not yet valid": (server(begins=NOW + HOUR, ends=NOW + 2 * HOUR), "certificate is not yet valid"),
    "self-signed": (stranger_server, SELF),
    "for clients only": (server(usages=[Usage.CLIENT_AUTH]), PURPOSE),
    "an edge of the same site": (
        server(uris=[GOOD]),
        "the server is .*/edge/plant-1, expected gateway north",
    ),
    "another gateway of the same authority": (
        server(uris=["spiffe://north.demo/gateway/other"]),
        "the server is .*/gateway/other, expected gateway north",
    ),
    "the gateway of another site": (
        by_south_for("spiffe://south.demo/gateway/south", HOST),
        "the server is .*/gateway/south, expected gateway north",
    ),
    "another site's authority in our gateway's name": (by_south_for(GATEWAY, HOST), SUBTREE),
    "the cloud": (
        by_root(uris=["spiffe://demo/cloud/cloud"], hosts=[HOST], usages=SERVES),
        "the server is .*/cloud/cloud, expected gateway north",
    ),
    "nobody": (server(uris=[]), "names 0 identities"),
    "two": (server(uris=[GATEWAY, GOOD]), "names 2 identities"),
}


@pytest.mark.parametrize("variant", IMPOSTORS)
async def test_a_server_that_is_not_the_parent_is_refused_by_both_clients(
    lab: Lab, tmp_path: Path, variant: str
) -> None:
    craft, why = IMPOSTORS[variant]
    file = save(tmp_path, *craft(lab))
    own = lab.north.issue("edge", "plant-1")
    context = client_context(own.certificate, own.key, own.authority, ("gateway", "north"))
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(file)
    listener = await asyncio.start_server(lambda _reader, writer: writer.close(), HOST, 0, ssl=shown)
    port = listener.sockets[0].getsockname()[1]

    def dial() -> None:
        import socket

        with socket.create_connection((HOST, port), 5) as plain:
            context.wrap_socket(plain, server_hostname=HOST).close()

    async with listener:
        with pytest.raises(ssl.SSLCertVerificationError, match=why):  # as the freight client dials
            await asyncio.to_thread(dial)
    config = replace(
        lab.config, port=free_ports(1)[0], tls=replace(lab.config.tls, certificate=file, key=file)
    )
    beside = NatsServer(find_server(), config, tmp_path / "nats")
    await beside.start()
    try:
        with pytest.raises((PermissionDenied, BusDown)):
            bus = await NatsBus.connect(f"tls://{HOST}:{config.port}", context, "plant-1", timeout_s=2.0)
            await bus.close()
    finally:
        await beside.stop()


async def test_the_parent_itself_is_accepted_by_both_clients(lab: Lab) -> None:
    own = lab.north.issue("edge", "plant-1")
    context = client_context(own.certificate, own.key, own.authority, ("gateway", "north"))
    assert await over_https(lab, context) == ""
    assert await over_nats(lab, context) == ""


async def test_an_edge_is_not_admitted_at_the_cloud_and_a_fog_not_at_a_fog(lab: Lab) -> None:
    register = Register(lab.folder / "cloud.sqlite")
    cloud = Admission("demo", "fog", "", register, ["north", "plant-1"], SystemClock())
    fog = Admission("demo", "edge", "north", register, ["north", "plant-1"], SystemClock())

    def shown(uri: str) -> dict[str, Any]:
        return {"subjectAltName": (("URI", uri),), "notAfter": "Jan  1 00:00:00 2099 GMT"}

    assert cloud.admit(shown("spiffe://demo/fog/north")).name == "north"
    assert fog.admit(shown(GOOD)).name == "plant-1"
    for place, uri in (
        (cloud, GOOD),
        (cloud, "spiffe://demo/edge/plant-1"),
        (fog, "spiffe://demo/fog/north"),
        (fog, "spiffe://south.demo/edge/plant-1"),
        (fog, GATEWAY),
    ):
        with pytest.raises(PermissionDenied):
            place.admit(shown(uri))
    with pytest.raises(ConnectionResetError):
        fog.admit({**shown(GOOD), "notAfter": "Jan  1 00:00:00 2020 GMT"})


async def test_the_matrix_is_wide() -> None:
    assert len(REFUSED) + len(ONLY_HTTPS) + len(BROKEN) + len(IMPOSTORS) >= 50
