"""The digest of a blob: SHA-256 over the SHA-256 of each 64 KiB block.

A digest of block hashes lets a receiver check every block as it arrives, given the list of
block hashes, which is itself checked against the digest. One pass over the bytes makes both.
The empty blob has the digest of no blocks.

>>> digest_bytes(b"abc") == BlockHasher().feed(b"abc").digest()
True
"""

from __future__ import annotations

import hashlib

from reuna.core.ports import Blob

BLOCK = 64 * 1024  #: bytes in each block but the last
LOT = 8 * BLOCK  #: bytes that are read, hashed, written or sent at a time
HASH_SIZE = 32


def block_hash(block: bytes | memoryview) -> bytes:
    """SHA-256 of one block, 32 bytes."""
    return hashlib.sha256(block).digest()


def digest_of_hashes(hashes: bytes) -> str:
    """The blob's digest from its block hashes, joined in order."""
    return hashlib.sha256(hashes).hexdigest()


def hash_blocks(data: bytes | memoryview) -> bytes:
    """SHA-256 of each block of whole blocks, joined."""
    view = memoryview(data).cast("B")
    if 0 < len(view) <= BLOCK:
        return block_hash(view)
    return b"".join(block_hash(view[at : at + BLOCK]) for at in range(0, len(view), BLOCK))


def hashes_of(blob: Blob) -> bytes:
    """SHA-256 of each of the blob's blocks, 32 bytes each: those it knows, else of its bytes now."""
    if blob.hashes:
        return blob.hashes
    return b"".join(hash_blocks(blob.read(at, LOT)) for at in range(0, blob.size, LOT))


class BlockHasher:
    """Digest of a blob that comes block by block; keeps 32 bytes a block."""

    def __init__(self) -> None:
        self.hashes: list[bytes] = []

    def feed(self, data: bytes | memoryview, hashes: bytes = b"") -> BlockHasher:
        """Take whole blocks (64 KiB; the last of all may be shorter).

        ``hashes`` are their SHA-256, joined, when the caller has made them already.
        """
        found = hashes or hash_blocks(data)
        self.hashes += [found[at : at + HASH_SIZE] for at in range(0, len(found), HASH_SIZE)]
        return self

    def digest(self) -> str:
        """Digest of the blocks so far, 64 hexadecimal characters."""
        return digest_of_hashes(b"".join(self.hashes))


def digest_bytes(data: bytes | memoryview) -> str:
    """Digest of bytes in memory."""
    return digest_of_hashes(hash_blocks(data))
