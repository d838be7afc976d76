"""Taking in, renewing, recovering and refusing nodes, on a clock that the test holds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from reuna.adapters import certificates as c
from reuna.adapters.certificates import CertificateAuthority, new_key, request
from reuna.adapters.register import Register
from reuna.core.errors import NotAdmitted, PermissionDenied, Unreachable
from reuna.core.records import Identity
from reuna.exchange import renewal
from reuna.exchange.enrolment import Enrolment, Terms, invite
from reuna.sim.clock import InPlace, SimClock, run_virtual
from reuna.trust.enrolment import DAY, Token

START = 1_767_225_600.0


class Clock:
    def __init__(self) -> None:
        self.time = START

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        raise AssertionError


class Place:
    """A cloud and one site's fog, as their processes hold them."""

    def __init__(self, folder: Path, clock: Any = None) -> None:
        self.clock = clock or Clock()
        self.root = CertificateAuthority.create(folder / "ca", "demo")
        self.register = Register(folder / "cloud.sqlite")
        self.terms = Terms("fog", "10.0.0.1:8444")
        self.listed: set[str] = set()
        self.told: dict[str, str] = {}
        self.cloud = Enrolment(
            self.root, self.register, self.terms, lambda _: {}, lambda: self.listed, self.clock,
            over=lambda: self.told,
        )  # fmt: skip

    def token(self, name: str = "mill-3", life_s: float = DAY, **more: object) -> Token:
        return invite(self.register, self.root, self.terms, name, self.clock.now(), life_s, **more)  # type: ignore[arg-type]

    def enrolled(self, folder: Path, name: str = "mill-3") -> Path:
        key = new_key()
        chain = self.cloud.enrol(self.token(name).secret, request(key))
        file = folder / f"{name}.pem"
        file.write_bytes(c.key_pem(key) + c.to_pem(chain))
        return file


class Direct:
    """A `CertificateSource` that calls the authority; it can be out of reach."""

    def __init__(self, place: Place, file: Path) -> None:
        self.place = place
        self.file = file
        self.away = False
        self.asked: list[str] = []

    def _reach(self, what: str) -> None:
        self.asked.append(what)
        if self.away:
            raise Unreachable("the line is cut")

    def renew(self, csr: bytes) -> list[bytes]:
        self._reach("renew")
        own = leaf(self.file)
        return ders(self.place.cloud.renew(c.identity_in(own), c.to_der(own), csr))

    def renew_site(self, csr: bytes) -> list[bytes]:
        self._reach("site")
        return ders(self.place.cloud.renew_site(c.identity_in(leaf(self.file)), csr))

    def recover(self, certificate: bytes, csr: bytes) -> list[bytes]:
        self._reach("recover")
        return ders(self.place.cloud.recover(certificate, csr))

    def revoked(self) -> list[str]:
        return self.place.cloud.revoked(c.identity_in(leaf(self.file)))


def ders(chain: object) -> list[bytes]:
    return [c.to_der(certificate) for certificate in reversed(list(chain))]  # type: ignore[call-overload]


def leaf(file: Path) -> x509.Certificate:
    return c.read_chain(file.read_bytes())[0]


def refused(reason: str) -> object:
    return pytest.raises(NotAdmitted, check=lambda error: error.reason == reason)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# --- taking in -------------------------------------------------------------------------------


def test_a_token_gives_one_certificate_for_its_name_and_a_week(place: Place) -> None:
    token = place.token()
    chain = place.cloud.enrol(token.secret, request(new_key()))
    assert c.identity_in(chain[0]) == Identity("demo", "fog", "mill-3")
    life = chain[0].not_valid_after_utc.timestamp() - START
    assert life == 7 * DAY
    assert token.root == c.root_digest(place.root.root())
    with refused("used"):
        place.cloud.enrol(token.secret, request(new_key()))


def test_looking_at_an_invitation_does_not_use_it_up(place: Place) -> None:
    token = place.token()
    for _ in range(2):
        assert place.cloud.invitation(token.secret)["name"] == "mill-3"
    place.cloud.enrol(token.secret, request(new_key()))


def test_a_token_after_its_time_or_cancelled_or_forged_is_refused(place: Place) -> None:
    late, stopped = place.token("late", 60.0), place.token("stopped")
    place.register.cancel(place.register.find(c_hash(stopped.secret)).id, START)  # type: ignore[union-attr]
    place.clock.time += 61  # type: ignore[attr-defined]
    for token, reason in ((late, "expired"), (stopped, "cancelled")):
        with refused(reason):
            place.cloud.enrol(token.secret, request(new_key()))
    with refused("unknown"):
        place.cloud.enrol("forged", request(new_key()))
    assert place.register.nodes() == []


def c_hash(secret: str) -> bytes:
    from reuna.trust.enrolment import secret_hash

    return secret_hash(secret)


def test_the_secret_is_nowhere_in_the_register(place: Place, tmp_path: Path) -> None:
    token = place.token()
    place.register.close()
    kept = b"".join(file.read_bytes() for file in tmp_path.glob("cloud.sqlite*"))
    assert token.secret.encode() not in kept
    assert b"mill-3" in kept


def csr(key: object, algorithm: object) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)  # type: ignore[arg-type]


WEAK = {
    "RSA of 1024 bits": lambda: csr(rsa.generate_private_key(65537, 1024), hashes.SHA256()),
    "RSA of 2048 bits": lambda: csr(rsa.generate_private_key(65537, 2048), hashes.SHA256()),
    "Ed25519": lambda: csr(ed25519.Ed25519PrivateKey.generate(), None),
    "P-192": lambda: csr(ec.generate_private_key(ec.SECP192R1()), hashes.SHA256()),
    "a curve of others": lambda: csr(ec.generate_private_key(ec.SECP256K1()), hashes.SHA256()),
}


@pytest.mark.parametrize("kind", WEAK)
def test_a_key_of_another_kind_is_not_certified_and_the_token_stays_good(place: Place, kind: str) -> None:
    token = place.token()
    with refused("key"):
        place.cloud.enrol(token.secret, WEAK[kind]())
    place.cloud.enrol(token.secret, request(new_key()))


def test_a_request_that_its_key_did_not_sign_is_refused(place: Place) -> None:
    data = bytearray(request(new_key()))
    data[-1] ^= 1
    with pytest.raises(NotAdmitted) as caught:
        place.cloud.enrol(place.token().secret, bytes(data))
    assert caught.value.reason in {"key", "malformed"}


@pytest.mark.parametrize("data", [b"", b"x", b"\x30\x82\xff\xff" + b"\x00" * 64])
def test_bytes_that_are_no_request_are_refused(place: Place, data: bytes) -> None:
    with refused("malformed"):
        place.cloud.enrol(place.token().secret, data)


def test_names_wanted_in_a_request_are_not_certified(place: Place) -> None:
    key = new_key()
    names = [x509.UniformResourceIdentifier("spiffe://demo/cloud/cloud"), x509.DNSName("cloud.example")]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    wish = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    got = place.cloud.enrol(place.token().secret, wish)[0]
    assert c.identity_in(got).uri == "spiffe://demo/fog/mill-3"
    assert c.hosts_in(got) == ()
    assert got.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False


def test_a_name_in_the_settings_file_is_not_given_away(place: Place) -> None:
    with refused("taken"):
        place.token("north", listed={"north"})


# --- a site's own authority ------------------------------------------------------------------


def site_of(
    place: Place, tmp_path: Path, name: str = "mill-3", host: str = "gw.mill"
) -> CertificateAuthority:
    file = place.enrolled(tmp_path, name)
    folder = tmp_path / f"{name}-issuer"
    folder.mkdir()
    key = new_key()
    chain = place.cloud.renew_site(c.identity_in(leaf(file)), request(key, [host]))
    (folder / "authority.key").write_bytes(c.key_pem(key))
    (folder / "authority.crt").write_bytes(c.to_pem(chain))
    (folder / "root.crt").write_bytes(place.root.certificate.read_bytes())
    return CertificateAuthority.load(folder)


def test_a_fog_takes_in_its_edges_with_the_cloud_out_of_reach(place: Place, tmp_path: Path) -> None:
    site = site_of(place, tmp_path)
    register, terms = Register(tmp_path / "fog.sqlite"), Terms("edge", "gw.mill:8444")
    fog = Enrolment(site, register, terms, lambda _: {}, tuple, place.clock)
    token = invite(register, site, terms, "press-1", START, DAY)
    assert token.root == c.root_digest(place.root.root()), "the machine pins the fleet's root, not the site's"
    chain = fog.enrol(token.secret, request(new_key()))
    assert c.identity_in(chain[0]).uri == "spiffe://mill-3.demo/edge/press-1"
    assert len(chain) == 2
    assert c.issued_by(chain[1], place.root.root())


def test_a_site_may_have_so_many_edges_and_no_more(place: Place, tmp_path: Path) -> None:
    site = site_of(place, tmp_path)
    register, terms = Register(tmp_path / "fog.sqlite"), Terms("edge", "gw.mill:8444")
    for name in ("a", "b"):
        invite(register, site, terms, name, START, DAY, edges=2)
    with refused("limit"):
        invite(register, site, terms, "c", START, DAY, edges=2)
    invite(register, site, terms, "c", START + DAY, DAY, edges=2)  # the tokens were not used in time


@pytest.mark.parametrize(
    "identity",
    [
        Identity("demo", "edge", "press-1"),
        Identity("demo", "fog", "mill-3"),
        Identity("demo", "cloud", "cloud"),
        Identity("demo", "edge", "press-1", "mill-4"),
        Identity("demo", "operator", "op", "mill-3"),
        Identity("demo", "gateway", "mill-4", "mill-3"),
        Identity("other", "edge", "press-1", "mill-3"),
    ],
)
def test_a_sites_authority_does_not_certify_what_its_peers_would_refuse(
    place: Place, tmp_path: Path, identity: Identity
) -> None:
    site = site_of(place, tmp_path)
    with pytest.raises(PermissionDenied):
        site.certify(new_key().public_key(), identity)


def test_a_sites_authority_makes_no_further_authority(place: Place, tmp_path: Path) -> None:
    with pytest.raises(PermissionDenied):
        site_of(place, tmp_path).certify_site(new_key().public_key(), "mill-3")


def test_a_host_of_one_site_is_not_certified_for_another(place: Place, tmp_path: Path) -> None:
    site_of(place, tmp_path)
    with refused("taken"):
        site_of(place, tmp_path, "mill-4")


def test_only_a_fog_that_is_known_gets_an_authority(place: Place) -> None:
    for role, name, reason in (("edge", "press-1", "role"), ("fog", "nobody", "unknown")):
        with refused(reason):
            place.cloud.renew_site(Identity("demo", role, name), request(new_key()))


# --- renewing --------------------------------------------------------------------------------


def test_a_renewal_changes_the_key_and_keeps_the_name(place: Place, tmp_path: Path) -> None:
    file = place.enrolled(tmp_path)
    before = leaf(file)
    renewal.renew_own(file, Direct(place, file), START + 5 * DAY)
    after = leaf(file)
    assert c.identity_in(after) == c.identity_in(before)
    assert after.public_key() != before.public_key()
    assert c.read_key(file.read_bytes()).public_key() == after.public_key()
    assert file.stat().st_mode & 0o077 == 0


def test_what_cannot_be_renewed_leaves_the_file_as_it_is(place: Place, tmp_path: Path) -> None:
    file = place.enrolled(tmp_path)
    before = file.read_bytes()
    place.register.revoke("mill-3", START, "")
    with refused("revoked"):
        renewal.renew_own(file, Direct(place, file), START + 5 * DAY)
    assert file.read_bytes() == before


def test_an_authority_that_answers_with_another_nodes_certificate_is_not_believed(
    place: Place, tmp_path: Path
) -> None:
    file = place.enrolled(tmp_path)
    before = file.read_bytes()

    class Confused(Direct):
        def renew(self, csr: bytes) -> list[bytes]:
            key, _ = c.read_request(csr)
            return [c.to_der(place.root.certify(key, Identity("demo", "fog", "other")))]

    with refused("certificate"):
        renewal.renew_own(file, Confused(place, file), START)
    assert file.read_bytes() == before


def test_an_ended_certificate_recovers_with_its_own_key_within_the_grace_period(
    place: Place, tmp_path: Path
) -> None:
    file = place.enrolled(tmp_path)
    key = c.read_key(file.read_bytes()).public_key()
    place.clock.time = START + 60 * DAY  # type: ignore[attr-defined]
    source = Direct(place, file)
    renewal.renew_own(file, source, place.clock.now())
    assert source.asked == ["recover"]
    assert leaf(file).public_key() == key
    assert leaf(file).not_valid_after_utc == datetime.fromtimestamp(START + 67 * DAY, UTC)


def test_after_the_grace_period_a_new_invitation_is_needed(place: Place, tmp_path: Path) -> None:
    file = place.enrolled(tmp_path)
    place.clock.time = START + 97 * DAY  # type: ignore[attr-defined]
    with refused("expired"):
        renewal.renew_own(file, Direct(place, file), place.clock.now())
    place.token()  # the name is free again


def test_an_ended_certificate_recovers_for_no_other_key_and_not_when_a_newer_one_exists(
    place: Place, tmp_path: Path
) -> None:
    file = place.enrolled(tmp_path)
    old = file.read_bytes()
    renewal.renew_own(file, Direct(place, file), START + 5 * DAY)
    place.clock.time = START + 30 * DAY  # type: ignore[attr-defined]
    ended = c.to_der(c.read_chain(old)[0])
    with refused("certificate"):
        place.cloud.recover(ended, request(new_key()))
    with refused("certificate"):
        place.cloud.recover(ended, request(c.read_key(old)))


def test_a_certificate_of_another_authority_does_not_recover(place: Place, tmp_path: Path) -> None:
    other = CertificateAuthority.create(tmp_path / "other", "demo")
    key = new_key()
    forged = other.certify(key.public_key(), Identity("demo", "fog", "mill-3"))
    place.enrolled(tmp_path)
    with refused("certificate"):
        place.cloud.recover(c.to_der(forged), request(key))
    with refused("malformed"):
        place.cloud.recover(b"no certificate", request(key))


def test_an_edge_is_not_renewed_at_the_cloud(place: Place) -> None:
    with refused("role"):
        place.cloud.renew(Identity("demo", "edge", "press-1", "mill-3"), ended(place), request(new_key()))


def ended(place: Place) -> bytes:
    return c.to_der(place.root.root())


# --- by itself, on a virtual clock -----------------------------------------------------------


class Renewals:
    """`renewal.keep` over some days of virtual time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.at: list[float] = []

    def days(self, days: float, away: tuple[float, float] = (0.0, 0.0)) -> Direct:
        async def live() -> Direct:
            import asyncio

            clock = SimClock(START)
            place = Place(self.folder, clock)
            file = place.enrolled(self.folder)
            source = Direct(place, file)

            def renew(now: float) -> None:
                source.away = away[0] <= (now - START) / DAY < away[1]
                renewal.renew_own(file, source, now)
                self.at.append(round((now - START) / DAY, 2))

            task = asyncio.create_task(renewal.keep(file, renew, clock, InPlace()))
            await clock.sleep(days * DAY)
            task.cancel()
            return source

        return run_virtual(live())


def test_a_certificate_is_renewed_at_two_thirds_of_each_life(tmp_path: Path) -> None:
    renewals = Renewals(tmp_path)
    source = renewals.days(15)
    third = 14 / 3
    assert renewals.at == pytest.approx([third, 2 * third, 3 * third], abs=0.02)
    assert source.asked == ["renew"] * 3


def test_a_cut_line_is_tried_again_until_it_is_back(tmp_path: Path) -> None:
    renewals = Renewals(tmp_path)
    renewals.days(7, away=(0, 6))
    assert renewals.at == pytest.approx([6.0], abs=0.05)


def test_a_node_that_was_away_for_two_months_comes_back_by_itself(tmp_path: Path) -> None:
    renewals = Renewals(tmp_path)
    source = renewals.days(61, away=(0, 60))
    assert renewals.at == pytest.approx([60.0], abs=0.01)
    assert source.asked[-1] == "recover"


def test_a_node_that_was_away_longer_stays_out_and_keeps_asking(tmp_path: Path) -> None:
    renewals = Renewals(tmp_path)
    source = renewals.days(99, away=(0, 98))
    assert renewals.at == []
    assert source.asked.count("recover") > 1000


def test_a_sites_authority_is_renewed_for_the_same_key(tmp_path: Path, place: Place) -> None:
    site = site_of(place, tmp_path)
    before = leaf(site.folder / "authority.crt")
    place.clock.time += 243 * DAY  # type: ignore[attr-defined]
    source = Direct(place, tmp_path / "mill-3.pem")
    renewal.renew_site(site.folder, source, ("gw.mill",))
    after = leaf(site.folder / "authority.crt")
    assert after.public_key() == before.public_key()
    assert after.not_valid_after_utc > before.not_valid_after_utc
    assert CertificateAuthority.load(site.folder).site_name == "mill-3"


def test_a_servers_certificate_is_renewed_for_its_hosts_by_the_authority_beside_it(
    tmp_path: Path, place: Place
) -> None:
    site = site_of(place, tmp_path)
    file = site.issue("gateway", "mill-3", ["gw.mill"]).certificate
    before = leaf(file)
    renewal.renew_locally(file, site.folder, 7 * DAY, START)
    chain = c.read_chain(file.read_bytes())
    assert c.identity_in(chain[0]).uri == "spiffe://mill-3.demo/gateway/mill-3"
    assert c.hosts_in(chain[0]) == ("gw.mill",)
    assert chain[0].public_key() != before.public_key()
    assert len(chain) == 2


def test_a_fog_hears_which_names_were_revoked(place: Place, tmp_path: Path) -> None:
    file = place.enrolled(tmp_path)
    place.register.revoke("press-1", START, "stolen")
    assert Direct(place, file).revoked() == ["press-1"]


# --- a fog under a fog -------------------------------------------------------------------------


class Firm:
    """A fog that takes in fogs: its own place under a cloud."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place = place
        self.own = leaf(place.enrolled(folder, "firm"))
        self.authority = place.root.site(folder / "issuer", "firm")
        self.register = Register(folder / "firm.sqlite")
        self.terms = Terms("edge", "10.0.0.2:8444")
        self.above: set[str] = set()
        self.door = Enrolment(
            self.authority, self.register, self.terms, lambda _: {}, tuple, place.clock,
            above=lambda: self.above, ask_above=self.ask,
        )  # fmt: skip

    def ask(self, name: str, under: str, csr: bytes) -> list[bytes]:
        return ders(self.place.cloud.certify_below(c.identity_in(self.own), name, under, csr))

    def fog(self, name: str = "north") -> Identity:
        token = invite(
            self.register, self.authority, self.terms, name, self.place.clock.now(), DAY, role="fog"
        )
        return c.identity_in(self.door.enrol(token.secret, request(new_key()))[0])


@pytest.fixture
def firm(place: Place, tmp_path: Path) -> Firm:
    return Firm(place, tmp_path)


def test_a_fog_takes_a_fog_in_and_the_cloud_certifies_its_site(firm: Firm) -> None:
    north = firm.fog()
    assert north == Identity("demo", "fog", "north", "firm")
    key = new_key()
    found = firm.door.renew_site(north, request(key, ["127.0.0.1"]))
    chain = c.ordered(ders(found), key.public_key())
    assert c.site_of_authority(chain[0]) == "north"
    assert firm.place.root.issued(chain[0]), "by the cloud, not by the fog over it"
    kept = firm.place.register.node("north")
    assert kept is not None and (kept.role, kept.site) == ("fog", "firm")


def test_a_fog_deeper_down_is_certified_for_who_stands_over_both(firm: Firm) -> None:
    firm.door.renew_site(firm.fog(), request(new_key()))
    deeper = firm.door.certify_below(
        Identity("demo", "fog", "north", "firm"), "hall", "north", request(new_key())
    )
    assert c.site_of_authority(deeper[0]) == "hall"
    with refused("role"):  # type: ignore[attr-defined]
        firm.ask("yard", "elsewhere", request(new_key()))


def test_a_fog_that_stands_in_a_settings_file_alone_vouches_for_those_under_it(
    firm: Firm, tmp_path: Path
) -> None:
    firm.place.told |= {"north": "firm", "loop": "pool", "pool": "loop"}
    found = firm.ask("hall", "north", request(new_key()))
    assert c.site_of_authority(c.from_der(found[0])) == "hall"
    for _ in range(3):
        firm.place.clock.time += 240 * DAY
        assert firm.ask("hall", "north", request(new_key())), "and the next time, and the time after that"
    kept = firm.place.register.node("hall")
    assert kept is not None and kept.state(firm.place.clock.now()) == "active"
    firm.place.enrolled(tmp_path, "lab")
    firm.place.told["lab"] = "firm"
    with refused("role"):  # type: ignore[attr-defined]
        firm.ask("yard", "lab", request(new_key()))  # the register has it elsewhere: directly under the cloud
    with refused("role"):  # type: ignore[attr-defined]
        firm.ask("yard", "loop", request(new_key()))
    firm.place.register.revoke("north", START, "")
    with refused("role"):  # type: ignore[attr-defined]
        firm.ask("hall", "north", request(new_key()))


def test_no_fog_has_the_site_of_a_node_that_is_not_under_it_certified(firm: Firm, tmp_path: Path) -> None:
    firm.place.enrolled(tmp_path, "lab")
    firm.place.listed.add("listed")
    for name in ("lab", "firm", "listed"):
        with refused("taken"):  # type: ignore[attr-defined]
            firm.ask(name, "firm", request(new_key()))
    firm.place.register.revoke("gone", START, "")
    with refused("revoked"):  # type: ignore[attr-defined]
        firm.ask("gone", "firm", request(new_key()))
    other = c.identity_in(leaf(tmp_path / "lab.pem"))
    firm.ask("north", "firm", request(new_key()))
    with refused("taken"):  # type: ignore[attr-defined]
        firm.place.cloud.certify_below(other, "north", "lab", request(new_key()))


def test_an_edge_of_a_fog_gets_no_site_and_a_fog_no_place_of_an_edge(firm: Firm) -> None:
    token = invite(firm.register, firm.authority, firm.terms, "kiln", firm.place.clock.now(), DAY)
    edge = c.identity_in(firm.door.enrol(token.secret, request(new_key()))[0])
    assert edge.role == "edge"
    for identity in (edge, Identity("demo", "fog", "kiln", "firm")):
        with refused("role"):  # type: ignore[attr-defined]
            firm.door.renew_site(identity, request(new_key()))


def test_a_fog_hears_from_the_fog_over_it_who_was_revoked_further_up(firm: Firm) -> None:
    north = firm.fog()
    firm.above.add("robot-9")
    firm.register.revoke("kiln", START, "")
    assert firm.door.revoked(north) == ["kiln", "robot-9"]


def test_a_limit_of_edges_does_not_count_fogs(firm: Firm) -> None:
    firm.fog()
    invite(firm.register, firm.authority, firm.terms, "kiln", firm.place.clock.now(), DAY, edges=1)
