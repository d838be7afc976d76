"""Reads metadata bytes that may be hostile, and counts signatures.

The length is judged first, then the depth; nothing of the file is believed before the
signatures of the role that names its keys have been counted.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Key, Metadata, Role, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import SerializationError

from reuna.core.errors import Untrusted
from reuna.trust.roles import DELEGATED, LIMITS, OFFLINE, ONLINE, patterns

MAX_DEPTH = 12  #: nested objects and lists in a file; ours have 7
MAX_VERSION = 2**53
FIELD = "reuna"  #: our own part of a role's signed fields

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)


class File(msgspec.Struct, frozen=True):
    """Version and end of life (seconds since the epoch) of one metadata file, with its bytes."""

    data: bytes
    version: int
    expires: int


def parse(kind: type[T], role: str, data: bytes) -> Metadata[T]:
    """The metadata in ``data``, of the type asked for. Nothing about signatures is known yet.

    Raises `Untrusted` (oversized, malformed).
    """
    if len(data) > LIMITS[role]:
        raise Untrusted("oversized", f"{role} has {len(data)} bytes, more than {LIMITS[role]}")
    try:
        tree = msgspec.json.decode(data)
        _check_depth(role, tree)
        metadata: Metadata[T] = Metadata.from_dict(tree)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, msgspec.DecodeError) as error:
        raise Untrusted("malformed", f"{role} cannot be read: {type(error).__name__} {error}") from error
    if not isinstance(metadata.signed, kind):
        raise Untrusted("malformed", f"{role} is a file of type {metadata.signed.type}")
    _check_number(role, metadata.signed.version)
    return metadata


def file_of(metadata: Metadata[T], data: bytes) -> File:
    """What is kept of an accepted file."""
    return File(data, metadata.signed.version, int(metadata.signed.expires.timestamp()))


def _check_depth(role: str, tree: Any) -> None:
    level = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise Untrusted("malformed", f"{role} is nested deeper than {MAX_DEPTH}")


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


def _check_number(role: str, version: object) -> None:
    if type(version) is not int or version > MAX_VERSION:
        raise Untrusted("malformed", f"{role} has version {version!r:.40}, which is no number we count with")


def verify(delegator: Root | Targets, role: str, metadata: Metadata[T]) -> None:
    """Count valid signatures of the keys that ``delegator`` names for ``role``.

    Raises `Untrusted` (signature).
    """
    try:
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError, SerializationError) as error:
        raise Untrusted("signature", f"{role} is not signed as it must be: {error}") from error


def check_root(root: Root, fleet: str) -> None:
    """A root is of this fleet and its key sets are sound. Raises `Untrusted` (fleet, keys)."""
    named = field(root.unrecognized_fields, "fleet")
    if named != fleet:
        raise Untrusted("fleet", f"the root is of fleet {named!r:.80}, not {fleet!r}")
    for name, role in root.roles.items():
        public_keys(name, role, root.keys)


def check_targets(root: Root, targets: Targets) -> None:
    """Both delegations are there, sound, and no online key holds an offline role.

    Raises `Untrusted` (missing, keys, kind).
    """
    held = {name: root_signers(root, name)[1] for name in root.roles}
    for name in DELEGATED:
        held[name] = delegated_signers(targets, name)[1]
        if getattr(delegation(targets, name), "paths", None) != patterns(name):
            raise Untrusted("kind", f"targets delegates other paths to {name} than {patterns(name)}")
    offline = frozenset().union(*(held[name] for name in OFFLINE))
    if any(offline & held[name] for name in ONLINE):
        raise Untrusted("keys", "one key holds an offline and an online role")


def delegation(targets: Targets, name: str) -> Role:
    """The role that targets names. Raises `Untrusted` (missing)."""
    try:
        return targets.get_delegated_role(name)
    except ValueError as error:
        raise Untrusted("missing", f"targets does not delegate to {name}") from error


def public_keys(name: str, role: Role, keys: dict[str, Key]) -> dict[str, bytes]:
    """Key id -> 32 bytes of each Ed25519 key of a role.

    A key under two ids, or written in two ways, would count twice: refused, as are keys of
    another kind and a threshold that cannot be reached. Raises `Untrusted` (keys).
    """
    found: dict[str, bytes] = {}
    for keyid in role.keyids:
        key = keys.get(keyid)
        if key is None or (key.keytype, key.scheme) != ("ed25519", "ed25519"):
            raise Untrusted("keys", f"{name} names a key that is not there or not Ed25519")
        found[keyid] = _raw(name, key)
    if len(set(found.values())) != len(found):
        raise Untrusted("keys", f"{name} names one key twice")
    if type(role.threshold) is not int or not 1 <= role.threshold <= len(found):
        raise Untrusted("keys", f"{name} asks for {role.threshold} of {len(found)} keys")
    return found


def _raw(name: str, key: Key) -> bytes:
    try:
        public = bytes.fromhex(key.keyval["public"])
    except (KeyError, TypeError, ValueError):
        public = b""
    if len(public) != 32:
        raise Untrusted("keys", f"{name} names a key whose public part cannot be read")
    return public


def signers(name: str, role: Role, keys: dict[str, Key]) -> tuple[int, frozenset[bytes]]:
    """Whose signatures a role asks for: how many, of which public keys. Raises `Untrusted` (keys)."""
    return role.threshold, frozenset(public_keys(name, role, keys).values())


def root_signers(root: Root, name: str) -> tuple[int, frozenset[bytes]]:
    """The same for a role that root names."""
    return signers(name, root.roles[name], root.keys)


def delegated_signers(targets: Targets, name: str) -> tuple[int, frozenset[bytes]]:
    """The same for a role that targets names. Raises `Untrusted` (missing, keys)."""
    role = delegation(targets, name)
    assert targets.delegations is not None
    return signers(name, role, targets.delegations.keys)


def field(fields: Any, name: str) -> Any:
    """A value of our own part of the fields, None when it is not there."""
    part = fields.get(FIELD) if isinstance(fields, dict) else None
    return part.get(name) if isinstance(part, dict) else None


def when(seconds: float) -> datetime:
    """A time in seconds since the epoch as metadata writes it."""
    return datetime.fromtimestamp(int(seconds), UTC)
