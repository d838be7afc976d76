"""`reuna join` against a real enrolment server: a whole folder or none, and a reason on both sides."""

from __future__ import annotations

import asyncio
import http.client
import logging
import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reuna.adapters import certificates as c
from reuna.adapters.certificates import CertificateAuthority, new_key, request
from reuna.adapters.clock import SystemClock
from reuna.adapters.enrol_client import EstSource, fetch_root
from reuna.adapters.enrol_server import Chain, serve_enrolment
from reuna.adapters.register import Register
from reuna.adapters.tls import server_context
from reuna.adapters.toml_file import read_toml
from reuna.core.errors import NotAdmitted, SettingsError, Unreachable
from reuna.core.settings import parse
from reuna.edge.settings import EDGE
from reuna.exchange import renewal
from reuna.exchange.enrolment import Enrolment, Terms, invite
from reuna.fleet.join import join
from reuna.fog.settings import FOG
from reuna.trust.enrolment import Token

HOST = "127.0.0.1"


class Served:
    """An authority's enrolment server in a thread of its own."""

    def __init__(
        self, folder: Path, authority: CertificateAuthority, role: str, told: dict[str, Any]
    ) -> None:
        self.authority = authority
        self.register = Register(folder / f"{role}.sqlite")
        self.terms = Terms(role, "")
        self.told = told
        self.enrolment = Enrolment(
            authority, self.register, self.terms, lambda _: dict(self.told), tuple, SystemClock()
        )
        self.port = 0
        self.let_in: list[int] = []

    @contextmanager
    def running(self, own: Path) -> Iterator[Served]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        context = server_context(own, own, self.authority.certificate, client=False)
        start = serve_enrolment(self.enrolment, HOST, 0, context, self.in_force)
        server = asyncio.run_coroutine_threadsafe(start, loop).result(10)
        self.port = server.port
        self.terms = Terms(self.terms.role, f"{HOST}:{self.port}")
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()
            self.register.close()

    async def in_force(self, chain: Chain) -> None:
        self.let_in.append(chain[0].serial_number)

    def token(self, name: str, life_s: float = 3600.0) -> Token:
        now = SystemClock().now()
        return invite(self.register, self.authority, self.terms, name, now, life_s)


FOG_TOLD = {
    "fleet": "demo",
    "root_json": "{}",
    "parent": {"name": "cloud", "leaf": "c:7422", "freight_host": "c", "freight_port": 8443},
    "enrol": {"parent": "c:8444", "edges": 3},
}
EDGE_TOLD = {
    "fleet": "demo",
    "root_json": "{}",
    "parent": {"name": "mill-3", "nats": "tls://f:4222", "freight_host": "f", "freight_port": 8443},
    "enrol": {"parent": "f:8444"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    made = CertificateAuthority.create(tmp_path_factory.mktemp("ca"), "demo")
    made.issue("cloud", "cloud", [HOST])
    made.issue("fog", "impostor", [HOST])
    return made


@pytest.fixture
def cloud(tmp_path: Path, root: CertificateAuthority) -> Iterator[Served]:
    made = Served(tmp_path, root, "fog", FOG_TOLD)
    with made.running(root.pair("cloud", "cloud").certificate):
        yield made


def refused(reason: str) -> Any:
    return pytest.raises(NotAdmitted, check=lambda error: error.reason == reason)


def test_a_machine_becomes_a_fog_and_its_settings_are_whole(tmp_path: Path, cloud: Served) -> None:
    done = join(cloud.token("mill-3").text(), tmp_path / "mill", host=HOST)
    values = parse(FOG, [read_toml(done.settings)])
    assert (done.role, values["name"], values["enrol.edges"]) == ("fog", "mill-3", 3)
    own = c.read_chain(Path(values["tls.certificate"]).read_bytes())[0]
    assert c.identity_in(own).uri == "spiffe://demo/fog/mill-3"
    gateway = c.read_chain(Path(values["site.certificate"]).read_bytes())
    assert c.identity_in(gateway[0]).uri == "spiffe://mill-3.demo/gateway/mill-3"
    assert c.hosts_in(gateway[0]) == (HOST,)
    folder = tmp_path / "mill"
    for file in ("identity.pem", "gateway.pem", "issuer/authority.key"):
        assert stat.S_IMODE((folder / file).stat().st_mode) == 0o600, file
    assert cloud.register.node("mill-3") is not None
    assert cloud.let_in == [own.serial_number], "the answer waits until the servers let it in"


def test_a_machine_becomes_an_edge_of_a_site_without_the_cloud(
    tmp_path: Path, root: CertificateAuthority
) -> None:
    site = root.site(tmp_path / "issuer", "mill-3", [HOST])
    fog = Served(tmp_path, site, "edge", EDGE_TOLD)
    with fog.running(site.issue("gateway", "mill-3", [HOST]).certificate):
        done = join(fog.token("press-1").text(), tmp_path / "press", data=tmp_path)
        values = parse(EDGE, [read_toml(done.settings)])
        file = Path(values["tls.certificate"])
        assert [c.identity_in(c.read_chain(file.read_bytes())[0]).uri] == [
            "spiffe://mill-3.demo/edge/press-1"
        ]
        before = file.read_bytes()
        source = EstSource(f"{HOST}:{fog.port}", Path(values["tls.authority"]), file)
        renewal.renew_own(file, source, SystemClock().now())
        assert file.read_bytes() != before
        renewal.renew_own(file, source, SystemClock().now() + 30 * 86_400)  # as if it had ended
        fog.register.revoke("press-1", 1.0, "stolen")
        for at in (0.0, 30 * 86_400.0):
            with refused("revoked"):
                renewal.renew_own(file, source, SystemClock().now() + at)


def test_the_key_never_leaves_the_machine(
    tmp_path: Path, cloud: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    whole = http.client.HTTPSConnection.request

    def recording(self: Any, method: str, url: str, body: Any = None, headers: Any = None) -> None:
        sent.append(repr((url, body, headers)).encode() + (body or b""))
        whole(self, method, url, body, headers or {})

    monkeypatch.setattr(http.client.HTTPSConnection, "request", recording)
    join(cloud.token("mill-3").text(), tmp_path / "mill")
    from cryptography.hazmat.primitives import serialization as s

    for file in ("identity.pem", "issuer/authority.key"):
        key = c.read_key((tmp_path / "mill" / file).read_bytes())
        secret = key.private_numbers().private_value.to_bytes(32, "big")
        der = key.private_bytes(s.Encoding.DER, s.PrivateFormat.PKCS8, s.NoEncryption())
        assert not any(secret in data or der in data for data in sent)
    assert len(sent) == 4


def test_a_token_works_once_and_both_sides_hear_why(
    tmp_path: Path, cloud: Served, caplog: pytest.LogCaptureFixture
) -> None:
    token = cloud.token("mill-3")
    join(token.text(), tmp_path / "one")
    with refused("used"):
        join(token.text(), tmp_path / "two")
    assert any("used the token for fog mill-3" in line for line in caplog.messages)
    assert [path.name for path in tmp_path.iterdir() if "two" in path.name] == []


def test_forged_cancelled_and_late_tokens_leave_nothing_behind(
    tmp_path: Path, cloud: Served, caplog: pytest.LogCaptureFixture
) -> None:
    good = cloud.token("mill-3")
    forged = Token(good.address, good.root, "x" * 43, good.role, good.name)
    late = cloud.token("late", life_s=-1.0)
    stopped = cloud.token("stopped")
    for one in cloud.register.invites():
        if one.name == "stopped":
            cloud.register.cancel(one.id, SystemClock().now())
    before = set(tmp_path.iterdir())
    for token, reason in ((forged, "unknown"), (late, "expired"), (stopped, "cancelled")):
        with refused(reason):
            join(token.text(), tmp_path / "new")
        assert any(reason in line for line in caplog.messages)
    assert set(tmp_path.iterdir()) == before


def test_a_token_for_one_name_does_not_make_another(tmp_path: Path, cloud: Served) -> None:
    token = cloud.token("mill-3")
    with refused("malformed"):
        join(Token(token.address, token.root, token.secret, "fog", "mill-4").text(), tmp_path / "new")
    join(token.text(), tmp_path / "new")


def test_a_server_of_another_fleet_is_not_told_the_secret(
    tmp_path: Path, cloud: Served, caplog: pytest.LogCaptureFixture
) -> None:
    token = cloud.token("mill-3")
    caplog.set_level(logging.DEBUG)
    with refused("fingerprint"):
        join(Token(token.address, "00" * 32, token.secret, "fog", "mill-3").text(), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    join(token.text(), tmp_path / "new")  # it was not used up


def test_a_server_between_that_shows_the_right_root_is_refused_by_its_own_certificate(
    tmp_path: Path, root: CertificateAuthority
) -> None:
    """The root is public: anybody can hand it out, but not stand for it."""
    other = CertificateAuthority.create(tmp_path / "other", "demo")
    between = Served(tmp_path, root, "fog", FOG_TOLD)
    with between.running(other.issue("cloud", "cloud", [HOST]).certificate):
        with refused("certificate"):
            join(between.token("mill-3").text(), tmp_path / "new")


def test_a_node_of_the_fleet_that_certifies_nobody_is_refused(
    tmp_path: Path, root: CertificateAuthority
) -> None:
    impostor = Served(tmp_path, root, "fog", FOG_TOLD)
    with impostor.running(root.pair("fog", "impostor").certificate):
        with refused("certificate"):
            join(impostor.token("mill-3").text(), tmp_path / "new")


def test_a_mistake_in_the_settings_is_found_before_the_token_is_used_up(
    tmp_path: Path, cloud: Served
) -> None:
    token = cloud.token("mill-3").text()
    with pytest.raises(SettingsError, match="listen.prot"):
        join(token, tmp_path / "new", sets=["listen.prot=1"])
    assert not (tmp_path / "new").exists()
    done = join(token, tmp_path / "new", sets=["listen.nats_port=4999"])
    assert read_toml(done.settings).values["listen"]["nats_port"] == 4999


def test_a_folder_with_something_in_it_is_not_touched(tmp_path: Path, cloud: Served) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").write_text("x")
    with pytest.raises(SettingsError, match="not empty"):
        join(cloud.token("mill-3").text(), tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine"]


def test_an_authority_that_cannot_be_reached_is_said_so(tmp_path: Path) -> None:
    token = Token(f"{HOST}:1", "00" * 32, "s", "fog", "mill-3")
    with pytest.raises(Unreachable, match=f"{HOST}:1"):
        join(token.text(), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_whoever_has_no_certificate_may_not_renew(tmp_path: Path, cloud: Served) -> None:
    root = tmp_path / "root.crt"
    root.write_bytes(fetch_root(f"{HOST}:{cloud.port}", cloud.token("x").root))
    source = EstSource(f"{HOST}:{cloud.port}", root)
    for ask in (source.renew, source.renew_site):
        with pytest.raises((NotAdmitted, Unreachable)) as caught:
            ask(request(new_key()))
        assert getattr(caught.value, "reason", "") == "role"


def test_a_body_without_end_and_one_that_is_too_large_are_refused(cloud: Served) -> None:
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    for body, headers in ((b"x" * 100_000, {}), (b"\xff\xfe", {"Authorization": "Basic !"}), (b"", {})):
        for path in ("/.well-known/est/simpleenroll", "/v1/recover", "/.well-known/est/simplereenroll"):
            line = http.client.HTTPSConnection(HOST, cloud.port, timeout=5, context=blind)
            line.request("POST", path, body, headers)
            assert 400 <= line.getresponse().status < 500
            line.close()
