"""`reuna.trust.evidence`, `reuna.fleet.components`: what evidence says, and a bill, whoever wrote them."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fuzz.kit import attempt
from reuna.core.environment import Environment, Package
from reuna.core.errors import Corrupted, Untrusted
from reuna.fleet.components import Component
from reuna.trust.envelope import add_signature
from reuna.trust.evidence import FORMAT, About, judge, named, state
from reuna.wire.sbom import sbom

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
KEYED, ANYBODY = named([KEY.public_key().public_bytes_raw().hex()], 1), named([], 0)
ABOUT = About(FORMAT, "pump", 1, "ab" * 32, "r-1", "2026-11-27T14:00:00Z")


def seeds() -> Iterator[bytes]:
    yield state(ABOUT, {"card.md": "cd" * 32})
    yield add_signature(state(ABOUT, {}), KEY)
    yield sbom("pump", "ab" * 32, "cd" * 32, Environment("installed", (Package("numpy", "2.1.0"),)))


def check(data: bytes) -> None:
    found = attempt(lambda: judge(data, ANYBODY), Untrusted)
    if found is not None:
        again = judge(state(found.about, found.files), ANYBODY)
        assert (again.about, again.files) == (found.about, found.files)
        signed = attempt(lambda: judge(data, KEYED), Untrusted)
        assert signed is None or signed.signed_by
    attempt(lambda: Component("numpy").versions_in(data), Corrupted)
