"""What a trusted state says about one thing that may come down: its kind, size and digests."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache

import msgspec
from tuf.api.metadata import TargetFile, Targets

from reuna.core.errors import Untrusted
from reuna.trust.metadata import TrustState, clock, complete, parsed, targets_of
from reuna.trust.parse import field
from reuna.trust.requests import Hidden
from reuna.trust.roles import DELEGATED, KINDS

PATH = re.compile(r"[a-z-]{1,32}/[a-z0-9][a-z0-9._-]{0,99}")
ROSTER = "rosters/fleet"  #: the one path of a roster
MAX_NODES = 10_000
MAX_PROJECT = 200  #: characters of a project's name
MAX_NUMBER = 2**31
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Target(msgspec.Struct, frozen=True):
    """A thing that may come down. ``digest``: of `reuna.wire.digest`; ``size`` in bytes.

    ``lineage`` is the digest of an in-toto statement about how it came to be, or empty. A roster
    stands in the list itself: ``organisations``, node -> organisation. A release says what it is of:
    ``project`` and ``number`` are those in its file; ``where`` names the nodes and sites that it is for,
    empty: all. A release without a project is for people alone, no node takes it.
    """

    path: str
    kind: str
    version: int
    size: int
    digest: str
    sha256: str
    lineage: str = ""
    organisations: dict[str, str] = {}
    project: str = ""
    number: int = 0
    where: tuple[str, ...] = ()


def target(state: TrustState, path: str, now: float) -> Target:
    """The target of that path. Raises `Untrusted` (missing, expired, unknown, kind, malformed)."""
    role = _role(path)
    _check_usable(state, role, now)
    listed = targets_of(state, role).targets.get(path)
    if listed is None:
        raise Untrusted("unknown", f"{role} does not name {path}")
    return _read(listed)


def targets(state: TrustState, now: float) -> list[Target]:
    """Everything that may come down, by path. Raises `Untrusted` (missing, expired, kind, malformed)."""
    found = []
    for role in ("targets", *DELEGATED):
        _check_usable(state, role, now)
        listed = targets_of(state, role).targets
        found += [_read(item) for path, item in listed.items() if _role(path) == role]
    return sorted(found, key=lambda each: each.path)


def unsigned(state: TrustState, digest: str, now: float) -> str:
    """Why the fleet's code role does not vouch for a bundle, with what to do; empty when it does.

    A pushed bundle runs when the site's policy and this role both allow it: the keys at the cloud sign
    neither. Raises `Untrusted` (kind, malformed).
    """
    try:
        _check_usable(state, "code", now)
    except Untrusted as error:
        over = complete(state) and state.files["code"].expires <= clock(state, now)
        return f"waits: {error.message}" + (": reuna trust renew code" if over else "")
    if any(each.kind == "code" and each.digest == digest for each in accepted(state, "code")):
        return ""
    return f"waits for the fleet's code role to sign {digest}: reuna trust add PROJECT --kind code"


def accepted(state: TrustState, role: str) -> tuple[Target, ...]:
    """What the accepted list of a role names. Raises `Untrusted` (missing, kind, malformed)."""
    if role not in state.files:
        raise Untrusted("missing", f"no accepted {role} yet")
    return _accepted(role, state.files[role].data)


@lru_cache(maxsize=16)
def _accepted(role: str, data: bytes) -> tuple[Target, ...]:
    """The same bytes are asked about several times in every round."""
    return tuple(read_all(parsed(role, data)))


@lru_cache(maxsize=4)
def _organisations(data: bytes) -> dict[str, str]:
    """Node -> organisation by an accepted list's roster; empty without one."""
    listed = parsed("targets", data).targets.get(ROSTER)
    return {} if listed is None else _read(listed).organisations


def among(state: TrustState, names: Iterable[str]) -> Hidden:
    """How many of the names the fleet's roster knows; without a roster, how many names there are.

    A plan's cohort is what the cloud says; the roster is signed by offline keys, so that a hostile
    cloud cannot invent neighbours. Raises `Untrusted` (kind, malformed).
    """
    different = set(names)
    known = _organisations(state.files["targets"].data) if state is not None and complete(state) else {}
    if not known:
        return Hidden(len(different))
    return Hidden(len(different & known.keys()), len({known[name] for name in different & known.keys()}))


def read_roster(value: object) -> dict[str, str]:
    """Node -> organisation, out of decoded JSON. Raises `Untrusted` (malformed)."""
    if not isinstance(value, dict) or not 1 <= len(value) <= MAX_NODES:
        raise Untrusted("malformed", f"a roster names 1 to {MAX_NODES} nodes and their organisations")
    for node, organisation in value.items():
        for name in (node, organisation):
            if not isinstance(name, str) or _NAME.fullmatch(name) is None:
                raise Untrusted("malformed", f"{name!r:.80} in the roster is no name")
    return value


def read_all(signed: Targets) -> list[Target]:
    """What one file lists, whether or not its role may. Raises `Untrusted` (kind, malformed)."""
    return [_read(item) for item in signed.targets.values()]


def check_bytes(expected: Target, data: bytes) -> bytes:
    """The bytes again, when they are the target's. Raises `Untrusted` (mismatch)."""
    if len(data) != expected.size or hashlib.sha256(data).hexdigest() != expected.sha256:
        raise Untrusted("mismatch", f"these bytes are not {expected.path} as it was signed")
    return data


def _role(path: str) -> str:
    """The one role that may name a path: its folder says which."""
    folder = path.partition("/")[0]
    roles = {rule.role for rule in KINDS.values() if rule.folder == folder}
    if not roles or PATH.fullmatch(path) is None:
        raise Untrusted("unknown", f"{path!r:.120} is no path of a target")
    return roles.pop()


def _check_usable(state: TrustState, role: str, now: float) -> None:
    if not complete(state):
        raise Untrusted("missing", "this node has not yet accepted the fleet's metadata")
    for name in {"timestamp", "snapshot", "targets", role}:
        if state.files[name].expires <= clock(state, now):
            raise Untrusted("expired", f"{name} is over its time; nothing new is accepted under it")
    if state.root.expires <= clock(state, now):
        raise Untrusted("expired", "root is over its time; nothing new is accepted under it")


def _read(item: TargetFile) -> Target:
    custom = item.custom
    kind, version = field(custom, "kind"), field(custom, "version")
    digest, lineage = field(custom, "digest"), field(custom, "lineage") or ""
    sha256 = item.hashes.get("sha256", "")
    rule = KINDS.get(kind) if isinstance(kind, str) else None
    if rule is None or rule.folder != item.path.partition("/")[0]:
        raise Untrusted("kind", f"{item.path} is called a {kind!r:.40}, which does not belong there")
    texts = [digest, sha256, lineage or sha256]
    sound = all(isinstance(text, str) and _DIGEST.fullmatch(text) for text in texts)
    if not sound or type(version) is not int or version < 1 or type(item.length) is not int:
        raise Untrusted("malformed", f"{item.path} is listed without version, size and digests")
    if (kind == "roster") != (item.path == ROSTER):
        raise Untrusted("kind", f"{item.path} is called a {kind}; a roster is {ROSTER}")
    organisations = read_roster(field(custom, "organisations")) if kind == "roster" else {}
    of = _read_release(item.path, custom) if kind == "release" else ("", 0, ())
    return Target(item.path, kind, version, item.length, digest, sha256, lineage, organisations, *of)


def _read_release(path: str, custom: object) -> tuple[str, int, tuple[str, ...]]:
    """Project, number and places of a release. Raises `Untrusted` (malformed)."""
    project, number = field(custom, "project"), field(custom, "number")
    where = field(custom, "where") or []
    if project is None and number is None and not where:
        return "", 0, ()
    sound = isinstance(project, str) and 0 < len(project) <= MAX_PROJECT
    sound = sound and type(number) is int and 1 <= number <= MAX_NUMBER
    named = isinstance(where, list) and len(where) <= MAX_NODES
    if not sound or not named or not all(isinstance(each, str) and _NAME.fullmatch(each) for each in where):
        raise Untrusted("malformed", f"{path} is listed without project, number and names of places")
    return str(project), int(number or 0), tuple(where)
