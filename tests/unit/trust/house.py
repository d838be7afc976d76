"""A fleet's repository in memory, with every key at hand: also those that a thief would need."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from reuna.trust import publish
from reuna.trust.metadata import TrustState, begin, update
from reuna.trust.publish import Ring, public_of
from reuna.trust.stages import Stage
from reuna.trust.targets import Target

NOW = 1_795_000_000.0
FLEET = "line-4"


def key(name: str) -> Ed25519PrivateKey:
    """The same key for the same name."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def thing(path: str, kind: str, data: bytes = b"bytes", version: int = 1) -> Target:
    digest = hashlib.sha256(data).hexdigest()
    return Target(path, kind, version, len(data), digest, digest)


class House:
    """Publishes files; each method makes the next version of one role."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now
        self.names = {
            "root": ["root-1", "root-2", "root-3"],
            "targets": ["release-1", "release-2"],
            "code": ["code-1", "code-2"],
            "plans": ["plans-1"],
            "snapshot": ["online-1"],
            "timestamp": ["online-1"],
        }
        self.thresholds = {"root": 2, "targets": 2, "code": 2}
        self.versions = dict.fromkeys(self.names, 0)
        self.files: dict[str, bytes] = {}
        self.newest: dict[str, bytes] = {}
        self.listed: dict[str, list[Target]] = {
            "targets": [thing("releases/pump", "release")],
            "code": [thing("code/detector", "code")],
            "plans": [thing("plans/r-1", "plan")],
        }
        self.staged: tuple[Stage, ...] = ()
        self.root()
        self.pin = self.files["1.root.json"]
        for role in ("targets", "code", "plans"):
            self.list(role)
        self.online()

    def ring(self, role: str) -> Ring:
        return Ring(tuple(public_of(key(name)) for name in self.names[role]), self.thresholds.get(role, 1))

    def signers(self, role: str) -> list[Ed25519PrivateKey]:
        return [key(name) for name in self.names[role]][: self.thresholds.get(role, 1)]

    def put(self, role: str, data: bytes) -> bytes:
        name = "timestamp.json" if role == "timestamp" else f"{self.versions[role]}.{role}.json"
        self.files[name] = self.newest[role] = data
        return data

    def next(self, role: str) -> int:
        self.versions[role] += 1
        return self.versions[role]

    def root(self, signers: list[Ed25519PrivateKey] | None = None) -> bytes:
        rings = {role: self.ring(role) for role in ("root", "targets", "snapshot", "timestamp")}
        metadata = publish.root(FLEET, self.next("root"), rings, self.now)
        return self.put("root", publish.sign(metadata, signers or self.signers("root")))

    def list(self, role: str, signers: list[Ed25519PrivateKey] | None = None) -> bytes:
        listed, number = self.listed[role], self.next(role)
        if role == "targets":
            delegated = {name: self.ring(name) for name in ("code", "plans")}
            metadata = publish.targets(number, listed, delegated, self.now)
        else:
            staged = self.staged if role == "plans" else ()
            metadata = publish.delegated(role, number, listed, self.now, staged)
        return self.put(role, publish.sign(metadata, signers or self.signers(role)))

    def online(self) -> None:
        """Snapshot and timestamp of what was published."""
        self.snapshot()
        self.timestamp()

    def snapshot(self, **instead: tuple[int, bytes]) -> bytes:
        files = {role: (self.versions[role], self.newest[role]) for role in ("targets", "code", "plans")}
        metadata = publish.snapshot(self.next("snapshot"), {**files, **instead}, self.now)
        return self.put("snapshot", publish.sign(metadata, self.signers("snapshot")))

    def timestamp(self, change: Callable[[Any], None] | None = None) -> bytes:
        of = (self.versions["snapshot"], self.newest["snapshot"])
        metadata = publish.timestamp(self.next("timestamp"), of, self.now)
        if change:
            change(metadata.signed)
        return self.put("timestamp", publish.sign(metadata, self.signers("timestamp")))

    # --- the node -----------------------------------------------------------------------------

    def begin(self) -> TrustState:
        return begin(FLEET, self.pin)

    def update(self, state: TrustState | None = None, now: float | None = None) -> TrustState:
        """A node's walk over what is published."""
        return update(state or self.begin(), self.files.get, self.now if now is None else now)
