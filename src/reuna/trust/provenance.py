"""Where a build comes from: an in-toto statement with SLSA's provenance, in a DSSE envelope. Pure.

    statement  in-toto Statement v1: subject = the build's file and SHA-256, predicate = SLSA provenance v1
    envelope   `reuna.trust.envelope`

in-toto: https://github.com/in-toto/attestation/tree/main/spec/v1; SLSA: https://slsa.dev/spec/v1.0/provenance.
A statement says what the builder claims: it is worth as much as the keys that signed it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Annotated, Any

import msgspec

from reuna.core.errors import Untrusted
from reuna.core.foreign import UNREADABLE, shown
from reuna.trust.envelope import STATEMENT, Envelope, as_json, good_keys, open_envelope, payload_of, seal

PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:reuna:build:v1"
LOCAL = "urn:reuna:builder:local"  #: the builder that nobody named

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


class Judged(msgspec.Struct, frozen=True):
    """A claim, and the keys (64 hexadecimal digits) whose signatures are good: which count, and others."""

    claim: Claim
    signed_by: tuple[str, ...]
    others: tuple[str, ...]


def state(claim: Claim) -> bytes:
    """The claim's envelope, signed by nobody yet; the same bytes for the same claim."""
    return seal(_statement(claim))


def read_claim(envelope: Envelope) -> Claim:
    """What an envelope says, unjudged. Raises `Untrusted` (malformed, kind)."""
    try:
        said = json.loads(payload_of(envelope))
        _check_type(said)
        claim = msgspec.convert(_claimed(said), Claim)
        as_json(msgspec.to_builtins(claim))  # what no UTF-8 can hold is no text
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
    claim, keys = read_claim(envelope), good_keys(envelope)
    if claim.digest != digest:
        raise Untrusted("mismatch", f"the provenance is of the build {claim.digest[:12]}…, not of this one")
    counted = tuple(key for key in keys if key in signers)
    if signers and len(counted) < threshold:
        by = ", ".join(f"{key[:12]}…" for key in keys) or "nobody"
        raise Untrusted(
            "signature", f"the provenance is signed by {by}; {threshold} of the named keys must sign it"
        )
    return Judged(claim, counted, tuple(key for key in keys if key not in signers))


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
