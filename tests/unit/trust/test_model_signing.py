"""A folder's signature in OpenSSF's form: what is accepted was signed by that key, and is all there."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import KeyProblem, Untrusted
from reuna.trust import model_signing as ms
from reuna.trust.dsse import authenticated

KEY = ec.derive_private_key(7, ec.SECP256R1())
FILES = {"model.onnx": "ab" * 32, "card.md": "cd" * 32}
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


def signed(change: Callable[[dict[str, Any]], None], key: ec.EllipticCurvePrivateKey = KEY) -> bytes:
    """A bundle whose statement was changed before it was signed."""
    bundle = json.loads(ms.sign("pump 1", FILES, KEY))
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    change(statement)
    payload = json.dumps(statement).encode()
    signature = ms._signature(authenticated(ms.PAYLOAD.encode(), payload), key)
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    return json.dumps(bundle).encode()


@given(st.dictionaries(NAMES, st.binary(min_size=32, max_size=32).map(bytes.hex), max_size=6), NAMES)
def test_what_is_signed_is_read_again(files: dict[str, str], name: str) -> None:
    assert ms.check(ms.sign(name, files, KEY), KEY.public_key()) == files


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_every_curve_of_the_format_signs_the_same_bytes_twice(curve: ec.EllipticCurve) -> None:
    key = ec.derive_private_key(7, curve)
    assert ms.sign("pump", FILES, key) == ms.sign("pump", FILES, key)
    assert ms.check(ms.sign("pump", FILES, key), key.public_key()) == FILES


def test_another_keys_signature_does_not_count_even_under_this_ones_hint() -> None:
    other = ec.derive_private_key(8, ec.SECP256R1())
    with pytest.raises(Untrusted, match="another key"):
        ms.check(ms.sign("pump", FILES, other), KEY.public_key())
    with pytest.raises(Untrusted, match="is not this key's") as found:
        ms.check(signed(lambda _: None, other), KEY.public_key())
    assert found.value.reason == "signature"


@given(st.integers(0), st.integers(1, 255))
def test_no_byte_of_the_payload_may_change(at: int, by: int) -> None:
    bundle = json.loads(ms.sign("pump", FILES, KEY))
    payload = bytearray(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    payload[at % len(payload)] ^= by
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(Untrusted):
        ms.check(json.dumps(bundle).encode(), KEY.public_key())


CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
    "another statement": ("kind", lambda s: s.update(predicateType="https://example.org/other")),
    "another in-toto": ("kind", lambda s: s.update(_type="https://in-toto.io/Statement/v0.1")),
    "shards": ("kind", lambda s: s["predicate"]["serialization"].update(method="shards")),
    "links": ("kind", lambda s: s["predicate"]["serialization"].update(allow_symlinks=True)),
    "a file left out": ("kind", lambda s: s["predicate"]["serialization"]["ignore_paths"].append("card.md")),
    "another digest": ("kind", lambda s: s["predicate"]["resources"][0].update(algorithm="blake3")),
    "a list that is not whole": ("mismatch", lambda s: s["predicate"]["resources"].pop()),
    "two subjects": ("malformed", lambda s: s["subject"].append(s["subject"][0])),
    "no resources": ("malformed", lambda s: s["predicate"].pop("resources")),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_a_statement_of_another_kind_is_refused_though_it_is_signed(what: str) -> None:
    reason, change = CHANGES[what]
    with pytest.raises(Untrusted) as found:
        ms.check(signed(change), KEY.public_key())
    assert found.value.reason == reason


def test_a_file_named_twice_is_refused() -> None:
    def twice(statement: dict[str, Any]) -> None:
        resources = statement["predicate"]["resources"]
        resources.append(resources[0])
        over = ms._over(each["digest"] for each in resources)
        statement["subject"][0]["digest"]["sha256"] = over

    with pytest.raises(Untrusted, match="twice"):
        ms.check(signed(twice), KEY.public_key())


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 5000, b"\xff", b"x" * (ms.MAX_BUNDLE + 1)])
def test_bytes_that_are_no_bundle_are_one_error(data: bytes) -> None:
    with pytest.raises(Untrusted):
        ms.check(data, KEY.public_key())


@pytest.mark.parametrize(
    ("there", "reason"),
    [({}, "missing"), ({"a": "1", "b": "2"}, "unknown"), ({"a": "2"}, "mismatch")],
)
def test_what_differs_is_named(there: dict[str, str], reason: str) -> None:
    with pytest.raises(Untrusted) as found:
        ms.compare({"a": "1"}, there)
    assert found.value.reason == reason


def test_a_public_key_of_another_kind_is_refused() -> None:
    strange = ec.derive_private_key(7, ec.SECP256K1())
    assert not ms.is_supported(strange) and not ms.is_supported(ed25519.Ed25519PrivateKey.generate())
    pem = strange.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for text in (pem, b"nothing", b""):
        with pytest.raises(KeyProblem):
            ms.read_public(text, "k.pub")
    assert ms.read_public(ms.public_pem(KEY.public_key()), "k.pub") == KEY.public_key()
