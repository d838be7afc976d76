"""Provenance: what it says, who signed it, and what is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from securesystemslib.dsse import Envelope as Theirs
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from reuna.core.errors import Untrusted
from reuna.trust.envelope import MAX_ENVELOPE, MAX_SIGNATURES, add_signature, open_envelope
from reuna.trust.provenance import Claim, judge, read_claim, state

ANNA, OTTO = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
CLAIM = Claim(
    "pump.build.tar", "ab" * 32, "cd" * 20, "git+https://git.example.org/pump.git", "line", version="0.1.0"
)
SIGNED = add_signature(state(CLAIM), ANNA)


def public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


def statement(**changed: Any) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(base64.b64decode(json.loads(state(CLAIM))["payload"]))
    return {**said, **changed}


def envelope(said: Any, **changed: Any) -> bytes:
    payload = said if isinstance(said, bytes) else json.dumps(said).encode()
    known = {"payload": base64.b64encode(payload).decode(), "payloadType": "application/vnd.in-toto+json"}
    return json.dumps({**known, "signatures": [], **changed}).encode()


def refusal(data: bytes, *signers: str, digest: str = CLAIM.digest, threshold: int = 1) -> Untrusted:
    with pytest.raises(Untrusted) as refused:
        judge(data, digest, signers, threshold)
    return refused.value


def test_it_is_an_in_toto_statement_with_slsa_provenance() -> None:
    assert statement() == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "pump.build.tar", "digest": {"sha256": "ab" * 32}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:reuna:build:v1",
                "externalParameters": {"dirty": False, "path": "line"},
                "resolvedDependencies": [
                    {"uri": "git+https://git.example.org/pump.git", "digest": {"gitCommit": "cd" * 20}}
                ],
            },
            "runDetails": {"builder": {"id": "urn:reuna:builder:local", "version": {"reuna": "0.1.0"}}},
        },
    }


def test_the_library_of_the_standard_takes_the_signature_and_no_other_key() -> None:
    theirs = Theirs.from_dict(json.loads(SIGNED))
    key = SSlibKey(public(ANNA), "ed25519", "ed25519", {"public": public(ANNA)})
    assert set(theirs.verify([key], 1)) == {public(ANNA)}
    with pytest.raises(VerificationError):
        theirs.verify([SSlibKey(public(ANNA), "ed25519", "ed25519", {"public": public(OTTO)})], 1)


@given(
    st.builds(
        Claim,
        name=st.text(max_size=40),
        digest=st.just("ab" * 32),
        commit=st.sampled_from(["cd" * 20, "ef" * 32]),
        remote=st.text(max_size=20),
        path=st.text(max_size=20),
        dirty=st.booleans(),
        builder=st.text(max_size=20),
        version=st.text(max_size=9),
    )
)
def test_what_is_stated_is_what_is_read(claim: Claim) -> None:
    assert read_claim(open_envelope(state(claim))) == claim
    assert state(claim) == state(claim)


def test_whoever_was_named_and_signed_counts_and_others_are_shown_apart() -> None:
    both = add_signature(SIGNED, OTTO)
    found = judge(both, CLAIM.digest, [public(OTTO)])
    assert (found.signed_by, found.others) == ((public(OTTO),), (public(ANNA),))


def test_without_named_signers_no_signature_is_asked_for() -> None:
    assert judge(state(CLAIM), CLAIM.digest, []).claim == CLAIM


def test_a_key_that_signs_again_signs_once() -> None:
    assert add_signature(SIGNED, ANNA) == SIGNED


def test_a_provenance_of_another_build_is_refused() -> None:
    assert refusal(SIGNED, digest="ef" * 32).reason == "mismatch"


def test_too_few_signatures_are_refused() -> None:
    assert refusal(state(CLAIM), public(ANNA)).reason == "signature"
    assert refusal(SIGNED, public(OTTO)).reason == "signature"
    assert refusal(SIGNED, public(ANNA), public(OTTO), threshold=2).reason == "signature"


def test_a_statement_that_was_changed_after_it_was_signed_is_refused_also_where_nobody_is_named() -> None:
    kept = json.loads(SIGNED)
    changed = json.loads(state(replace(CLAIM, commit="00" * 20)))
    assert refusal(json.dumps({**kept, "payload": changed["payload"]}).encode()).reason == "signature"


def test_a_signature_under_two_spellings_of_a_key_is_refused() -> None:
    kept = json.loads(SIGNED)
    (signature,) = kept["signatures"]
    again = {**signature, "keyid": signature["keyid"].upper()}
    twice = [{**kept, "signatures": [signature, other]} for other in (again, signature)]
    assert [refusal(json.dumps(each).encode()).reason for each in twice] == ["signature", "keys"]


def test_more_signatures_than_an_envelope_may_carry_are_refused() -> None:
    full = {
        **json.loads(state(CLAIM)),
        "signatures": [{"keyid": str(n), "sig": ""} for n in range(MAX_SIGNATURES)],
    }
    with pytest.raises(Untrusted, match="64 signatures already"):
        add_signature(json.dumps(full).encode(), ANNA)
    full["signatures"].append({"keyid": "x", "sig": ""})
    assert refusal(json.dumps(full).encode()).reason == "malformed"


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("oversized", b" " * (MAX_ENVELOPE + 1)),
        ("malformed", b""),
        ("malformed", b"[" * 5000),
        ("malformed", b'{"payload":"\xff"}'),
        ("malformed", envelope({}, payload="no base64!")),
        ("kind", envelope({}, payloadType="text/plain")),
        ("malformed", envelope(b"[" * 100_000)),
        ("malformed", envelope([])),
        ("malformed", envelope({})),
        ("kind", envelope(statement(_type="https://in-toto.io/Statement/v0.1"))),
        ("kind", envelope(statement(predicateType="https://example.org/other"))),
        ("malformed", envelope(statement(predicate=[]))),
        ("malformed", envelope(statement(subject=[]))),
        ("malformed", envelope(statement(subject=[{"name": "x", "digest": {"sha256": "AB"}}]))),
        ("malformed", envelope(statement(subject=[{"name": "\ud800", "digest": {"sha256": "ab" * 32}}]))),
        ("malformed", envelope(statement(subject=[{"name": 7, "digest": {"sha256": "ab" * 32}}]))),
        ("malformed", envelope(statement(subject=[{"name": "x" * 2001, "digest": {"sha256": "ab" * 32}}]))),
    ],
)
def test_what_is_no_provenance_of_ours_is_refused(reason: str, data: bytes) -> None:
    found = refusal(data)
    assert found.reason == reason
    found.message.encode()


def test_a_build_of_another_kind_is_refused() -> None:
    said = statement()
    said["predicate"]["buildDefinition"]["buildType"] = "https://example.org/other"
    assert refusal(envelope(said)).reason == "kind"
