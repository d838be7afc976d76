"""`reuna.wire.digest`: one digest, however the bytes are cut into whole blocks."""

from __future__ import annotations

from collections.abc import Iterator

from reuna.sim.storage import MemoryBlob
from reuna.wire import BLOCK, HASH_SIZE, BlockHasher, digest_bytes, hash_blocks, hashes_of


def seeds() -> Iterator[bytes]:
    yield from (b"", b"a", b"ab" * 600)


def check(data: bytes) -> None:
    body = data * 64  # so that short inputs have several blocks
    digest, hashes = digest_bytes(body), hash_blocks(body)
    hasher, lot = BlockHasher(), BLOCK * (1 + (data[0] if data else 0) % 3)
    for at in range(0, len(body), lot):
        hasher.feed(memoryview(body)[at : at + lot])
    assert hasher.digest() == BlockHasher().feed(body, hashes).digest() == digest
    assert hashes_of(MemoryBlob(body, digest)) == hashes
    assert len(hashes) == HASH_SIZE * -(-len(body) // BLOCK)
