"""`reuna.wire.decode`, every type of message: the first byte of an input says which is expected."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.kit import MESSAGES, attempt
from reuna.core.errors import BadMessage
from reuna.wire import LIMITS, decode, encode

KINDS = tuple(LIMITS)


def seeds() -> Iterator[bytes]:
    for message in MESSAGES:
        yield bytes((KINDS.index(type(message)),)) + encode(message)


def check(data: bytes) -> None:
    kind = KINDS[data[0] % len(KINDS)] if data else KINDS[0]
    message = attempt(lambda: decode(kind, data[1:]), BadMessage)
    if message is not None:
        once = encode(message)
        assert encode(decode(kind, once)) == once
