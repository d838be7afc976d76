"""Fixed-point encoding on a power-of-two grid, and the bound that keeps sums exact.

A difference ``x`` (new weights minus base weights) is sent as ``q = rint(x / step)`` with
``step = 2**exponent``, clipped to ``±(2**(bits-1) - 1)``. Scaling by a power of two is exact in
binary floating point, so unless a value is clipped ``|q*step - x| <= step/2``. The most negative
integer, ``-2**(bits-1)``, is never a value: whoever sends it is refused.

Integer addition is associative, so any order, any tree of fogs and any retry gives the same
bits, as long as no sum overflows: ``capacity * max_weight * 2**(bits-1) < 2**63`` with
``capacity`` the largest number of nodes in the sum.

>>> q, saturated = encode(np.array([0.26, -9.0]), Grid(bits=8, exponent=-2))
>>> q.tolist(), saturated
([1, -36], 0)
>>> decode(q, Grid(bits=8, exponent=-2)).tolist()
[0.25, -9.0]
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import PlanError, Refused
from reuna.core.records import Grid

Ints = NDArray[np.signedinteger]

_WHOLE = {width: np.dtype(f"<i{width}") for width in (1, 2, 4, 8)}
_SPLIT = {3: (2, 1), 5: (4, 1), 6: (4, 2)}  #: bytes of the low and the high part
_HOLDS: dict[int, type[np.signedinteger]] = {3: np.int32, 5: np.int64, 6: np.int64}  #: as what they are read
ALIGNED = tuple(_WHOLE)  #: of `WIDTHS` those with a type of their own: any of their bytes can be read
WIDTHS = tuple(sorted((*_WHOLE, *_SPLIT)))  #: bytes per integer on the wire
LOT = 65_536  #: integers written together: whole 64 KiB blocks at every width
PIECE = 32_768  #: of them encoded at a time: what that takes stays in the processor's cache
BITS = (4, 8, 16, 32)  #: grids a plan may choose
EXPONENTS = range(-60, 31)


def check_grid(grid: Grid, max_weight: int, capacity: int) -> None:
    """Refuse a plan whose sum could overflow 64 bits. Raises `PlanError`."""
    if grid.bits not in BITS:
        raise PlanError(f"grid bits is {grid.bits}, allowed are {', '.join(map(str, BITS))}")
    if grid.exponent not in EXPONENTS:
        raise PlanError(f"grid exponent {grid.exponent} is outside {EXPONENTS.start}..{EXPONENTS.stop - 1}")
    if max_weight < 1 or capacity < 1:
        raise PlanError(f"max_weight {max_weight} and cohort {capacity} must be at least 1")
    if largest_sum(grid, max_weight, capacity) >= 2**63:
        raise PlanError(
            f"{capacity} nodes with weights up to {max_weight} on a {grid.bits}-bit grid could "
            f"overflow a 64-bit sum ({capacity} * {max_weight} * 2^{grid.bits - 1} >= 2^63)"
        )


def largest_sum(grid: Grid, max_weight: int, capacity: int) -> int:
    """No sum over ``capacity`` nodes is larger in size than this."""
    return int(capacity * max_weight * 2 ** (grid.bits - 1))


def update_width(grid: Grid) -> int:
    """Bytes per integer of a single update."""
    return -(-grid.bits // 8)


def sum_width(grid: Grid, max_weight: int, capacity: int) -> int:
    """Bytes per integer that hold every sum the plan allows."""
    return narrowest(largest_sum(grid, max_weight, capacity))


def narrowest(bound: int) -> int:
    """Fewest bytes per integer, of `WIDTHS`, that hold ``-bound..bound``."""
    return next(width for width in WIDTHS if bound < 2 ** (8 * width - 1))


def needed_width(largest: float, grid: Grid) -> int:
    """Fewest bytes per integer for differences of at most ``largest`` in size.

    Rounding and clipping keep the order of numbers, so the largest alone tells.
    """
    top = 2 ** (grid.bits - 1) - 1
    return narrowest(int(min(np.rint(np.float64(largest) * 2.0**-grid.exponent), top)))


def encode(delta: NDArray[np.floating], grid: Grid) -> tuple[Ints, int]:
    """Integers of the grid, int8, int16 or int32, shape as ``delta``, and how many values were clipped.

    Raises `Refused` for values that are not finite.
    """
    encoder = Encoder(grid)
    return encoder(delta.reshape(-1)).reshape(delta.shape), encoder.saturated


class Encoder:
    """`encode` of one lot after another, and what they come to: each value is read once.

    ``largest`` is the largest in size so far (0 for none), ``squares`` the sum of the squares of the
    integers, ``saturated`` how many were clipped, ``count`` how many there were.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._type = _WHOLE[update_width(grid)]
        self._top = 2 ** (grid.bits - 1) - 1
        self._scale = 2.0**-grid.exponent
        self._scaled = np.empty(0, np.float64)
        self.largest = self.squares = 0.0
        self.saturated = self.count = 0

    @property
    def width(self) -> int:
        """Fewest bytes per integer for all so far."""
        return needed_width(self.largest, self._grid)

    def __call__(self, delta: NDArray[np.floating]) -> Ints:
        """The integers of a vector. Raises `Refused` ('not-finite')."""
        sent, most = np.empty(delta.shape, self._type), min(PIECE, len(delta))
        if len(self._scaled) < most:  # a small model needs little, and a simulated fleet has thousands
            self._scaled = np.empty(most, np.float64)
        for at in range(0, len(delta), PIECE):
            self._take(delta[at : at + PIECE], sent[at : at + PIECE])
        return sent

    def _take(self, delta: NDArray[np.floating], sent: Ints) -> None:
        self.largest = max(self.largest, largest(delta, self.count))
        self.count += len(delta)
        scaled = np.multiply(delta, self._scale, out=self._scaled[: len(delta)], dtype=np.float64)
        np.rint(scaled, out=scaled)
        if self.largest > self._top * self._grid.step:
            self.saturated += int(np.count_nonzero(np.abs(scaled) > self._top))
            np.clip(scaled, -self._top, self._top, out=scaled)
        self.squares += float(np.dot(scaled, scaled))
        np.copyto(sent, scaled, casting="unsafe")


def largest(delta: NDArray[np.floating], before: int = 0) -> float:
    """The largest in size of a vector's values after ``before``. Raises `Refused` ('not-finite')."""
    found = max(float(np.maximum.reduce(delta)), -float(np.minimum.reduce(delta)))
    if not math.isfinite(found):  # a NaN is the largest and the smallest
        raise Refused("not-finite", f"the update has values that are not finite after value {before}")
    return found


def decode(values: Ints, grid: Grid, weight: int = 1) -> NDArray[np.float64]:
    """Differences that the integers stand for, float64 (exact for every grid a plan allows).

    Of a sum with ``weight`` in it their mean: the step is a power of two, so one division rounds what the
    quotient of the exact differences would.
    """
    return np.divide(values, weight * 2.0**-grid.exponent, dtype=np.float64)


def pack(values: Ints, width: int) -> bytes | memoryview:
    """``values`` (any length) as bytes, little-endian, ``width`` bytes each.

    Widths without a type of their own are written lot by lot (`LOT`): first the low parts of the
    integers, unsigned, then their high parts, signed. The values must fit.
    """
    if width in _WHOLE:
        return np.ascontiguousarray(values, _WHOLE[width]).data.cast("B")
    data = np.empty(len(values) * width, np.uint8)
    for at in range(0, len(values), LOT):
        _split(values[at : at + LOT], data[at * width :], width)
    return data.data


def _split(lot: Ints, data: NDArray[np.uint8], width: int) -> None:
    low, high = _parts(data, len(lot), width)
    np.copyto(low, lot, casting="unsafe")
    np.copyto(high, lot >> 8 * low.itemsize, casting="unsafe")


def unpack(data: bytes | memoryview, width: int) -> Ints:
    """The integers that `pack` wrote; ``data`` is whole lots, but for the last. A view where it can be."""
    if width in _WHOLE:
        return np.frombuffer(data, _WHOLE[width])
    given = np.frombuffer(data, np.uint8)
    values: Ints = np.empty(len(given) // width, _HOLDS[width])
    for at in range(0, len(values), LOT):
        _join(values[at : at + LOT], given[at * width :], width)
    return values


def _join(lot: Ints, data: NDArray[np.uint8], width: int) -> None:
    low, high = _parts(data, len(lot), width)
    lot[:] = high
    lot <<= 8 * low.itemsize
    lot |= low


def _parts(data: NDArray[np.uint8], count: int, width: int) -> tuple[NDArray[np.unsignedinteger], Ints]:
    """The low and the high parts of so many integers, in the bytes of their lot."""
    low, high = _SPLIT[width]
    return data[: low * count].view(f"<u{low}"), data[low * count : width * count].view(f"<i{high}")


def within(values: Ints, bound: int) -> bool:
    """Whether every integer lies in ``-bound..bound``."""
    if not values.size:
        return True
    fits = bound >= np.iinfo(values.dtype).max  # the type holds nothing above
    return int(np.minimum.reduce(values)) >= -bound and (fits or int(np.maximum.reduce(values)) <= bound)
