"""Messages between places and their bytes. Nothing here sends anything.

>>> from reuna.wire import decode, encode
>>> from reuna.core.records import Hello
>>> decode(Hello, encode(Hello(node="plant-1", boot="b1", version="0.1.0"))).node
'plant-1'
"""

from reuna.wire.codec import (
    CHECKS,
    ENCODES,
    LIMITS,
    OLDEST,
    PACKS,
    VERSION,
    agreed,
    asks_for,
    decode,
    decode_plan,
    encode,
    message_digest,
)
from reuna.wire.digest import (
    BLOCK,
    HASH_SIZE,
    LOT,
    BlockHasher,
    block_hash,
    digest_bytes,
    digest_of_hashes,
    hash_blocks,
    hashes_of,
)
from reuna.wire.packing import packed, unpacked

__all__ = [
    "BLOCK",
    "CHECKS",
    "ENCODES",
    "HASH_SIZE",
    "LIMITS",
    "LOT",
    "OLDEST",
    "PACKS",
    "VERSION",
    "BlockHasher",
    "agreed",
    "asks_for",
    "block_hash",
    "decode",
    "decode_plan",
    "digest_bytes",
    "digest_of_hashes",
    "encode",
    "hash_blocks",
    "hashes_of",
    "message_digest",
    "packed",
    "unpacked",
]
