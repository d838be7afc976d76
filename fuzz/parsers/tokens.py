"""Join tokens and identities: text that people and certificates bring."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from fuzz.kit import attempt
from reuna.adapters.tls import parse_identity
from reuna.core.errors import NotAdmitted, PermissionDenied
from reuna.trust import enrolment
from reuna.trust.enrolment import PREFIX, Token

TOKEN = Token("10.0.0.5:8444", "ab" * 32, "c2VjcmV0", "fog", "mill-3")


def seeds() -> Iterator[bytes]:
    text = TOKEN.text()
    body = base64.urlsafe_b64decode(text.removeprefix(PREFIX) + "==")[:-4]
    yield b"\0" + text.encode()
    yield b"\1" + body
    yield b"\2spiffe://line-4/fog/mill-3"
    yield b"\2spiffe://mill-3.line-4/edge/press-1"
    yield b"\2spiffe://[::1]/edge/press-1"


def check(data: bytes) -> None:
    text = data[1:].decode("utf-8", "surrogateescape")
    if data[:1] == b"\2":
        identity = attempt(lambda: parse_identity(text), PermissionDenied)
        assert identity is None or identity.uri == text
        return
    if data[:1] == b"\1":  # any body with a good checksum
        body = data[1:]
        text = PREFIX + base64.urlsafe_b64encode(body + enrolment._check(body)).decode().rstrip("=")
    token = attempt(lambda: Token.parse(text), NotAdmitted)
    if token is not None:
        assert Token.parse(token.text()) == token
        assert token.host
        assert 0 < token.port < 65_536
