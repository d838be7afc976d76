"""A folder of model files and one signature over all of them, as OpenSSF model signing v1.0 has it. Pure.

    model.sig   a Sigstore bundle v0.3, JSON: a DSSE envelope and the hint of the key
    payload     an in-toto Statement v1: SHA-256 of each file, and one over all of these in their order

Others check it with the tool `model_signing verify key`, which takes elliptic-curve keys of NIST alone, so
these are no keys of a fleet. Format: https://github.com/ossf/model-signing-spec,
https://docs.sigstore.dev/about/bundle/; ECDSA: FIPS 186-5, with nonces of RFC 6979 where OpenSSL has them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from reuna.core.errors import KeyProblem, Untrusted
from reuna.core.foreign import UNREADABLE, shown
from reuna.trust.dsse import authenticated

SIGNATURE = "model.sig"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
IGNORED = (".git", ".gitattributes", ".github", ".gitignore", SIGNATURE)  #: as the tool ignores them
MAX_BUNDLE = 4 << 20  #: bytes
PublicKey = ec.EllipticCurvePublicKey
ExportKey = ec.EllipticCurvePrivateKey
_HASHES: dict[str, type[hashes.SHA256 | hashes.SHA384 | hashes.SHA512]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}

_Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class _Hint(msgspec.Struct, frozen=True):
    hint: str = ""


class _Material(msgspec.Struct, frozen=True):
    publicKey: _Hint  # noqa: N815 - the standard's name


class _Signature(msgspec.Struct, frozen=True):
    sig: str


class _Envelope(msgspec.Struct, frozen=True):
    payload: str
    payloadType: str  # noqa: N815 - the standard's name
    signatures: Annotated[tuple[_Signature, ...], msgspec.Meta(min_length=1, max_length=1)]


class _Bundle(msgspec.Struct, frozen=True):
    mediaType: str  # noqa: N815 - the standard's name
    verificationMaterial: _Material  # noqa: N815 - the standard's name
    dsseEnvelope: _Envelope  # noqa: N815 - the standard's name


class _Digest(msgspec.Struct, frozen=True):
    sha256: _Hex


class _Subject(msgspec.Struct, frozen=True):
    name: str
    digest: _Digest


class _Resource(msgspec.Struct, frozen=True):
    name: str
    algorithm: str
    digest: _Hex


class _Serialization(msgspec.Struct, frozen=True):
    method: str
    hash_type: str
    allow_symlinks: bool = False
    ignore_paths: tuple[str, ...] = ()


class _Predicate(msgspec.Struct, frozen=True):
    serialization: _Serialization
    resources: tuple[_Resource, ...]


class _Statement(msgspec.Struct, frozen=True):
    type: str = msgspec.field(name="_type")
    subject: Annotated[tuple[_Subject, ...], msgspec.Meta(min_length=1, max_length=1)]
    predicateType: str  # noqa: N815 - the standard's name
    predicate: _Predicate


def sign(name: str, digests: Mapping[str, str], key: ExportKey) -> bytes:
    """The file `SIGNATURE`. ``digests``: file -> SHA-256 in hexadecimal; ``name`` is only for people."""
    payload = _json(_state(name, digests))
    signature = _signature(authenticated(PAYLOAD.encode(), payload), key)
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD,
        "signatures": [{"keyid": "", "sig": base64.b64encode(signature).decode()}],
    }
    material = {"publicKey": {"hint": hint(key.public_key())}, "tlogEntries": []}
    return _json({"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope})


def check(bundle: bytes, key: PublicKey) -> dict[str, str]:
    """What was signed with that key: file -> SHA-256. Raises `Untrusted`, which names what is wrong."""
    if len(bundle) > MAX_BUNDLE:
        raise Untrusted("oversized", f"{SIGNATURE} has more than {MAX_BUNDLE} bytes")
    try:
        found = msgspec.json.decode(bundle, type=_Bundle)
        payload = base64.b64decode(found.dsseEnvelope.payload, validate=True)
        signature = base64.b64decode(found.dsseEnvelope.signatures[0].sig, validate=True)
    except (*UNREADABLE, binascii.Error, ValueError) as error:
        raise Untrusted("malformed", f"{SIGNATURE} cannot be read: {shown(str(error))}") from error
    if (found.mediaType, found.dsseEnvelope.payloadType) != (BUNDLE, PAYLOAD):
        raise Untrusted("kind", f"{SIGNATURE} is no Sigstore bundle v0.3 of an in-toto statement")
    asked = found.verificationMaterial.publicKey.hint
    if asked and asked != hint(key):
        raise Untrusted("signature", f"{SIGNATURE} was made with another key, {shown(asked, 80)}")
    try:
        key.verify(signature, authenticated(PAYLOAD.encode(), payload), ec.ECDSA(_hash(key)))
    except InvalidSignature as error:
        raise Untrusted("signature", f"the signature in {SIGNATURE} is not this key's") from error
    return _read(payload)


def compare(signed: Mapping[str, str], there: Mapping[str, str]) -> None:
    """Raises `Untrusted` that names the first file that is changed, missing or too many."""
    for name in sorted({*signed, *there}):
        if name not in there:
            raise Untrusted("missing", f"{shown(name, 120)} was signed and is not there")
        if name not in signed:
            raise Untrusted("unknown", f"{shown(name, 120)} is there and was not signed")
        if signed[name] != there[name]:
            raise Untrusted("mismatch", f"{shown(name, 120)} is not the file that was signed")


def new_key() -> ExportKey:
    """A fresh key on P-256, which every tool takes."""
    return ec.generate_private_key(ec.SECP256R1())


def public_pem(key: PublicKey) -> bytes:
    """The public key as others are given it."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def read_public(pem: bytes, name: str) -> PublicKey:
    """A public key out of PEM. Raises `KeyProblem`."""
    step = "Name the PEM file of the public key, as `reuna release key` writes it."
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyProblem(f"{name} holds no public key in PEM", step) from error
    if not isinstance(key, PublicKey) or key.curve.name not in _HASHES:
        raise KeyProblem(f"{name} holds no key on P-256, P-384 or P-521", step)
    return key


def is_supported(key: object) -> bool:
    """Whether a private key is of a kind that the format's own tool takes."""
    return isinstance(key, ExportKey) and key.curve.name in _HASHES


def hint(key: PublicKey) -> str:
    """How a bundle names a key: SHA-256 of its PEM."""
    return hashlib.sha256(public_pem(key)).hexdigest()


def _json(value: Any) -> bytes:
    """One way to write it: keys sorted, no spaces."""
    return f"{json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(',', ':'))}\n".encode()


def _hash(key: PublicKey) -> hashes.HashAlgorithm:
    return _HASHES[key.curve.name]()


def _signature(data: bytes, key: ExportKey) -> bytes:
    kind = _hash(key.public_key())
    try:
        return key.sign(data, ec.ECDSA(kind, deterministic_signing=True))
    except UnsupportedAlgorithm:  # an OpenSSL before 3.2: another nonce each time, as good a signature
        return key.sign(data, ec.ECDSA(kind))


def _state(name: str, digests: Mapping[str, str]) -> dict[str, Any]:
    listed = sorted(digests.items())
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _over(digest for _, digest in listed)}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": list(IGNORED),
            },
            "resources": [{"name": file, "algorithm": "sha256", "digest": digest} for file, digest in listed],
        },
    }


def _read(payload: bytes) -> dict[str, str]:
    try:
        said = msgspec.json.decode(payload, type=_Statement)
    except UNREADABLE as error:
        raise Untrusted(
            "malformed", f"the statement in {SIGNATURE} cannot be read: {shown(str(error))}"
        ) from error
    form, resources = said.predicate.serialization, said.predicate.resources
    if (said.type, said.predicateType) != (STATEMENT, PREDICATE):
        raise Untrusted("kind", f"{SIGNATURE} states {shown(said.predicateType, 80)}, not {PREDICATE}")
    if (form.method, form.hash_type, form.allow_symlinks) != ("files", "sha256", False):
        raise Untrusted("kind", f"{SIGNATURE} is not over whole files by sha256, without links")
    if set(form.ignore_paths) - set(IGNORED) or any(each.algorithm != "sha256" for each in resources):
        raise Untrusted("kind", f"{SIGNATURE} leaves files out, or names digests of another kind")
    if _over(each.digest for each in resources) != said.subject[0].digest.sha256:
        raise Untrusted("mismatch", f"the digest over all files in {SIGNATURE} is not that of its list")
    found = {each.name: each.digest for each in resources}
    if len(found) != len(resources):
        raise Untrusted("malformed", f"{SIGNATURE} names a file twice")
    return found


def _over(digests: Any) -> str:
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()
