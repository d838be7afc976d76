"""Coarse grids, and nothing lost in the long run: rounding by chance, largest values, error feedback.

What is to be sent is a whole number of *fine* steps, ``2**fine_bits`` of which are one step of the grid.
Whatever of it is not sent stays as fine steps and is added in the next round, so what was sent and what is
left are together exactly what was wanted:

    wanted = fine(difference) + left        rounded(wanted) * 2**fine_bits + left' = wanted

    stochastic rounding   Gupta et al. 2015, Deep Learning with Limited Numerical Precision: up with the
                          probability of the fraction, so that the mean over all noise is ``wanted`` itself
    error feedback        Seide et al. 2014, 1-Bit Stochastic Gradient Descent; Karimireddy et al. 2019
    largest values        Stich et al. 2018, Sparsified SGD with Memory: the k largest in size, the earlier
                          one where two are equal

Noise is a function of its key and the place of a value (Philox, counter-based), so a node that makes the same
update again makes the same bytes.

>>> grid = Grid(bits=8, exponent=0)
>>> wanted = fine(np.array([0.25, -300.0]), grid)
>>> sent, clipped = rounded(wanted, grid)
>>> sent.tolist(), clipped, (unsent(wanted, sent, grid) / 2.0 ** fine_bits(grid)).tolist()
([0, -127], 1, [0.25, -173.0])
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import PlanError
from reuna.core.records import Encoding, Grid
from reuna.learn.grid import EXPONENTS, Ints

FINEST = 24  #: bits of the grid and of a fine step in it, together
LEFT_TYPE = np.dtype("<i4")  #: of what is left
_MOST_LEFT = 2**31 - 1
STEP = 2  #: mean sizes of an update in a step of a grid that follows it
FARTHEST = 8  #: powers of two by which the step changes from one round to the next, at most
MANY = 1000  #: when one of so many values is clipped, the step is too small
PARTS = 256  #: of a step, in which is told how large a robust step is
_PART = 16  #: bits of a size that are counted at a time

Wide = NDArray[np.int64]
Noise = NDArray[np.int64]


def check_encoding(encoding: Encoding | None, grid: Grid) -> None:
    """Refuse what cannot be, or would not make an update smaller. Raises `PlanError`."""
    asked = encoding or Encoding(packed=False)
    if not 0 < asked.keep <= 1:
        raise PlanError(f"round.keep is {asked.keep}; it is a fraction above 0 and up to 1")
    if asked.keep < 1 and not (asked.feedback and asked.packed):
        raise PlanError(
            f"round.keep is {asked.keep}, and what is not kept would be lost for ever or sent as zeros",
            'Set round.feedback = true and round.packed = "auto" with it.',
        )
    if asked.follow and not asked.packed:
        raise PlanError(
            "a grid whose step follows the updates saves nothing unless they are packed",
            'Set round.packed = "auto", or round.grid_exponent.',
        )
    if asked.stochastic and not fine_bits(grid):
        raise PlanError(
            f"round.rounding is stochastic on a {grid.bits}-bit grid, which has no finer steps",
            'Set round.grid_bits to 16 or less, or round.rounding = "nearest".',
        )
    if grid.bits < 8 and not asked.packed:
        raise PlanError(
            f"round.grid_bits is {grid.bits}, and integers of less than a byte are sent packed only",
            'Set round.packed = "auto".',
        )


def fine_bits(grid: Grid) -> int:
    """A step of the grid is ``2**fine_bits`` fine ones."""
    return max(0, FINEST - grid.bits)


def fine(delta: NDArray[np.floating], grid: Grid) -> Wide:
    """Finite differences in fine steps, cut where nobody could ever send them."""
    scaled = np.multiply(delta, 2.0 ** (fine_bits(grid) - grid.exponent), dtype=np.float64)
    np.rint(scaled, out=scaled)
    np.clip(scaled, -_MOST_LEFT, _MOST_LEFT, out=scaled)
    wide: Wide = scaled.astype(np.int64)
    return wide


def rounded(wanted: Wide, grid: Grid, noise: Noise | None = None) -> tuple[Wide, int]:
    """Integers of the grid, and how many were clipped.

    With ``noise``, ``0..2**fine_bits - 1`` for each value, up or down by chance, else to the nearest.
    """
    bits = fine_bits(grid)
    half = (1 << bits) >> 1
    sent = (wanted + (half if noise is None else noise)) >> bits
    top = 2 ** (grid.bits - 1) - 1
    clipped = int(np.count_nonzero((sent > top) | (sent < -top)))
    return np.clip(sent, -top, top, out=sent), clipped


def rescaled(left: NDArray[np.signedinteger], exponent: int, grid: Grid) -> Wide:
    """What a round with another exponent left, in fine steps of this grid, the nearest."""
    shift, wide = exponent - grid.exponent, left.astype(np.int64)
    if shift >= 0:
        wide <<= min(shift, 31)
        return np.clip(wide, -_MOST_LEFT, _MOST_LEFT, out=wide)
    less = min(-shift, 40)  # of 32 bits nothing is left then
    wide += 1 << (less - 1)
    wide >>= less
    return wide


def unsent(wanted: Wide, sent: Ints, grid: Grid) -> Wide:
    """Fine steps that are left, cut to what 32 bits hold."""
    left = wanted - (sent.astype(np.int64, copy=False) << fine_bits(grid))
    return np.clip(left, -_MOST_LEFT, _MOST_LEFT, out=left)


def noise_key(seed: int, round: int, node: str) -> int:
    """Key of one node's noise in one round of a run with ``seed``; the same after any restart."""
    return int.from_bytes(hashlib.sha256(f"rounding/{seed}/{round}/{node}".encode()).digest()[:16], "big")


def noise(key: int, lot: int, count: int, grid: Grid) -> Noise:
    """Noise for the values of one lot."""
    raw = np.random.Philox(key=key, counter=lot << 192).random_raw(-(-count // 2))
    return (raw.astype("<u8").view("<u4")[:count] & np.uint32((1 << fine_bits(grid)) - 1)).astype(np.int64)


def parts_of(step: NDArray[np.float64], grid: Grid) -> Wide:
    """Differences as whole `PARTS` of a step of the grid, the nearest."""
    parts: Wide = np.rint(np.multiply(step, PARTS * 2.0**-grid.exponent)).astype(np.int64)
    return parts


class Size:
    """The sizes of a sum's integers, added up exactly: the same on any machine."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, block: Ints) -> None:
        """A block of the sum, not empty."""
        sizes = np.abs(block)
        if len(sizes) * int(sizes.max()) < 2**63:
            self.total += int(sizes.sum())
        else:
            self.total += (int((sizes >> 32).sum()) << 32) + int((sizes & 0xFFFFFFFF).sum())


def followed(grid: Grid, total: int, weights: int, clipped: int, values: int) -> int:
    """The exponent of the grid after a round: its step is near `STEP` times the mean update's mean size.

    ``total`` over ``weights`` is that size in steps of ``grid``; ``clipped`` of ``values`` did not fit it.
    """
    shift = _log2(STEP * total, weights) if total else -FARTHEST
    if clipped * MANY > values:
        shift = max(shift, FARTHEST // 2)
    shift = min(max(shift, -FARTHEST), FARTHEST)
    return min(max(grid.exponent + shift, EXPONENTS.start), EXPONENTS.stop - 1)


def _log2(over: int, under: int) -> int:
    """The whole part of the logarithm of a fraction above 0, to the base of 2; exact."""
    found = over.bit_length() - under.bit_length()
    less = over < under << found if found >= 0 else over << -found < under
    return found - less


class Largest:
    """Which values are sent when only the ``keep`` largest are; asked lot by lot, in order.

    ``lots`` gives all that is wanted, lot by lot, each time it is called: twice, whatever the size, so that
    nobody holds it all.
    """

    def __init__(self, lots: Callable[[], Iterable[Wide]], keep: int) -> None:
        high = _counted(np.abs(wanted) >> _PART for wanted in lots())
        self._least, more = _reaching(high, keep)
        low = _counted(_of_part(np.abs(wanted), self._least) for wanted in lots())
        least, equal = _reaching(low, more)
        self._least = self._least << _PART | least
        self._equal = equal  #: of those exactly so large that are still to be taken

    def of(self, wanted: Wide) -> Wide:
        """The lot with zeros for all that is not sent."""
        size = np.abs(wanted)
        taken = size > self._least
        equal = np.flatnonzero(size == self._least)[: self._equal]
        self._equal -= len(equal)
        taken[equal] = True
        return np.where(taken, wanted, 0)


def _counted(parts: Iterable[Wide]) -> Wide:
    """How often each number of `_PART` bits is there."""
    seen = np.zeros(1 << _PART, np.int64)
    for part in parts:
        seen += np.bincount(part, minlength=1 << _PART)
    return seen


def _of_part(sizes: Wide, high: int) -> Wide:
    """The low bits of those whose high bits are these."""
    low: Wide = sizes[sizes >> _PART == high] & ((1 << _PART) - 1)
    return low


def _reaching(seen: Wide, keep: int) -> tuple[int, int]:
    """The number with which ``keep`` are reached, from the largest on, and how many of it are needed."""
    from_above = np.cumsum(seen[::-1])
    place = int(np.searchsorted(from_above, keep))
    before = int(from_above[place - 1]) if place else 0
    return len(seen) - 1 - place, keep - before
