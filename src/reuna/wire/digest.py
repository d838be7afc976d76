"""The digest of a blob: SHA-256 over the SHA-256 of each 64 KiB block.

A digest of block hashes lets a receiver check every block as it arrives, given the list of
block hashes, which is itself checked against the digest. One pass over the bytes makes both.
The empty blob has the digest of no blocks.

>>> digest_bytes(b"abc") == BlockHasher().feed(b"abc").digest()
True
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

BLOCK = 64 * 1024  #: bytes in each block but the last


def block_hash(block: bytes | memoryview) -> bytes:
    """SHA-256 of one block, 32 bytes."""
    return hashlib.sha256(block).digest()


def digest_of_hashes(hashes: Iterable[bytes]) -> str:
    """The blob's digest from its block hashes, in order."""
    return hashlib.sha256(b"".join(hashes)).hexdigest()


class BlockHasher:
    """Digest of a blob that comes block by block; keeps 32 bytes a block."""

    def __init__(self) -> None:
        self.hashes: list[bytes] = []

    def feed(self, block: bytes | memoryview) -> BlockHasher:
        """Take the next whole block (64 KiB; the last may be shorter)."""
        self.hashes.append(block_hash(block))
        return self

    def digest(self) -> str:
        """Digest of the blocks so far, 64 hexadecimal characters."""
        return digest_of_hashes(self.hashes)


def digest_bytes(data: bytes | memoryview) -> str:
    """Digest of bytes in memory."""
    view = memoryview(data).cast("B")
    hasher = BlockHasher()
    for start in range(0, len(view), BLOCK):
        hasher.feed(view[start : start + BLOCK])
    return hasher.digest()
