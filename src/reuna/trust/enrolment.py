"""Who may become, stay and stop being a node of the fleet: tokens, invitations, renewals, clones.

A token is good for one name, once, for a while. A certificate is renewed at two thirds of its life
by whoever holds it; one that ended may still be renewed, with the same key, for a grace period.
Times are seconds since the epoch.

>>> token = Token("10.0.0.5:8444", "ab" * 32, "c2VjcmV0", "fog", "mill-3")
>>> Token.parse(token.text()) == token
True
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_address

import msgspec

from reuna.core.errors import NotAdmitted
from reuna.core.foreign import UNREADABLE
from reuna.core.subjects import is_name

PREFIX = "reuna-1-"  #: of a token's text; the number is its version
MAX_TOKEN = 1_024  #: characters
RENEW_AT = 2 / 3  #: of a certificate's life
DAY = 86_400.0
CLOCK_SKEW = 300.0  #: seconds by which certificates begin before they are issued


class Token(msgspec.Struct, frozen=True, array_like=True):
    """What a new machine needs to know: where to go, whom to believe, and a secret.

    ``address`` is ``host:port`` of the enrolment server, ``root`` the SHA-256 of the fleet's root
    certificate (DER, hexadecimal), ``secret`` URL-safe text.
    """

    address: str
    root: str
    secret: str
    role: str
    name: str

    def text(self) -> str:
        """One word to copy: prefix, base64 of the fields, first bytes of their SHA-256."""
        body = msgspec.msgpack.encode(self)
        return PREFIX + base64.urlsafe_b64encode(body + _check(body)).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Token:
        """Read a token back. Raises `NotAdmitted` for any other or incomplete text."""
        text = text.strip()
        wrong = NotAdmitted("malformed", "this is not a whole join token", "Copy the token again, in full.")
        if len(text) > MAX_TOKEN or not text.startswith(PREFIX):
            raise wrong
        word = text.removeprefix(PREFIX)
        try:
            data = base64.b64decode(word + "=" * (-len(word) % 4), b"-_", validate=True)
            token = msgspec.msgpack.decode(data[:-4], type=cls)
        except (ValueError, *UNREADABLE) as error:
            raise wrong from error
        if data[-4:] != _check(data[:-4]) or not _sound(token):
            raise wrong
        return token

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


def _check(body: bytes) -> bytes:
    """Tells a mistyped token from a forged one; it proves nothing."""
    return hashlib.sha256(body).digest()[:4]


def _sound(token: Token) -> bool:
    host, _, port = token.address.rpartition(":")
    number = port.isascii() and port.isdigit() and 0 < int(port) < 65_536
    return bool(host and number and len(token.root) == 64 and is_name(token.name) and is_name(token.role))


def secret_hash(secret: str) -> bytes:
    """What is kept of a secret. It has 256 random bits, so a plain hash cannot be turned back."""
    return hashlib.sha256(secret.encode()).digest()


class Invite(msgspec.Struct, frozen=True):
    """An invitation as it is kept; ``hash`` is of its secret. ``replaces`` ends with its use."""

    id: str
    hash: bytes
    role: str
    name: str
    created: float
    expires: float
    edges: int = 0  #: how many edges the site may have; 0 is no limit
    replaces: str = ""
    used: float | None = None
    cancelled: float | None = None

    def state(self, now: float) -> str:
        """``open``, or why it is not."""
        if self.used is not None:
            return "used"
        if self.cancelled is not None:
            return "cancelled"
        return "open" if now < self.expires else "expired"


class Node(msgspec.Struct, frozen=True):
    """What is known of a name: its newest certificate and whether it was revoked."""

    name: str
    role: str
    site: str
    serial: str
    key: str  #: SHA-256 of the public key (DER), hexadecimal
    issued: float
    expires: float
    revoked: float | None = None
    reason: str = ""

    def state(self, now: float) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked is not None:
            return "revoked"
        return "active" if now < self.expires else "expired"


def shape(nodes: Iterable[Node], told: Mapping[str, Iterable[str]], now: float) -> dict[str, tuple[str, ...]]:
    """Fog -> its edges, of the fleet as it is now.

    ``told``: what each fog that is let in, or stands under one, says of its children; the register's word on
    a name stands above it. A fog under one that is not let in any more is left out.
    """
    known = {node.name: node for node in nodes}
    fogs = {node.name for node in known.values() if node.role == "fog" and node.state(now) == "active"}
    fogs |= told.keys() - known.keys()
    above = fogs_over(known.values(), told)
    while lost := {fog for fog in fogs if fog in above and above[fog] not in fogs}:
        fogs -= lost
    found: dict[str, set[str]] = {fog: set(told.get(fog, ())) - known.keys() - told.keys() for fog in fogs}
    for node in known.values():
        if node.role == "edge" and node.site in found and node.state(now) == "active":
            found[node.site].add(node.name)
    return {fog: tuple(sorted(found[fog])) for fog in sorted(found)}


def fogs_over(nodes: Iterable[Node], told: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """The fog over each fog that stands under one, by what fogs told and by the register."""
    found = {child: fog for fog, children in told.items() for child in children if child in told}
    enrolled = {node.name: node.site for node in nodes if node.role == "fog"}
    found |= {name: site for name, site in enrolled.items() if site not in (name, "")}
    return found


def judge_below(
    peer: str,
    name: str,
    under: str,
    known: Mapping[str, Node],
    listed: Collection[str],
    told: Mapping[str, str],
) -> None:
    """Whether the site of a fog ``name`` under the fog ``under`` may be certified for the fog ``peer``.

    ``told``: the fogs over fogs as they tell who is there; of one that only a settings file names, and that
    renewed nothing yet, nothing else is known. Raises `NotAdmitted`.
    """
    if not is_name(name):
        raise NotAdmitted("malformed", f"{name!r:.80} is no node name")
    path = [under]
    while path[-1] != peer:
        over = _over(path[-1], known, told)
        if not over or over in path:
            raise NotAdmitted("role", f"fog {under!r:.80} does not stand under {peer}")
        path.append(over)
    node = known.get(name)
    stranger = node is not None and node.role and (node.role, node.site) != ("fog", under)
    if name in {*listed, under} or stranger:
        raise NotAdmitted("taken", f"{name} is another node of the fleet", "Take another name.")
    if node is not None and node.revoked is not None:
        raise NotAdmitted("revoked", f"{name} was revoked", "It stays out; invite it under another name.")


def _over(fog: str, known: Mapping[str, Node], told: Mapping[str, str]) -> str:
    """The fog over a fog; empty when none may speak for it. The register knows better than what is told."""
    node = known.get(fog)
    if node is None:
        return told.get(fog, "")
    return node.site if node.role == "fog" and node.revoked is None else ""


def judge_invite(invite: Invite | None, now: float) -> Invite:
    """The invitation, when it may be used now. Raises `NotAdmitted`."""
    if invite is None:
        raise NotAdmitted("unknown", "no invitation has this secret")
    state = invite.state(now)
    if state != "open":
        said = {"used": "was used before", "cancelled": "was cancelled", "expired": "has expired"}[state]
        raise NotAdmitted(state, f"the token for {invite.role} {invite.name} {said}")
    return invite


def judge_name(name: str, known: Node | None, now: float) -> None:
    """Whether a name may be invited. Raises `NotAdmitted`.

    One name has one living certificate: servers that look at names alone could not tell a revoked
    one from its successor.
    """
    if not is_name(name):
        raise NotAdmitted(
            "malformed", f"{name!r} is no node name", "Use a-z, 0-9 and -, at most 63 characters."
        )
    if known is not None and now < known.expires:
        raise NotAdmitted(
            "taken",
            f"{name} has a certificate that is valid for {_span(known.expires - now)} more",
            "Take another name, or `reuna node rename`, or wait until it has ended.",
        )


def judge_room(limit: int, names: Iterable[str], name: str) -> None:
    """Whether one more edge fits under the site's limit. Raises `NotAdmitted`."""
    held = set(names)
    if limit and name not in held and len(held) >= limit:
        raise NotAdmitted("limit", f"this site has {len(held)} edges and may have {limit}")


def judge_renewal(
    node: Node | None, key: str, not_after: float, now: float, grace_s: float, revoked: bool
) -> None:
    """Whether the holder of a certificate may have a new one. Raises `NotAdmitted`.

    ``key`` and ``not_after`` are the presented certificate's. While it lives it may be any that
    this authority gave to the name; when it has ended it must be the newest.
    """
    if revoked or (node is not None and node.revoked is not None):
        raise NotAdmitted("revoked", "the node was revoked", "It stays out; invite it under another name.")
    if now < not_after:
        return
    if now >= not_after + grace_s:
        raise NotAdmitted(
            "expired",
            f"the certificate ended {_span(now - not_after)} ago; the grace period is {_span(grace_s)}",
        )
    if node is not None and node.key != key:
        raise NotAdmitted("certificate", "a newer certificate than this one was given to the node")


def judge_hosts(wanted: Iterable[str], taken: Mapping[str, str], name: str) -> None:
    """A host that another node serves under is not certified again. Raises `NotAdmitted`."""
    for host in wanted:
        owner = taken.get(host, name)
        if owner != name and not _is_local(host):
            raise NotAdmitted("taken", f"{host} is where {owner} serves", "Give --host this machine's own.")


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def renew_at(not_before: float, not_after: float) -> float:
    """When a certificate's holder asks for the next one; its life begins when it was issued."""
    issued = min(not_before + CLOCK_SKEW, not_after)
    return issued + (not_after - issued) * RENEW_AT


def retry_after(now: float, not_after: float, failures: int) -> float:
    """Seconds until the next try of a renewal that failed: soon, then less often, hourly at most."""
    longest = 3_600.0 if now < not_after else 600.0
    return min(5.0 * 2.0 ** min(failures, 10), longest)


class Boots(msgspec.Struct, frozen=True):
    """Starts of one node heard of: the current one and those it superseded, newest last."""

    current: str = ""
    before: tuple[str, ...] = ()


KEPT_BOOTS = 16


def hear(boots: Boots, boot: str) -> tuple[Boots, bool]:
    """Take in a hello's boot; True when a start that was over speaks again.

    A restart moves from one boot to the next and never back, so a boot that comes back means two
    machines with one identity.
    """
    if boot == boots.current:
        return boots, False
    before = tuple(old for old in (*boots.before, boots.current) if old not in {boot, ""})
    return Boots(boot, before[-KEPT_BOOTS:]), boot in boots.before


def _span(seconds: float) -> str:
    if seconds >= 2 * DAY:
        return f"{seconds / DAY:.0f} days"
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds:.0f} s"
