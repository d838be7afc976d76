"""How a signed plan travels: as it is, or packed for whoever reads that.

    packed = byte 2, then the bytes as a zlib stream (RFC 1950)

Signature and digest are of the bytes inside, so whom they come to by which way makes no difference. Every
round's plan has the settings of its run, a data contract among them, whose text says much the same of every
signal: packed it is a tenth. A large plan has the model in it, whose numbers do not pack; it goes as it is.

>>> text = b"\\x01" + b"a contract " * 100
>>> len(packed(text)) < 50, unpacked(packed(text)) == unpacked(text) == text
(True, True)
"""

from __future__ import annotations

import zlib
from functools import lru_cache

from reuna.core.errors import BadMessage

PACKED = 2  #: first byte; no signed plan begins so
LARGEST = 32_768  #: bytes of a plan that is packed


def packed(signed: bytes) -> bytes:
    """The bytes for a link whose other end unpacks them; as they are when that is no longer."""
    return signed if len(signed) > LARGEST else min(_deflated(signed), signed, key=len)


def unpacked(data: bytes) -> bytes:
    """The bytes that were packed, or that came as they are. Raises `BadMessage`."""
    return _inflated(data) if data[:1] == bytes((PACKED,)) else data


@lru_cache(maxsize=4)  # a fog passes the same plan to each of its edges
def _deflated(signed: bytes) -> bytes:
    return bytes((PACKED,)) + zlib.compress(signed)


@lru_cache(maxsize=2)  # a node opens what came, and passes it on
def _inflated(data: bytes) -> bytes:
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data[1:], LARGEST + 1)
    except zlib.error as error:
        raise BadMessage(f"a packed plan cannot be read: {error}") from error
    if len(plain) > LARGEST or not stream.eof or stream.unused_data:
        raise BadMessage("a packed plan is cut, too long or has something behind it")
    return plain
