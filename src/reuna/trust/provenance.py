"""Where a build comes from: an in-toto statement with SLSA's provenance, in a DSSE envelope. Pure.

    statement  in-toto Statement v1: subject = the build's file and SHA-256, predicate = SLSA provenance v1
    envelope   DSSE v1: payload = the statement, signatures by Ed25519; none until somebody signs

in-toto: https://github.com/in-toto/attestation/tree/main/spec/v1; SLSA: https://slsa.dev/spec/v1.0/provenance;
DSSE: https://github.com/secure-systems-lab/dsse. A statement says what the builder claims: it is worth as
much as the keys that signed it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection
from typing import Annotated, Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from reuna.core.errors import Untrusted
from reuna.core.foreign import UNREADABLE, shown
from reuna.trust.dsse import authenticated, is_signed

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:reuna:build:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PrivateKey = Ed25519PrivateKey  #: for those who hold one and judge nothing
LOCAL = "urn:reuna:builder:local"  #: the builder that nobody named
MAX_ENVELOPE = 256 << 10  #: bytes
MAX_SIGNATURES = 64

_Text = Annotated[str, msgspec.Meta(max_length=2000)]
_Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{40,64}\Z")]
_Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Claim(msgspec.Struct, frozen=True):
    """What a statement says.

    ``digest``: the build's SHA-256; ``remote``: '' where nobody else could fetch it; ``path``: of the project
    within its repository, '' for its top; ``dirty``: it was built from files that are not those of
    ``commit``; ``version``: of the Reuna that built it.
    """

    name: _Text
    digest: _Sha256
    commit: _Hex
    remote: _Text = ""
    path: _Text = ""
    dirty: bool = False
    builder: _Text = LOCAL
    version: _Text = ""


class Signature(msgspec.Struct, frozen=True):
    """``keyid`` is the public key, 64 hexadecimal digits; ``sig`` base64."""

    keyid: Annotated[str, msgspec.Meta(max_length=200)]
    sig: Annotated[str, msgspec.Meta(max_length=200)]


class Envelope(msgspec.Struct, frozen=True):
    """DSSE's, with the payload in base64."""

    payload: str
    payloadType: str  # noqa: N815 - the standard's name
    signatures: Annotated[tuple[Signature, ...], msgspec.Meta(max_length=MAX_SIGNATURES)] = ()


class Judged(msgspec.Struct, frozen=True):
    """A claim, and the keys (64 hexadecimal digits) whose signatures are good: which count, and others."""

    claim: Claim
    signed_by: tuple[str, ...]
    others: tuple[str, ...]


def state(claim: Claim) -> bytes:
    """The claim's envelope, signed by nobody yet; the same bytes for the same claim."""
    return _written(Envelope(base64.b64encode(_json(_statement(claim))).decode(), PAYLOAD_TYPE))


def add_signature(envelope: bytes, private: Ed25519PrivateKey) -> bytes:
    """The envelope with one more signature. Raises `Untrusted` for anything but an envelope."""
    found = open_envelope(envelope)
    public = private.public_key().public_bytes_raw().hex()
    signature = private.sign(authenticated(PAYLOAD_TYPE.encode(), _payload(found)))
    kept = [each for each in found.signatures if each.keyid != public]
    signatures = (*kept, Signature(public, base64.b64encode(signature).decode()))
    if len(signatures) > MAX_SIGNATURES:
        raise Untrusted("oversized", f"the provenance carries {MAX_SIGNATURES} signatures already")
    return _written(msgspec.structs.replace(found, signatures=signatures))


def open_envelope(data: bytes) -> Envelope:
    """Read an envelope, unjudged. Raises `Untrusted` (oversized, malformed, kind)."""
    if len(data) > MAX_ENVELOPE:
        raise Untrusted("oversized", f"a provenance has at most {MAX_ENVELOPE} bytes")
    try:
        found = msgspec.json.decode(data, type=Envelope)
    except UNREADABLE as error:
        raise Untrusted("malformed", f"the provenance is no DSSE envelope: {shown(str(error))}") from error
    if found.payloadType != PAYLOAD_TYPE:
        raise Untrusted(
            "kind", f"the provenance's payload is {shown(found.payloadType, 80)}, not {PAYLOAD_TYPE}"
        )
    return found


def read_claim(envelope: Envelope) -> Claim:
    """What an envelope says, unjudged. Raises `Untrusted` (malformed, kind)."""
    try:
        said = json.loads(_payload(envelope))
        _check_type(said)
        claim = msgspec.convert(_claimed(said), Claim)
        _json(msgspec.to_builtins(claim))  # what no UTF-8 can hold is no text
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise Untrusted("malformed", f"the provenance lacks {shown(str(error))}") from error
    except (*UNREADABLE, msgspec.ValidationError, ValueError) as error:
        raise Untrusted("malformed", f"the provenance cannot be read: {shown(str(error))}") from error
    return claim


def judge(data: bytes, digest: str, signers: Collection[str], threshold: int = 1) -> Judged:
    """What an envelope claims about the build of that digest, signed by ``threshold`` of ``signers``.

    ``signers``: public keys, 64 hexadecimal digits; with none of them no signature is asked for. A
    signature that is not good is refused also where it does not count. Raises `Untrusted`.
    """
    envelope = open_envelope(data)
    claim, keys = read_claim(envelope), _good(envelope)
    if claim.digest != digest:
        raise Untrusted("mismatch", f"the provenance is of the build {claim.digest[:12]}…, not of this one")
    counted = tuple(key for key in keys if key in signers)
    if signers and len(counted) < threshold:
        by = ", ".join(f"{key[:12]}…" for key in keys) or "nobody"
        raise Untrusted(
            "signature", f"the provenance is signed by {by}; {threshold} of the named keys must sign it"
        )
    return Judged(claim, counted, tuple(key for key in keys if key not in signers))


def _good(envelope: Envelope) -> tuple[str, ...]:
    """The keys that signed, sorted. Raises `Untrusted` for a signature that is not good, or a key twice."""
    keys = [each.keyid for each in envelope.signatures]
    if len(set(keys)) < len(keys):
        raise Untrusted("keys", "one key has signed the provenance twice")
    payload = _payload(envelope)
    for each in envelope.signatures:
        if not _is_good(each, payload):
            raise Untrusted(
                "signature",
                f"the signature of {shown(each.keyid[:12], 40)} is not of this provenance: it was changed",
            )
    return tuple(sorted(keys))


def _is_good(signature: Signature, payload: bytes) -> bool:
    try:
        public = bytes.fromhex(signature.keyid)
        sig = base64.b64decode(signature.sig, validate=True)
        return public.hex() == signature.keyid and is_signed(public, PAYLOAD_TYPE.encode(), payload, sig)
    except ValueError:
        return False


def _payload(envelope: Envelope) -> bytes:
    try:
        return base64.b64decode(envelope.payload, validate=True)
    except ValueError as error:
        raise Untrusted("malformed", "the provenance's payload is no base64") from error


def _statement(claim: Claim) -> dict[str, Any]:
    source: dict[str, Any] = {"digest": {"gitCommit": claim.commit}}
    if claim.remote:
        source["uri"] = claim.remote
    return {
        "_type": STATEMENT,
        "subject": [{"name": claim.name, "digest": {"sha256": claim.digest}}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"path": claim.path, "dirty": claim.dirty},
                "resolvedDependencies": [source],
            },
            "runDetails": {"builder": {"id": claim.builder, "version": {"reuna": claim.version}}},
        },
    }


def _check_type(said: Any) -> None:
    definition = said["predicate"]["buildDefinition"]
    for known, found in (
        (STATEMENT, said["_type"]),
        (PREDICATE, said["predicateType"]),
        (BUILD_TYPE, definition["buildType"]),
    ):
        if found != known:
            raise Untrusted("kind", f"the provenance says {shown(found, 80)} where ours say {known}")


def _claimed(said: Any) -> dict[str, Any]:
    (subject,) = said["subject"]
    definition, details = said["predicate"]["buildDefinition"], said["predicate"]["runDetails"]
    (source,) = definition["resolvedDependencies"]
    return {
        "name": subject["name"],
        "digest": subject["digest"]["sha256"],
        "commit": source["digest"]["gitCommit"],
        "remote": source.get("uri", ""),
        "path": definition["externalParameters"]["path"],
        "dirty": definition["externalParameters"]["dirty"],
        "builder": details["builder"]["id"],
        "version": details["builder"]["version"]["reuna"],
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _written(envelope: Envelope) -> bytes:
    return _json(msgspec.to_builtins(envelope)) + b"\n"
