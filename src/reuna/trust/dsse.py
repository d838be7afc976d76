"""What an Ed25519 signature of ours is made over: a type and a body, as DSSE v1 puts them together.

So a signature over one kind of thing is never good for another, and no two (type, body) pairs give
the same bytes. The encoding: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md;
Ed25519: RFC 8032.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def authenticated(kind: bytes, body: bytes) -> bytes:
    """DSSE's pre-authentication encoding.

    >>> authenticated(b"a/b", b"body")
    b'DSSEv1 3 a/b 4 body'
    """
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


@lru_cache(maxsize=16)  # a node checks a plan in each round, with the same key
def _key(public: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public)


def is_signed(public: bytes, kind: bytes, body: bytes, signature: bytes) -> bool:
    """Whether the key (32 bytes) signed that type and body."""
    try:
        _key(public).verify(signature, authenticated(kind, body))
    except InvalidSignature:
        return False
    return True
