"""What an OPC UA server shows as its certificates, and how a person names a node."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache

from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import Certificate

from fuzz.kit import attempt
from reuna.adapters.opcua.certificates import Trust, chain_of, judge, new_identity
from reuna.core.errors import Unreachable
from reuna.core.opcua_settings import node

NOW = datetime(2027, 1, 15, tzinfo=UTC)


@cache
def shown() -> bytes:
    """A certificate that a server could show."""
    return new_identity("press", 30, NOW, "127.0.0.1").der


def seeds() -> Iterator[bytes]:
    yield b"\0" + shown()
    yield b"\0" + shown() + shown()
    yield b"\1nsu=http://example.com/press%3B;s=Oil.Pressure"
    yield b"\1ns=2;g=09087e75-8e5e-499b-954f-f2a9603db28a"
    yield b"\1b=AQI="


def check(data: bytes) -> None:
    if data[:1] == b"\1":
        _named(data[1:].decode("utf-8", "replace"))
        return
    with warnings.catch_warnings():  # of what a later version will refuse, which is right
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        chain = attempt(lambda: chain_of(data[1:]), Unreachable)
        if chain:
            assert attempt(lambda: trusted(chain), Unreachable) is None


@cache
def of_another() -> Trust:
    """Trusts one certificate that nobody shows."""
    return Trust("trust", None, (new_identity("another", 30, NOW, "127.0.0.1").certificate,))


def trusted(chain: list[Certificate]) -> bool:
    """Whether a stranger is let in."""
    judge(chain, of_another(), "127.0.0.1", NOW)
    return True


def _named(text: str) -> None:
    try:
        found = node(text)
    except ValueError as error:
        assert str(error)
        return
    assert node(str(found)) == found
