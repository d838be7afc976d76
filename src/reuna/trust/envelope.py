"""An in-toto statement in a DSSE envelope, signed by Ed25519 keys or by nobody yet. Pure.

    envelope   DSSE v1: payload = the statement, signatures by Ed25519; none until somebody signs

DSSE: https://github.com/secure-systems-lab/dsse. The same statement and signatures give the same bytes.
Whatever an envelope says is unjudged: a statement is worth as much as the keys that signed it.
"""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from reuna.core.errors import Untrusted
from reuna.core.foreign import UNREADABLE, shown
from reuna.trust.dsse import authenticated, is_signed

STATEMENT = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PrivateKey = Ed25519PrivateKey  #: for those who hold one and judge nothing
MAX_ENVELOPE = 256 << 10  #: bytes
MAX_SIGNATURES = 64


class Signature(msgspec.Struct, frozen=True):
    """``keyid`` is the public key, 64 hexadecimal digits; ``sig`` base64."""

    keyid: Annotated[str, msgspec.Meta(max_length=200)]
    sig: Annotated[str, msgspec.Meta(max_length=200)]


class Envelope(msgspec.Struct, frozen=True):
    """DSSE's, with the payload in base64."""

    payload: str
    payloadType: str  # noqa: N815 - the standard's name
    signatures: Annotated[tuple[Signature, ...], msgspec.Meta(max_length=MAX_SIGNATURES)] = ()


def seal(statement: Any) -> bytes:
    """A statement's envelope, signed by nobody yet."""
    return write(Envelope(base64.b64encode(as_json(statement)).decode(), PAYLOAD_TYPE))


def add_signature(envelope: bytes, private: Ed25519PrivateKey) -> bytes:
    """The envelope with one more signature. Raises `Untrusted` for anything but an envelope."""
    found = open_envelope(envelope)
    public = private.public_key().public_bytes_raw().hex()
    signature = private.sign(authenticated(PAYLOAD_TYPE.encode(), payload_of(found)))
    kept = [each for each in found.signatures if each.keyid != public]
    signatures = (*kept, Signature(public, base64.b64encode(signature).decode()))
    if len(signatures) > MAX_SIGNATURES:
        raise Untrusted("oversized", f"the statement carries {MAX_SIGNATURES} signatures already")
    return write(msgspec.structs.replace(found, signatures=signatures))


def open_envelope(data: bytes) -> Envelope:
    """Read an envelope, unjudged. Raises `Untrusted` (oversized, malformed, kind)."""
    if len(data) > MAX_ENVELOPE:
        raise Untrusted("oversized", f"a statement has at most {MAX_ENVELOPE} bytes")
    try:
        found = msgspec.json.decode(data, type=Envelope)
    except UNREADABLE as error:
        raise Untrusted("malformed", f"the statement is no DSSE envelope: {shown(str(error))}") from error
    if found.payloadType != PAYLOAD_TYPE:
        raise Untrusted(
            "kind", f"the statement's payload is {shown(found.payloadType, 80)}, not {PAYLOAD_TYPE}"
        )
    return found


def good_keys(envelope: Envelope) -> tuple[str, ...]:
    """The keys that signed, sorted. Raises `Untrusted` for a signature that is not good, or a key twice."""
    keys = [each.keyid for each in envelope.signatures]
    if len(set(keys)) < len(keys):
        raise Untrusted("keys", "one key has signed the statement twice")
    payload = payload_of(envelope)
    for each in envelope.signatures:
        if not _is_good(each, payload):
            raise Untrusted(
                "signature",
                f"the signature of {shown(each.keyid[:12], 40)} is not of this statement: it was changed",
            )
    return tuple(sorted(keys))


def _is_good(signature: Signature, payload: bytes) -> bool:
    try:
        public = bytes.fromhex(signature.keyid)
        sig = base64.b64decode(signature.sig, validate=True)
        plain = public.hex() == signature.keyid and base64.b64encode(sig).decode() == signature.sig
        return plain and is_signed(public, PAYLOAD_TYPE.encode(), payload, sig)
    except ValueError:
        return False


def payload_of(envelope: Envelope) -> bytes:
    """The statement's bytes. Raises `Untrusted` (malformed)."""
    try:
        return base64.b64decode(envelope.payload, validate=True)
    except ValueError as error:
        raise Untrusted("malformed", "the statement's payload is no base64") from error


def as_json(value: Any) -> bytes:
    """The one way in which statements and envelopes are written."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def write(envelope: Envelope) -> bytes:
    """The envelope's bytes; there is one way to write one."""
    return as_json(msgspec.to_builtins(envelope)) + b"\n"
