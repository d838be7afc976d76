"""Rows and words that are planted at the sites, and looked for in all that went elsewhere.

Looked for as text, in UTF-16, as base64 at each of its three alignments, as hexadecimal digits,
reversed, as float32 and float64 of both byte orders (pairs of neighbours, along rows and columns),
and the same once more inside whatever can be decompressed as zlib, gzip, bzip2 or xz.
"""

from __future__ import annotations

import base64
import bz2
import itertools
import lzma
import secrets
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

PIECE = 4096
MOST = 1 << 20  #: bytes that are decompressed at one place


class _Zstandard:
    """Whatever can be had of a Zstandard frame (RFC 8878), also of one with other bytes behind it."""

    def decompress(self, data: bytes, most: int) -> bytes:
        found = bytearray()
        with pyarrow.input_stream(pyarrow.BufferReader(data), compression="zstd", buffer_size=0) as stream:
            try:
                while len(found) < most and (piece := stream.read(PIECE)):
                    found += piece
            except OSError:
                pass
        return bytes(found)


_MAGIC: tuple[tuple[bytes, Any], ...] = (
    (b"\x78\x01", zlib.decompressobj),
    (b"\x78\x5e", zlib.decompressobj),
    (b"\x78\x9c", zlib.decompressobj),
    (b"\x78\xda", zlib.decompressobj),
    (b"\x1f\x8b\x08", lambda: zlib.decompressobj(31)),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\x00", lzma.LZMADecompressor),
    (b"\x28\xb5\x2f\xfd", _Zstandard),
)


def new_word() -> str:
    """A word that stands nowhere else."""
    return f"canary-{secrets.token_hex(9)}"


def new_rows(typical: Sequence[float]) -> NDArray[np.float64]:
    """Three rows near the typical values, with digits that no real row has. Shape (3, len(typical))."""
    random = np.random.default_rng(secrets.randbits(64))
    near = 1.0 + 0.01 * random.uniform(-1.0, 1.0, (3, len(typical)))
    return (np.asarray(typical) * near).round(9)


def text_of(value: float) -> str:
    """As it stands in the file."""
    return f"{value:.9f}"


def forms(words: Sequence[str], rows: NDArray[np.float64]) -> dict[str, list[bytes]]:
    """How each would look where it does not belong: form -> patterns."""
    plain = [word.encode() for word in words]
    plain += [text_of(value)[:11].encode() for value in rows.flat]
    return {
        "text": plain,
        "utf-16": [each.decode().encode("utf-16-le") for each in plain],
        "base64": [form for each in plain for form in _base64(each)],
        "hex": [form for each in plain for form in (each.hex().encode(), each.hex().upper().encode())],
        "reversed": [each[::-1] for each in plain],
        "float64": [struct.pack(f"{order}d", value) for value in rows.flat for order in "<>"],
        "float32": [struct.pack(f"{order}2f", *pair) for pair in _pairs(rows) for order in "<>"],
    }


def _pairs(rows: NDArray[np.float64]) -> Iterator[tuple[float, float]]:
    """Neighbours: one float32 alone is found by chance in some megabytes."""
    for table in (rows, rows.T):
        for line in table:
            yield from itertools.pairwise(line)


def _base64(data: bytes) -> Iterator[bytes]:
    """The part that does not depend on what stands before and after, for each alignment."""
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data)
        first = -(-8 * before // 6)
        yield whole[first : (before + len(data)) * 8 // 6]


def hits(data: bytes, wanted: dict[str, list[bytes]]) -> list[str]:
    """Forms in which something planted is found in ``data``."""
    found = _plain_hits(data, wanted)
    for inside in unpacked(data):
        found += [f"{form}, compressed" for form in _plain_hits(inside, wanted)]
    return found


def _plain_hits(data: bytes, wanted: dict[str, list[bytes]]) -> list[str]:
    return [form for form, patterns in wanted.items() if any(pattern in data for pattern in patterns)]


def unpacked(data: bytes) -> Iterator[bytes]:
    """Whatever can be decompressed, from any place on."""
    for magic, make in _MAGIC:
        at = data.find(magic)
        while at >= 0:
            try:
                inside = make().decompress(data[at : at + MOST], MOST)
            except (zlib.error, OSError, lzma.LZMAError, EOFError):
                inside = b""
            if inside:
                yield inside
            at = data.find(magic, at + 1)


def controls(wanted: dict[str, list[bytes]]) -> int:
    """How many of the forms the search misses when they are really there; 0 is good."""
    missed = 0
    for form, patterns in wanted.items():
        for pattern in patterns:
            bed = secrets.token_bytes(1000)
            data = bed[:333] + pattern + bed[333:]
            missed += form not in hits(data, wanted)
            for pack in (zlib.compress, bz2.compress, lzma.compress, _gzip, _zstandard):
                missed += f"{form}, compressed" not in hits(bed[:77] + pack(data), {form: [pattern]})
    return missed


def _gzip(data: bytes) -> bytes:
    packing = zlib.compressobj(wbits=31)
    return packing.compress(data) + packing.flush()


def _zstandard(data: bytes) -> bytes:
    packed: bytes = pyarrow.compress(data, codec="zstd", asbytes=True)
    return packed
