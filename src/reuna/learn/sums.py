"""Exact weighted sums of integers, block by block, so that memory does not grow with the number of parts.

>>> parts = [Part("plant-1", 2, 3)]
>>> list(fold(lambda part, start, count: np.array([1, 2], "<i2"), parts, 2))[0].tolist()
[3, 6]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from reuna.learn.grid import LOT, Ints

S = TypeVar("S")
BLOCK_VALUES = 4 * LOT  #: values folded at a time: 2 MiB of int64, the cache keeps it


class Part(NamedTuple, Generic[S]):
    """One summand: where to read it, bytes per integer, and what to multiply it by.

    An update is multiplied by its weight; a partial sum, already weighted, by 1.
    """

    source: S
    width: int
    multiplier: int


Read = Callable[[Part[S], int, int], Ints]


def fold(read: Read[S], parts: Sequence[Part[S]], params: int) -> Iterator[NDArray[np.int64]]:
    """Blocks of the sum, in order; each is overwritten by the next.

    ``read(part, start, count)`` gives ``count`` integers from value ``start`` on. No overflow
    can happen when the plan passed `reuna.learn.grid.check_grid` and each part its range check.
    """
    size = min(BLOCK_VALUES, params)
    total = np.empty(size, np.int64)
    scaled = np.empty(size, np.int64)
    for start in range(0, params, BLOCK_VALUES):
        count = min(BLOCK_VALUES, params - start)
        block = total[:count]
        block.fill(0)
        for part in parts:
            _add(block, read(part, start, count), part.multiplier, scaled[:count])
        yield block


def _add(block: NDArray[np.int64], values: Ints, multiplier: int, scratch: NDArray[np.int64]) -> None:
    if multiplier == 1:
        np.add(block, values, out=block)
    else:
        np.multiply(values, np.int64(multiplier), out=scratch)
        np.add(block, scratch, out=block)
