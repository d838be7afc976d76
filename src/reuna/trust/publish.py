"""Makes and signs the files that `reuna.trust.metadata` judges. Keys and times come as arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from reuna.core.errors import Untrusted
from reuna.trust.parse import FIELD, parse, public_keys, verify, when
from reuna.trust.roles import DELEGATED, patterns
from reuna.trust.stages import FIELD as STAGES
from reuna.trust.stages import Stage, encode
from reuna.trust.targets import Target

SPECIFICATION = "1.0.31"  #: of TUF, that our files follow
DAY = 86_400
#: How long each role's files live, seconds. What people sign lives long, what a machine signs does not.
LIFE = {
    "root": 365 * DAY,
    "targets": 365 * DAY,
    "code": 365 * DAY,
    "plans": 7 * DAY,
    "snapshot": 7 * DAY,
    "timestamp": 1 * DAY,
}

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)


PrivateKey = Ed25519PrivateKey


class Ring(msgspec.Struct, frozen=True):
    """Who may sign for a role: 32 bytes of each Ed25519 public key, and how many must."""

    keys: tuple[bytes, ...]
    threshold: int = 1


def key_of(public: bytes) -> Key:
    """A public key as metadata writes it; its id is the digest of that."""
    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(public))


def public_of(private: PrivateKey) -> bytes:
    """32 bytes of the public half."""
    return private.public_key().public_bytes_raw()


def sign(metadata: Metadata[T], keys: Iterable[PrivateKey]) -> bytes:
    """The file with the signatures of these keys beside those it has."""
    for key in keys:
        metadata.sign(CryptoSigner(key), append=True)
    return metadata.to_bytes()


def root(fleet: str, version: int, rings: Mapping[str, Ring], now: float) -> Metadata[Root]:
    """A root naming the keys of root, targets, snapshot and timestamp."""
    keys = {key.keyid: key for ring in rings.values() for key in map(key_of, ring.keys)}
    roles = {
        name: Role([key_of(key).keyid for key in ring.keys], ring.threshold) for name, ring in rings.items()
    }
    fields = {FIELD: {"fleet": fleet}}
    expires = when(now + LIFE["root"])
    return Metadata(Root(version, SPECIFICATION, expires, keys, roles, True, fields))


def root_rings(signed: Root) -> dict[str, Ring]:
    """The keys that a root names, by role."""
    return {
        name: Ring(tuple(public_keys(name, role, signed.keys).values()), role.threshold)
        for name, role in signed.roles.items()
    }


def targets(
    version: int, listed: Iterable[Target], delegated: Mapping[str, Ring], now: float
) -> Metadata[Targets]:
    """The top-level targets, which names the keys of `DELEGATED`."""
    keys = {key.keyid: key for ring in delegated.values() for key in map(key_of, ring.keys)}
    roles = {name: _delegated_role(name, delegated[name]) for name in DELEGATED}
    expires = when(now + LIFE["targets"])
    return Metadata(Targets(version, SPECIFICATION, expires, _files(listed), Delegations(keys, roles)))


def target_rings(signed: Targets) -> dict[str, Ring]:
    """The keys that targets names, by role."""
    assert signed.delegations is not None
    roles = signed.delegations.roles or {}
    keys = signed.delegations.keys
    return {
        name: Ring(tuple(public_keys(name, role, keys).values()), role.threshold)
        for name, role in roles.items()
    }


def delegated(
    role: str, version: int, listed: Iterable[Target], now: float, staged: Iterable[Stage] = ()
) -> Metadata[Targets]:
    """The file of ``code`` or ``plans``; ``staged``: what that of plans says of where releases run."""
    stages = encode(staged)
    fields = {FIELD: {STAGES: stages}} if stages else None
    expires = when(now + LIFE[role])
    return Metadata(Targets(version, SPECIFICATION, expires, _files(listed), unrecognized_fields=fields))


def snapshot(version: int, files: Mapping[str, tuple[int, bytes]], now: float) -> Metadata[Snapshot]:
    """Which versions belong together. ``files``: role -> version and bytes."""
    meta = {
        f"{role}.json": MetaFile.from_data(number, data, ["sha256"]) for role, (number, data) in files.items()
    }
    return Metadata(Snapshot(version, SPECIFICATION, when(now + LIFE["snapshot"]), meta))


def timestamp(version: int, of: tuple[int, bytes], now: float) -> Metadata[Timestamp]:
    """The newest snapshot (version and bytes), and the time at which this was made."""
    meta = MetaFile.from_data(of[0], of[1], ["sha256"])
    fields = {FIELD: {"made": int(now)}}
    return Metadata(Timestamp(version, SPECIFICATION, when(now + LIFE["timestamp"]), meta, fields))


# --- files at hand ---------------------------------------------------------------------------------


def read(role: str, data: bytes) -> Metadata[Any]:
    """A file of root, targets, code or plans. Raises `Untrusted`."""
    return parse(Root, role, data) if role == "root" else parse(Targets, role, data)


def rings(role: str, data: bytes) -> dict[str, Ring]:
    """The keys that a file of root or targets names, by role. Raises `Untrusted`."""
    signed = read(role, data).signed
    return root_rings(signed) if role == "root" else target_rings(signed)


def add_signatures(role: str, data: bytes, keys: Iterable[PrivateKey]) -> bytes:
    """The file with signatures of these keys beside those it has. Raises `Untrusted`."""
    return sign(read(role, data), keys)


def signatures(role: str, data: bytes) -> set[str]:
    """Ids of the keys that claim to have signed a file. Raises `Untrusted`."""
    return set(read(role, data).signatures)


def lacking(role: str, data: bytes, above: bytes) -> str:
    """What a file lacks in the eyes of the root or targets file above it; empty when it is good."""
    try:
        delegator = read("targets" if role in DELEGATED else "root", above).signed
        verify(delegator, role, read(role, data))
    except Untrusted as error:
        return error.message
    return ""


def _delegated_role(name: str, ring: Ring) -> DelegatedRole:
    ids = [key_of(key).keyid for key in ring.keys]
    return DelegatedRole(name, ids, ring.threshold, True, patterns(name))


def _files(listed: Iterable[Target]) -> dict[str, TargetFile]:
    return {each.path: _file(each) for each in listed}


def _file(each: Target) -> TargetFile:
    own: dict[str, Any] = {"kind": each.kind, "version": each.version, "digest": each.digest}
    if each.lineage:
        own["lineage"] = each.lineage
    if each.organisations:
        own["organisations"] = each.organisations
    if each.project:
        own |= {"project": each.project, "number": each.number}
    if each.where:
        own["where"] = list(each.where)
    return TargetFile(each.size, {"sha256": each.sha256}, each.path, {"custom": {FIELD: own}})
