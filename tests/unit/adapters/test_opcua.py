"""OPC UA without a server: certificates that are made and judged, holes in what comes, a missing extra."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from reuna.adapters.clock import SystemClock
from reuna.adapters.opcua.certificates import (
    Trust,
    chain_of,
    judge,
    own_identity,
    read_certificate,
    read_trust,
)
from reuna.adapters.opcua.connection import _password
from reuna.adapters.opcua.files import make_client
from reuna.adapters.opcua.session import Message, ns_at
from reuna.adapters.opcua.source import OpcUaSource
from reuna.cli import app
from reuna.core.errors import ExtraMissing, KeyProblem, NotUsable, Unreachable
from reuna.core.opcua_values import Heard
from reuna.core.sources import Gap
from reuna.sim.clock import InPlace
from tests.opcua import Authority, settings, tag

NOW = datetime.now(UTC)
HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def server_of(folder: Path) -> x509.Certificate:
    return read_certificate(folder / "server.der")


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


@pytest.fixture
def trust(tmp_path: Path, authority: Authority) -> Path:
    """A folder that trusts the authority."""
    folder = tmp_path / "trust"
    folder.mkdir()
    (folder / "plant.pem").write_bytes(pem(authority.certificate))
    (folder / "notes.txt").write_text("no certificate, and none is expected")
    return folder


def test_a_client_is_made_with_a_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    made = make_client(tmp_path / "new", "press", 30)
    found = own_identity(tmp_path / "new" / "client.der", tmp_path / "new" / "client.key", NOW)
    assert found.uri == made["uri"]
    assert found.uri.startswith("urn:")
    assert (tmp_path / "new" / "client.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(KeyProblem, match="there already"):
        make_client(tmp_path / "new", "press", 30)


def test_the_command_says_what_to_do_with_it(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["source", "certificate", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "Let the server trust" in done.stdout
    assert "uri: urn:" in done.stdout
    done = CliRunner().invoke(app, ["source", "certificate", str(tmp_path / "b"), "--json", "--name", "x"])
    assert ":reuna:x:" in json.loads(done.stdout)["uri"]
    done = CliRunner().invoke(app, ["source", "certificate", str(tmp_path), "--server", "http://x"])
    assert "--server must be opc.tcp" in str(done.exception)


def test_a_certificate_and_a_key_may_be_pem_or_der(tmp_path: Path, authority: Authority) -> None:
    authority.server(tmp_path)  # its key is DER
    (tmp_path / "server.pem").write_bytes(pem(server_of(tmp_path)))
    assert own_identity(tmp_path / "server.pem", tmp_path / "server.key", NOW).uri == "urn:press:server"


@pytest.mark.parametrize(
    ("when", "said"),
    [
        (timedelta(days=31), "the certificate ended at"),
        (timedelta(days=-2), "the certificate begins at"),
    ],
)
def test_a_certificate_out_of_its_time_is_told_with_both_times(
    tmp_path: Path, when: timedelta, said: str
) -> None:
    make_client(tmp_path, "press", 30)
    with pytest.raises(KeyProblem, match=said) as told:
        own_identity(tmp_path / "client.der", tmp_path / "client.key", NOW + when)
    assert f"this machine's clock says {NOW + when:%Y-%m-%d}" in str(told.value)


def test_files_that_are_no_certificate_or_key_are_named(tmp_path: Path, authority: Authority) -> None:
    authority.server(tmp_path / "s")
    (tmp_path / "junk").write_bytes(b"junk")
    plain = tmp_path / "plain.der"
    plain.write_bytes(authority.certificate.public_bytes(Encoding.DER))
    key = authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ca.key").write_bytes(key)
    curve = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "curve.key").write_bytes(
        curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    good = tmp_path / "s" / "server.der"
    for certificate, secret, said in (
        (tmp_path / "junk", tmp_path / "ca.key", "junk is no certificate"),
        (good, tmp_path / "junk", "junk is no private key"),
        (good, tmp_path / "curve.key", "is no RSA key"),
        (good, tmp_path / "ca.key", "is not the key of"),
        (plain, tmp_path / "ca.key", "has no application URI"),
    ):
        with pytest.raises(KeyProblem, match=said):
            own_identity(certificate, secret, NOW)
    with pytest.raises(NotUsable):
        own_identity(tmp_path / "nothing", tmp_path / "ca.key", NOW)
    with pytest.raises(NotUsable):
        read_trust("", str(tmp_path / "no-folder"))


def test_a_pinned_certificate_is_trusted_and_no_other(tmp_path: Path, authority: Authority) -> None:
    authority.server(tmp_path / "a", alone=True)
    authority.server(tmp_path / "b", alone=True)
    pinned = read_trust(str(tmp_path / "a" / "server.der"), "")
    judge([server_of(tmp_path / "a")], pinned, "another.host", NOW)
    with pytest.raises(Unreachable, match="it is another one") as told:
        judge([server_of(tmp_path / "b")], pinned, HOST, NOW)
    assert "reuna source certificate" in str(told.value.next_step)


def test_a_server_is_trusted_that_an_authority_of_the_folder_signed_for_its_host(
    tmp_path: Path, authority: Authority, trust: Path
) -> None:
    authority.server(tmp_path / "s")
    authority.server(tmp_path / "named", host="plc.plant")
    judge([server_of(tmp_path / "s")], read_trust("", str(trust)), HOST, NOW)
    judge([server_of(tmp_path / "named")], read_trust("", str(trust)), "plc.plant", NOW)
    with pytest.raises(Unreachable, match="is not trusted by"):
        judge([server_of(tmp_path / "named")], read_trust("", str(trust)), "other.plant", NOW)


def test_a_server_is_trusted_whose_very_certificate_is_in_the_folder(
    tmp_path: Path, authority: Authority, trust: Path
) -> None:
    authority.server(tmp_path / "s", host="elsewhere", alone=True)
    with pytest.raises(Unreachable, match="is not trusted by"):
        judge([server_of(tmp_path / "s")], read_trust("", str(trust)), HOST, NOW)
    (trust / "press.der").write_bytes((tmp_path / "s" / "server.der").read_bytes())
    judge([server_of(tmp_path / "s")], read_trust("", str(trust)), HOST, NOW)


def test_a_server_of_an_unknown_authority_is_not_trusted(tmp_path: Path, trust: Path) -> None:
    Authority().server(tmp_path / "s")
    with pytest.raises(Unreachable, match="is not trusted by"):
        judge([server_of(tmp_path / "s")], read_trust("", str(trust)), HOST, NOW)


def test_what_a_server_signed_is_no_authority(tmp_path: Path, authority: Authority) -> None:
    authority.server(tmp_path / "s", alone=True)
    known = server_of(tmp_path / "s")
    authority.server(tmp_path / "t")
    with pytest.raises(Unreachable, match="no authority is"):
        judge([server_of(tmp_path / "t")], Trust("trust", None, (known,)), HOST, NOW)


def test_a_revoked_certificate_is_not_trusted(tmp_path: Path, authority: Authority, trust: Path) -> None:
    authority.server(tmp_path / "s")
    certificate = server_of(tmp_path / "s")
    (trust / "others.crl").write_bytes(Authority().revoked(certificate))
    judge([certificate], read_trust("", str(trust)), HOST, NOW)  # no list of its own authority
    (trust / "plant.crl").write_bytes(authority.revoked(certificate))
    with pytest.raises(Unreachable, match="its authority has revoked it"):
        judge([certificate], read_trust("", str(trust)), HOST, NOW)
    (trust / "plant.crl").write_bytes(b"junk")
    with pytest.raises(KeyProblem, match="no list of revoked"):
        read_trust("", str(trust))


def test_a_servers_certificate_that_has_ended_is_told_with_both_times(
    tmp_path: Path, authority: Authority, trust: Path
) -> None:
    authority.server(tmp_path / "s", ends=timedelta(days=-1))
    pinned = read_trust(str(tmp_path / "s" / "server.der"), "")
    with pytest.raises(Unreachable, match=r"the certificate ended at .*; this machine's clock says"):
        judge([server_of(tmp_path / "s")], pinned, HOST, NOW)
    with pytest.raises(Unreachable):
        judge([server_of(tmp_path / "s")], read_trust("", str(trust)), HOST, NOW)


def test_a_chain_is_der_after_der(tmp_path: Path, authority: Authority) -> None:
    authority.server(tmp_path)
    one, two = server_of(tmp_path), authority.certificate
    both = one.public_bytes(Encoding.DER) + two.public_bytes(Encoding.DER)
    assert chain_of(both) == [one, two]
    for junk in (b"", None, b"\x30\x82\x00", both[:-5]):
        with pytest.raises(Unreachable):
            chain_of(junk)


def test_a_password_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("a b \nsecond")
    assert _password(tmp_path / "p") == "a b "
    (tmp_path / "p").write_text("\n")
    with pytest.raises(KeyProblem, match="no password in its first line"):
        _password(tmp_path / "p")
    (tmp_path / "p").write_bytes(b"\xff\n")
    with pytest.raises(KeyProblem, match="is not UTF-8"):
        _password(tmp_path / "p")
    with pytest.raises(NotUsable):
        _password(tmp_path / "none")


def test_a_time_of_a_clock_that_was_never_set_is_none() -> None:
    assert ns_at(datetime(1601, 1, 1, tzinfo=UTC)) is None
    assert ns_at(None) is None
    assert ns_at(datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC).replace(tzinfo=None)) == 1_000_005_000


def made() -> OpcUaSource:
    return OpcUaSource(settings("opc.tcp://x", [tag("oil"), tag("heat")]), SystemClock(), InPlace())


def test_readings_that_the_server_threw_away_are_a_gap_of_their_tags() -> None:
    source, heard = made(), Heard()
    before = Heard()
    before.add(0, 5, 1.0, 0)
    source._latest.note(before)
    heard.add(0, 20, 1.0, 0x480)
    heard.add(1, 30, 1.0, 0)
    assert list(source._holes(Message(heard, 1, 40), 0)) == [
        Gap(5, 20, "the server's queue was full", ("oil",))
    ]


def test_notifications_that_never_came_are_a_gap() -> None:
    source = made()
    source._heard_ns = 10
    lost = Gap(10, 40, "notifications of the server are lost")
    assert list(source._holes(Message(Heard(), 4, 40), 2)) == [lost]
    assert list(source._holes(Message(Heard(), 3, 40), 2)) == []
    assert list(source._holes(Message(Heard(), 0, 40), 2)) == []  # a sign of life


async def test_without_its_library_the_next_step_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.startswith("reuna.adapters.opcua.c")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncua", None)
    monkeypatch.delitem(sys.modules, "reuna.adapters.opcua.refusals")
    monkeypatch.delitem(sys.modules, "reuna.adapters.opcua.session")
    monkeypatch.delattr("reuna.adapters.opcua.connection")
    with pytest.raises(ExtraMissing) as told:
        await anext(made().batches())
    assert told.value.next_step == "Run `pip install 'reuna[opcua]'`."
