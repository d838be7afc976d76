"""Exact weighted sums of integers, block by block, so that memory does not grow with the number of parts.

>>> parts = [Part("plant-1", 2, 3)]
>>> list(fold(lambda part, start, count: np.array([1, 2], "<i2"), parts, 2))[0].tolist()
[3, 6]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from reuna.learn.grid import LOT, Ints

S = TypeVar("S")
BLOCK_VALUES = LOT  #: values folded at a time: half a MiB of int64, which the cache keeps


class Part(NamedTuple, Generic[S]):
    """One summand: where to read it, bytes per integer, and what to multiply it by.

    An update is multiplied by its weight; a partial sum, already weighted, by 1.
    """

    source: S
    width: int
    multiplier: int


Read = Callable[[Part[S], int, int], Ints]


def fold(read: Read[S], parts: Sequence[Part[S]], params: int) -> Iterator[Ints]:
    """Blocks of the sum, in order, int32 where its parts cannot come to more, else int64.

    Each block is overwritten by the next. ``read(part, start, count)`` gives ``count`` integers from value
    ``start`` on, which fit the part's width. No overflow can happen when the plan passed
    `reuna.learn.grid.check_grid` and each part its range check.
    """
    size = min(BLOCK_VALUES, params)
    most = sum(part.multiplier << 8 * part.width - 1 for part in parts)
    total: Ints = np.empty(size, np.int32 if most < 2**31 else np.int64)
    for start in range(0, params, BLOCK_VALUES):
        count = min(BLOCK_VALUES, params - start)
        block = total[:count]
        block.fill(0)
        for part in parts:
            _add(block, read(part, start, count), part.multiplier)
        yield block


def _add(block: Ints, values: Ints, multiplier: int) -> None:
    """What is read fits the block's type, and may come in a wider one."""
    if multiplier != 1:
        values = np.multiply(values, multiplier, dtype=block.dtype, casting="unsafe")
    np.add(block, values, out=block, dtype=block.dtype, casting="unsafe")
