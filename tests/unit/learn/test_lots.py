"""Packed integers: published bytes, exact both ways, never longer, and read with bounds."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import BadMessage
from reuna.learn.grid import LOT
from reuna.learn.lots import DEFLATED, HEADER, SPARSE, WIDTH_BITS, Lots, most_bytes, written

#: Integers and the bytes that are published for them. What is deflated another zlib may write otherwise.
GOLDEN = {
    "zeros": ([0] * 9, "00000000"),
    "one bit": ([0, -1, 0, 0, 0, 0, 0, 0, -1], "02000001 0201"),
    "two bits": ([1, -1, 0, 1], "01000002 86"),
    "four bits": ([3, -4, 7], "02000003 760e"),
    "a byte": ([63, -64, 1], "03000004 7e7f02"),
    "two bytes": ([1000, -1], "04000005 d00107 00"),
    "sparse": ([0, 0, 0, 500, 0, 0, 0, 0, -2, 0], "0a000015 0100 0304 0000 e702 0300"),
    "deflated": ([1] * 40, "04000022 5b050700"),
}


def read(data: bytes, count: int) -> list[int]:
    lots = Lots(lambda at, size: data[at : at + size], len(data), count)
    return [int(value) for lot in lots for value in lot]


@pytest.mark.parametrize("name", GOLDEN)
def test_integers_have_their_published_bytes(name: str) -> None:
    values, data = GOLDEN[name]
    assert read(bytes.fromhex(data), len(values)) == values
    if name != "deflated":
        assert b"".join(written(np.array(values))).hex() == bytes.fromhex(data).hex()


BITS = st.integers(0, 63)


@given(bits=BITS, count=st.integers(0, 300), rare=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_any_integers_come_back_and_take_no_more_than_their_width(
    bits: int, count: int, rare: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(-(2**bits), 2**bits - 1, count, endpoint=True) * (rng.random(count) < rare)
    data = b"".join(written(values))
    assert read(data, count) == values.tolist()
    assert len(data) <= most_bytes(count, -(-(bits + 1) // 8))


@pytest.mark.parametrize("values", [[2**63 - 1], [-(2**63)], [-(2**63), *[0] * 9], [2**63 - 1, *[0] * 9]])
def test_the_farthest_integers_come_back(values: list[int]) -> None:
    assert read(b"".join(written(np.array(values))), len(values)) == values


def test_lots_are_read_one_by_one_and_between() -> None:
    values = np.arange(3 * LOT + 5) % 1000 - 500
    data = b"".join(written(values))
    lots = Lots(lambda at, size: data[at : at + size], len(data), len(values))
    assert lots.lot(3).tolist() == values[3 * LOT :].tolist()
    assert (lots.between(LOT, 2 * LOT) == values[LOT : 3 * LOT]).all()


def test_several_times_so_many_integers_are_read_one_by_one() -> None:
    each = [np.arange(LOT + 5) * sign for sign in (1, -1, 3)]
    data = b"".join(lot for values in each for lot in written(values))
    lots = Lots(lambda at, size: data[at : at + size], len(data), LOT + 5, 3)
    for time, values in enumerate(each):
        assert lots.between(0, LOT + 5, time).tolist() == values.tolist()
        assert lots.between(LOT, 5, time).tolist() == values[LOT:].tolist()
    for times in (2, 4):
        with pytest.raises(BadMessage):
            Lots(lambda at, size: data[at : at + size], len(data), LOT + 5, times)


def test_few_values_among_zeros_take_few_bytes() -> None:
    values = np.zeros(LOT, np.int64)
    values[::700] = 90
    assert len(b"".join(written(values))) < 0.05 * LOT


def test_uneven_integers_take_nearly_their_entropy_and_even_ones_are_not_deflated() -> None:
    rng = np.random.default_rng(3)
    uneven = np.rint(rng.laplace(0, 4, LOT)).astype(np.int64)
    _, counts = np.unique(uneven, return_counts=True)
    limit = -(counts / LOT * np.log2(counts / LOT)).sum() * LOT / 8
    assert limit < len(b"".join(written(uneven))) < 1.03 * limit
    even = rng.integers(-128, 128, LOT)
    (lot,) = written(even)
    assert len(lot) == HEADER + LOT
    assert not int.from_bytes(lot[:HEADER], "little") & DEFLATED


def head(length: int, width: int, form: int = 0) -> bytes:
    return (length | width << 24 | form).to_bytes(HEADER, "little")


def deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


BOMB = deflated(bytes(1 << 24))
BYTE = WIDTH_BITS.index(8)
WRONG = {
    "nothing": b"",
    "half a header": b"\x00\x00",
    "a header that says more than there is": head(5, BYTE) + b"ab",
    "something behind": head(2, BYTE) + b"ab" + b"c",
    "too few integers": head(1, BYTE) + b"a",
    "a width that there is not": head(2, 12) + b"ab",
    "a bit of a header that there is not": head(2, BYTE, 1 << 30) + b"ab",
    "a bit behind the last": head(1, 1) + b"\x07",
    "a bomb": head(len(BOMB), BYTE, DEFLATED) + BOMB,
    "a sparse bomb": head(2 + len(BOMB), BYTE, SPARSE | DEFLATED) + b"\x00\x00" + BOMB,
    "no stream": head(3, BYTE, DEFLATED) + b"\xff\xff\xff",
    "a cut stream": head(2, BYTE, DEFLATED) + deflated(b"ab")[:2],
    "something behind a stream": head(5, BYTE, DEFLATED) + deflated(b"ab") + b"x",
    "more sparse integers than places": head(14, BYTE, SPARSE) + b"\x03\x00" + bytes(12),
    "a place behind the end": head(5, BYTE, SPARSE) + b"\x00\x00" + b"\x02\x00" + b"\x00",
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_two_integers_is_refused(what: str) -> None:
    with pytest.raises(BadMessage, match="lot"):
        read(WRONG[what], 2)


def test_of_a_bomb_no_more_is_made_than_its_lot_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = zlib.decompressobj

    class Watched:
        def __init__(self, bits: int) -> None:
            self._stream = real(bits)

        def decompress(self, data: bytes, most: int) -> bytes:
            plain = self._stream.decompress(data, most)
            made.append(len(plain))
            return plain

        def __getattr__(self, name: str) -> object:
            return getattr(self._stream, name)

    monkeypatch.setattr(zlib, "decompressobj", Watched)
    with pytest.raises(BadMessage):
        read(WRONG["a bomb"], 2)
    assert made == [3]
