"""What an identity provider answers, and its word for somebody (the ID token)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, cast

import urllib3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fuzz.kit import attempt
from reuna.adapters.identity_provider import IdentityProvider
from reuna.core.errors import NotSignedIn, Unreachable
from reuna.trust.oidc import Rules, vouched
from reuna.trust.people import NAME

ISSUER = "https://id.example"
KEY = Ed25519PrivateKey.from_private_bytes(b"p" * 32)
RULES = Rules(ISSUER, "reuna", "preferred_username", "a.groups", {"ml": frozenset({"engineer"})})
CLAIMS = {
    "iss": ISSUER, "aud": "reuna", "sub": "17", "nonce": "n", "iat": 1_700_000_000, "exp": 4_000_000_000,
    "preferred_username": "Anna", "a": {"groups": ["ml"]},
}  # fmt: skip
DESCRIPTION = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/a", "token_endpoint": f"{ISSUER}/t", "jwks_uri": f"{ISSUER}/k",
}  # fmt: skip


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _token(head: bytes, claims: bytes) -> str:
    """Signed by the provider, whatever it says."""
    body = f"{_text(head)}.{_text(claims)}"
    return f"{body}.{_text(KEY.sign(body.encode()))}"


HEAD = json.dumps({"alg": "EdDSA", "kid": "k1"}).encode()
KEYS = {
    "keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": _text(KEY.public_key().public_bytes_raw())}]
}


class _Answer:
    status = 200

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, most: int) -> bytes:
        return self._data[:most]

    def release_conn(self) -> None:
        """Nothing is open."""


class _Pool:
    """The provider, without a line to it."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self._answers = answers

    def request(self, _method: str, url: str, **_more: Any) -> _Answer:
        return _Answer(self._answers[url.rpartition("/")[2]])


def seeds() -> Iterator[bytes]:
    good = json.dumps(CLAIMS).encode()
    yield b"\0" + json.dumps(DESCRIPTION).encode()
    yield b"\1" + json.dumps({"id_token": _token(HEAD, good)}).encode()
    yield b"\2" + json.dumps(KEYS).encode()
    yield b"\3" + good
    yield b"\4" + HEAD
    yield b"\5" + _token(HEAD, good).encode()


def check(data: bytes) -> None:
    kind, rest = (data[0] % 6, data[1:]) if data else (0, b"")
    good = json.dumps(CLAIMS).encode()
    token = _token(HEAD, good)
    if kind in {3, 4}:  # any claims, or any head, under a good signature
        token = _token(HEAD, rest) if kind == 3 else _token(rest, good)
    elif kind == 5:
        token = rest.decode("latin-1")
    answers = {
        "openid-configuration": rest if kind == 0 else json.dumps(DESCRIPTION).encode(),
        "t": rest if kind == 1 else json.dumps({"id_token": token}).encode(),
        "k": rest if kind == 2 else json.dumps(KEYS).encode(),
    }
    if kind == 0:  # wherever it says that its pages are
        answers |= dict.fromkeys(_ends(rest), rest)
    _sign_in(answers)


def _ends(description: bytes) -> list[str]:
    try:
        found = json.loads(description)
    except (ValueError, RecursionError):
        return []
    values = found.values() if isinstance(found, dict) else ()
    return [value.rpartition("/")[2] for value in values if isinstance(value, str)]


def _sign_in(answers: dict[str, bytes]) -> None:
    provider = IdentityProvider(ISSUER, "reuna")
    provider._pool = cast("urllib3.PoolManager", _Pool(answers))
    attempt(lambda: provider.address("s", "n", "c", "http://127.0.0.1:5/signed-in", "openid"), Unreachable)
    claims = attempt(
        lambda: provider.claims("code", "v", "http://127.0.0.1:5/signed-in"), NotSignedIn, Unreachable
    )
    if claims is None:
        return
    who = attempt(lambda: vouched(claims, RULES, "n"), NotSignedIn)
    if who is not None:
        assert NAME.fullmatch(who.name)
        assert who.roles == {"engineer"}
