"""Integers as few bytes, without loss: lot by lot (`LOT`), each in the form that is smallest for it.

    lot     = u32, little-endian: bytes of what follows (bits 0..23), width (24..27), sparse (28),
              deflated (29)
    dense   = the integers, ``WIDTH_BITS[width]`` each
    sparse  = u16: how many are not 0, less one; then the gaps before them, as a dense lot of 16 bits; then
              they themselves, each less one
    integer = zigzag: 0, -1, 1, -2, … as 0, 1, 2, 3, …

Integers of less than a byte lie side by side, the first in the lowest bits. Of wider ones come first all
lowest bytes, then all second ones, and so on: the high bytes of small integers are all the same. What is
deflated (RFC 1951, without the u16) is smaller so; a sample tells when it cannot be. A lot of
zeros is its header alone.

Any integers pass: updates, sums, and differences of models. What comes from others is read with bounds: no
lot becomes more than its count of integers, whatever it says of itself.

>>> data = b"".join(written(np.array([0, 0, 3, -1, 0] * 20)))
>>> lots = Lots(lambda at, count: data[at : at + count], len(data), 100)
>>> len(data), [values.tolist()[:5] for values in lots]
(34, [[0, 0, 3, -1, 0]])
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import BadMessage
from reuna.learn.grid import LOT, Ints

HEADER = 4  #: bytes
WIDTH_BITS = (0, 1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64)  #: of an integer, by its number in the header
SPARSE, DEFLATED = 1 << 28, 1 << 29
_LENGTH = (1 << 24) - 1
_COUNT = 2  #: bytes before a sparse lot's gaps
_GAP_WIDTH = WIDTH_BITS.index(16)
_SAMPLE = 8_192  #: bytes
_WORTH = 7.9  #: bits a byte of the sample, at most, for deflating to pay
_MEMORY = 9  #: the most that deflating takes: 256 KiB

Bytes = NDArray[np.uint8]
Unsigned = NDArray[np.uint64]
Read = Callable[[int, int], bytes]  #: so many bytes from an offset on


def written(values: Ints) -> Iterator[bytes]:
    """Each lot of ``values`` (any length), in order. No lot is longer than its integers at their width."""
    for first in range(0, len(values), LOT):
        yield _lot(values[first : first + LOT])


def most_bytes(count: int, width: int) -> int:
    """No more bytes than this are written for ``count`` integers that fit ``width`` bytes each."""
    return HEADER * -(-count // LOT) + count * width


class Lots:
    """What was written, read lot by lot, in order or by number.

    ``read`` gives bytes of the whole of ``size``, in which ``count`` integers are written ``times`` one after
    the other, each time from a lot's beginning. Headers are looked at when it is made. Raises `BadMessage`
    for anything that is not lots of so many integers, there or later.
    """

    def __init__(self, read: Read, size: int, count: int, times: int = 1) -> None:
        self._read = read
        self.count = count
        self._each = -(-count // LOT)  #: lots of one time
        self._places = [*self._walk(size, times)]

    def _walk(self, size: int, times: int) -> Iterator[tuple[int, int]]:
        """Where each lot begins, behind its header, and what the header says."""
        at = 0
        for _ in range(times * self._each):
            head = int.from_bytes(self._read(at, HEADER), "little") if at + HEADER <= size else -1
            at += HEADER
            if head < 0 or head >> 30 or at + (head & _LENGTH) > size:
                raise BadMessage("a lot of integers is cut or has no header")
            yield at, head
            at += head & _LENGTH
        if at != size:
            raise BadMessage("lots of integers have something behind them")

    def __iter__(self) -> Iterator[Ints]:
        return (self.lot(number) for number in range(len(self._places)))

    def lot(self, number: int) -> Ints:
        """The integers of one lot, of the narrowest type of 16, 32 or 64 bits that holds its width."""
        at, head = self._places[number]
        count = min(LOT, self.count - number % self._each * LOT)
        return _integers(self._read(at, head & _LENGTH), head, count)

    def between(self, first: int, count: int, time: int = 0) -> Ints:
        """``count`` integers from ``first`` on, which is where a lot begins."""
        numbers = range(first // LOT, -(-(first + count) // LOT))
        lots = [self.lot(time * self._each + number) for number in numbers]
        return lots[0] if len(lots) == 1 else np.concatenate(lots)


# --- writing -----------------------------------------------------------------------------------


def _lot(values: Ints) -> bytes:
    found = _zigzag(values)
    width = _width(found)
    if not WIDTH_BITS[width]:
        return _headed(b"", width)
    dense = _packed(found, width)
    places = np.flatnonzero(found)
    best = _deflated(dense, b"", width)
    if 2 * len(places) < len(found):
        before = (len(places) - 1).to_bytes(_COUNT, "little")
        less = found[places] - np.uint64(1)
        gaps = np.diff(places, prepend=-1) - 1
        sparse_width = _width(less)
        sparse = _packed(gaps.astype(np.uint64), _GAP_WIDTH) + _packed(less, sparse_width)
        best = min(best, _deflated(sparse, before, sparse_width, SPARSE), key=len)
    return best


def _zigzag(values: Ints) -> Unsigned:
    wide = values.astype(np.int64, copy=False)
    return ((wide << 1) ^ (wide >> 63)).view(np.uint64)


def _width(found: Unsigned) -> int:
    """Number of the narrowest width that holds them all."""
    bits = int(found.max()).bit_length()
    return next(number for number, each in enumerate(WIDTH_BITS) if bits <= each)


def _packed(found: Unsigned, width: int) -> bytes:
    bits = WIDTH_BITS[width]
    if bits < 8:
        return _side_by_side(found, bits)
    planes = found.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8)[:, : bits // 8]
    return planes.T.tobytes()


def _side_by_side(found: Unsigned, bits: int) -> bytes:
    if not bits:
        return b""
    each = 8 // bits
    padded = np.zeros(-(-len(found) // each) * each, np.uint8)
    padded[: len(found)] = found
    together = np.zeros(len(padded) // each, np.uint8)
    for place in range(each):
        together |= padded[place::each] << np.uint8(bits * place)
    return together.tobytes()


def _deflated(data: bytes, before: bytes, width: int, form: int = 0) -> bytes:
    """The lot, deflated if that is shorter."""
    if _pays(data):
        stream = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, _MEMORY, zlib.Z_RLE)
        short = stream.compress(data) + stream.flush()
        if len(short) < len(data):
            return _headed(before + short, width, form | DEFLATED)
    return _headed(before + data, width, form)


def _pays(data: bytes) -> bool:
    """Whether bytes are uneven enough that fewer bits can say them, as far as a sample tells."""
    step = max(1, len(data) // _SAMPLE)
    seen = np.bincount(np.frombuffer(data, np.uint8)[::step], minlength=256)
    parts = seen[seen > 0] / max(1, seen.sum())
    return float(-(parts * np.log2(parts)).sum()) < _WORTH


def _headed(data: bytes, width: int, form: int = 0) -> bytes:
    return (len(data) | width << 24 | form).to_bytes(HEADER, "little") + data


# --- reading -----------------------------------------------------------------------------------


def _integers(data: bytes, head: int, count: int) -> Ints:
    width = head >> 24 & 15
    if width >= len(WIDTH_BITS):
        raise BadMessage(f"a lot of integers has width {width}, which there is not")
    if head & SPARSE:
        return _sparse(data, head, width, count)
    return _from_zigzag(_unpacked(_plain(data, head, _size(count, width)), width, count), width)


def _sparse(data: bytes, head: int, width: int, count: int) -> Ints:
    there = int.from_bytes(data[:_COUNT], "little") + 1
    if len(data) < _COUNT or there > count:
        raise BadMessage("a sparse lot has more integers than there are places")
    gaps_end = _size(there, _GAP_WIDTH)
    plain = _plain(data[_COUNT:], head, gaps_end + _size(there, width))
    gaps = _unpacked(plain[:gaps_end], _GAP_WIDTH, there).astype(np.int64)
    places = np.cumsum(gaps + 1) - 1
    if places[-1] >= count:
        raise BadMessage("a sparse lot has integers behind its end")
    found = _unpacked(plain[gaps_end:], width, there)
    if width == len(WIDTH_BITS) - 1 and (found == np.uint64(2**64 - 1)).any():
        raise BadMessage("a sparse lot has an integer that there is not")
    wider = min(width + 1, len(WIDTH_BITS) - 1)  # one more than fits the width does not fit its type
    values = np.zeros(count, _type(wider))
    values[places] = _from_zigzag(found + np.uint64(1), wider)
    return values


def _size(count: int, width: int) -> int:
    """Bytes of so many integers."""
    return -(-count * WIDTH_BITS[width] // 8)


def _plain(data: bytes, head: int, size: int) -> bytes:
    """Exactly ``size`` bytes, inflated if they were deflated; never more is made of them."""
    if head & DEFLATED:
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            plain = stream.decompress(data, size + 1)
        except zlib.error as error:
            raise BadMessage(f"a lot of integers cannot be read: {error}") from error
        if not stream.eof or stream.unused_data:
            raise BadMessage("a lot of integers is cut, too long or has something behind it")
        data = plain
    if len(data) != size:
        raise BadMessage(f"a lot of integers has {len(data)} bytes where there must be {size}")
    return data


def _unpacked(data: bytes, width: int, count: int) -> Unsigned:
    bits = WIDTH_BITS[width]
    if bits < 8:
        return _apart(data, bits, count)
    planes = np.frombuffer(data, np.uint8).reshape(bits // 8, count)
    found: Unsigned = planes[0].astype(np.uint64)
    for place in range(1, bits // 8):
        found |= planes[place].astype(np.uint64) << np.uint64(8 * place)
    return found


def _apart(data: bytes, bits: int, count: int) -> Unsigned:
    found = np.zeros(count, np.uint64)
    if not bits:
        return found
    each, together = 8 // bits, np.frombuffer(data, np.uint8)
    for place in range(each):
        part = found[place::each]
        part[:] = together[: len(part)] >> np.uint8(bits * place) & np.uint8((1 << bits) - 1)
    if -(-count // each) * each != count and together[-1] >> np.uint8(bits * (count % each)):
        raise BadMessage("a lot of integers has something behind its last")
    return found


def _from_zigzag(found: Unsigned, width: int) -> Ints:
    values = (found >> np.uint64(1)).view(np.int64) ^ -(found & np.uint64(1)).view(np.int64)
    return values.astype(_type(width), copy=False)


def _type(width: int) -> type[np.signedinteger]:
    bits = WIDTH_BITS[width]
    return np.int16 if bits <= 16 else np.int32 if bits <= 32 else np.int64
