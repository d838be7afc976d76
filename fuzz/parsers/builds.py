"""`reuna.wire.build`, `reuna.trust.provenance`: a build and its provenance from wherever they come."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fuzz.kit import attempt
from reuna.core.errors import Untrusted
from reuna.trust.envelope import add_signature, open_envelope
from reuna.trust.provenance import Claim, judge, read_claim, state
from reuna.wire.build import NEEDED, decode, encode

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
CLAIM = Claim("pump.build.tar", "ab" * 32, "cd" * 20, "git+https://git.example.org/pump.git", version="0.1.0")


def seeds() -> Iterator[bytes]:
    yield encode("pump", {name: f"{name}\n".encode() for name in NEEDED})
    yield encode("pump", {**dict.fromkeys(NEEDED, b""), "uv.lock": b"version = 1\n"})
    yield add_signature(state(CLAIM), KEY)
    yield state(CLAIM)


def check(data: bytes) -> None:
    build = attempt(lambda: decode(data), Untrusted)
    if build is not None:
        assert encode(build.manifest.project, build.parts) == data
    envelope = attempt(lambda: open_envelope(data), Untrusted)
    if envelope is None:
        return
    claim = attempt(lambda: read_claim(envelope), Untrusted)
    if claim is not None:
        assert read_claim(open_envelope(state(claim))) == claim
        attempt(lambda: judge(data, claim.digest, []), Untrusted)
    signed = attempt(lambda: add_signature(data, KEY), Untrusted)
    if signed is not None:
        assert open_envelope(signed).payload == envelope.payload
