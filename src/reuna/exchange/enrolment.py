"""The authority of a place at work: what `reuna.trust.enrolment` allows is certified and kept.

The cloud takes in fogs and certifies the authority of each one's site; a fog takes in its edges, also
while the cloud is out of reach, and fogs under it, for whose sites it asks further up. Calls block for
some milliseconds, that one longer, and may come from threads.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from reuna.adapters import certificates
from reuna.adapters.certificates import Certificate, CertificateAuthority
from reuna.adapters.register import Register
from reuna.core.errors import NotAdmitted
from reuna.core.ports import Clock
from reuna.core.records import Identity
from reuna.trust import enrolment
from reuna.trust.enrolment import DAY, Invite, Node, Token

log = logging.getLogger("reuna.enrolment")
Chain = Sequence[Certificate]
#: Name, the fog over it, request -> certificates (DER).
AskAbove = Callable[[str, str, bytes], Sequence[bytes]]
SITE_LIFE = timedelta(days=365)  #: of a site's authority: so long a site goes on without the cloud


@dataclass(frozen=True)
class Terms:
    """How this place certifies. ``role`` is of those it takes in, ``address`` where they enrol.

    At a fog, where ``role`` is ``edge``, an invitation may also be for a fog.
    """

    role: str
    address: str
    life_s: float = 7 * DAY
    grace_s: float = 90 * DAY


class Enrolment:
    """The `Enroller` of one place.

    ``settings`` gives what an invited machine needs to know; ``listed`` the names that the place's
    settings file admits beside the register, ``fogs`` those of them that are fogs at a fog, ``above`` the
    names that were revoked further up. ``ask_above``: at a fog, has the site of a fog under it certified.
    ``over``: at the cloud, the fog over each fog under one, as they tell who is there.
    """

    def __init__(
        self,
        authority: CertificateAuthority,
        register: Register,
        terms: Terms,
        settings: Callable[[Invite], dict[str, Any]],
        listed: Callable[[], Collection[str]],
        clock: Clock,
        fogs: Callable[[], Collection[str]] = tuple,
        above: Callable[[], Collection[str]] = tuple,
        ask_above: AskAbove | None = None,
        over: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._over = over
        self._fogs = fogs
        self._above = above
        self._ask_above = ask_above
        self._authority = authority
        self._register = register
        self._terms = terms
        self._settings = settings
        self._listed = listed
        self._clock = clock

    def use(self, authority: CertificateAuthority) -> None:
        """Go on with a renewed authority."""
        self._authority = authority

    def roots(self) -> Chain:
        """The fleet's root."""
        return (self._authority.root(),)

    def invitation(self, secret: str) -> dict[str, object]:
        """What the machine with this token needs to know; does not use the token up."""
        invite = self._open(secret)
        return {"role": invite.role, "name": invite.name, **self._settings(invite)}

    def enrol(self, secret: str, request: bytes) -> Chain:
        """The first certificate of an invited machine. The token is used up, or nothing happens."""
        invite = self._open(secret)
        key, _hosts = certificates.read_request(request)
        now = self._clock.now()
        certificate = self._certify(invite.name, invite.role, key)
        node = self._node(invite.name, invite.role, certificate)
        self._register.redeem(invite.id, node, now)
        log.info("enrolled %s %s, serial %s", invite.role, invite.name, node.serial)
        return self._authority.chain(certificate)

    def renew(self, identity: Identity, certificate: bytes, request: bytes) -> Chain:
        """The next certificate of a node that showed a living one."""
        self._judge(identity, certificates.from_der(certificate))
        return self._next(identity, request)

    def recover(self, certificate: bytes, request: bytes) -> Chain:
        """The next certificate of a node whose last one ended: for the same key, for a while."""
        ended = certificates.from_der(certificate)
        if not self._authority.issued(ended):
            raise NotAdmitted("certificate", "the certificate was not issued here")
        key, _hosts = certificates.read_request(request)
        if key != ended.public_key():
            raise NotAdmitted("certificate", "the request is not by the key of the certificate")
        identity = certificates.identity_in(ended)
        self._judge(identity, ended)
        return self._next(identity, request)

    def renew_site(self, identity: Identity, request: bytes) -> Chain:
        """The authority of a fog's site, held to the site's names and the hosts it asks for."""
        if identity.role != "fog":
            raise NotAdmitted("role", f"{identity.uri} may not have an authority of its own here")
        self._known(identity)
        if self._authority.site_name:
            return self._from_above(identity.name, self._authority.site_name, request)
        return self._certify_site(identity.name, request)

    def certify_below(self, identity: Identity, name: str, under: str, request: bytes) -> Chain:
        """The authority of the site of ``name``, a fog under ``under``, for the fog ``identity`` over both.

        Whoever takes a fog in vouches for it; the cloud holds names apart. Raises `NotAdmitted`,
        `Unreachable`.
        """
        if identity.role != "fog":
            raise NotAdmitted("role", f"{identity.uri} has no fogs under it")
        self._known(identity)
        if self._authority.site_name:
            return self._from_above(name, under, request)
        known, now = {node.name: node for node in self._register.nodes()}, self._clock.now()
        enrolment.judge_below(identity.name, name, under, known, self._listed(), self._over())
        chain = self._certify_site(name, request)
        kept = known.get(name)
        if kept is None or not kept.serial:  # nothing but this tells how long it stays
            kept = Node(name, "fog", under, "", "", now, now + SITE_LIFE.total_seconds())
        if not self._register.learn(kept):
            raise NotAdmitted("taken", f"{name} is another node of the fleet", "Take another name.")
        return chain

    def _from_above(self, name: str, under: str, request: bytes) -> Chain:
        if self._ask_above is None:
            raise NotAdmitted("role", f"{name} may not have an authority of its own here")
        return [certificates.from_der(der) for der in self._ask_above(name, under, request)]

    def _certify_site(self, name: str, request: bytes) -> Chain:
        key, hosts = certificates.read_request(request)
        enrolment.judge_hosts(hosts, self._register.hosts(), name)
        certificate = self._authority.certify_site(key, name, hosts, SITE_LIFE, self._moment())
        self._register.serve_under(name, hosts)
        log.info("certified the authority of site %s for %s", name, ", ".join(hosts))
        return self._authority.chain(certificate)

    def revoked(self, identity: Identity) -> list[str]:
        """Names that a fog has to refuse although it may have taken them in."""
        self._known(identity)
        own = {node.name for node in self._register.nodes() if node.revoked is not None}
        return sorted(own.union(self._above()))

    def _open(self, secret: str) -> Invite:
        found = self._register.find(enrolment.secret_hash(secret))
        return enrolment.judge_invite(found, self._clock.now())

    def _judge(self, identity: Identity, certificate: Certificate) -> None:
        node = self._known(identity)
        enrolment.judge_renewal(
            node,
            certificates.key_digest(certificate.public_key()),
            certificate.not_valid_after_utc.timestamp(),
            self._clock.now(),
            self._terms.grace_s,
            revoked=False,
        )

    def _known(self, identity: Identity) -> Node | None:
        """The node behind an identity that this place certifies. Raises `NotAdmitted`."""
        node = self._register.node(identity.name)
        role, site = self._role_of(identity.name, node), self._authority.site_name
        if identity != Identity(self._authority.fleet, role, identity.name, site):
            raise NotAdmitted("role", f"{identity.uri} is certified elsewhere")
        if node is None and identity.name not in self._listed():
            raise NotAdmitted("unknown", f"{identity.name} is no node here")
        if node is not None and node.revoked is not None:
            raise NotAdmitted("revoked", f"{identity.name} was revoked", "It stays out.")
        return node

    def _role_of(self, name: str, node: Node | None) -> str:
        """At a fog what stands in the register or the settings; the cloud takes in fogs alone."""
        if not self._authority.site_name:
            return self._terms.role
        if node is not None and node.role:
            return node.role
        return "fog" if name in self._fogs() else self._terms.role

    def _next(self, identity: Identity, request: bytes) -> Chain:
        name, (key, _hosts) = identity.name, certificates.read_request(request)
        certificate = self._certify(name, identity.role, key)
        self._register.record(self._node(name, identity.role, certificate))
        log.info("renewed %s, serial %x", name, certificate.serial_number)
        return self._authority.chain(certificate)

    def _certify(self, name: str, role: str, key: Any) -> Certificate:
        identity = Identity(self._authority.fleet, role, name, self._authority.site_name)
        life = timedelta(seconds=self._terms.life_s)
        return self._authority.certify(key, identity, (), life, self._moment())

    def _node(self, name: str, role: str, certificate: Certificate) -> Node:
        site = self._authority.site_name or name
        return node_of(name, role, site, certificate, self._clock.now())

    def _moment(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def node_of(name: str, role: str, site: str, certificate: Certificate, now: float) -> Node:
    """What the register keeps of a certificate."""
    return Node(
        name=name,
        role=role,
        site=site,
        serial=f"{certificate.serial_number:x}",
        key=certificates.key_digest(certificate.public_key()),
        issued=now,
        expires=certificate.not_valid_after_utc.timestamp(),
    )


def invite(
    register: Register,
    authority: CertificateAuthority,
    terms: Terms,
    name: str,
    now: float,
    life_s: float,
    edges: int = 0,
    replaces: str = "",
    listed: Collection[str] = (),
    role: str = "",
) -> Token:
    """Make and keep an invitation; its token is shown once. Raises `NotAdmitted`.

    At a fog ``edges`` is the site's limit (0 for none), for a fog the limit its site gets.
    ``listed`` are names that the settings file admits. ``role``: that of the terms without it.
    """
    role = role or terms.role
    enrolment.judge_name(name, register.node(name), now)
    if name in listed:
        raise NotAdmitted("taken", f"{name} stands in the settings file", "Take another name.")
    kept = register.invites()
    if role == "edge":
        nodes = [node for node in register.nodes() if node.role != "fog"]
        living = [node.name for node in nodes if node.state(now) != "revoked"]
        waiting = [other.name for other in kept if other.state(now) == "open" and other.role != "fog"]
        enrolment.judge_room(edges, {*living, *waiting} - {replaces}, name)
    secret = secrets.token_urlsafe(32)
    register.invite(
        Invite(
            id=secrets.token_hex(4),
            hash=enrolment.secret_hash(secret),
            role=role,
            name=name,
            created=now,
            expires=now + life_s,
            edges=edges,
            replaces=replaces,
        )
    )
    root = certificates.root_digest(authority.root())
    return Token(terms.address, root, secret, role, name)
