"""Order statistics of each value over the nodes: median and trimmed mean, by a sorting network.

A block is (n, count): one row a node, one column a value. The comparators of Batcher's odd-even merge
sort (Batcher 1968, Sorting Networks and their Applications) run over whole rows, so that each is two
vector instructions a value; those that no wanted row needs are left out. Blocks are as large as the
cache, so that memory does not grow with the model.

Both give the very bits of their plain definitions over ``block + 0.0`` (so that -0.0 is 0.0), whose
values must be finite:

    median        np.median(block, axis=0)
    trimmed mean  the sum in double of the rows of np.sort(block, axis=0)[k : n - k], from the smallest
                  on, divided by n - 2k

The trimmed mean is that of Yin et al. 2018, Byzantine-Robust Distributed Learning, as is the analysis
of the median.

>>> median(np.array([[1, 9], [2, 8], [90, -7]])).tolist()
[2.0, 8.0]
>>> trimmed_mean(np.array([[1, 9], [2, 8], [90, -7], [4, 4]]), 1).tolist()
[3.0, 6.0]
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Block = NDArray[Any]  #: (n, count), of one integer or floating type
BLOCK_BYTES = 4 * 2**20  #: of a block that is sorted
FEWEST_COLUMNS = 1024  #: of a block, however many rows: calls cost less than work


class Comparator(NamedTuple):
    """Puts the smaller of two rows into ``low``, the larger into ``high``, or only one of them."""

    low: int
    high: int
    needs_low: bool
    needs_high: bool


def columns_of(rows: int, itemsize: int) -> int:
    """Columns of a block of so many rows that the cache keeps."""
    return max(FEWEST_COLUMNS, BLOCK_BYTES // (itemsize * max(1, rows)))


def median(block: Block) -> NDArray[np.floating]:
    """Median of each column, (count,): float32 for float32, else float64."""
    rows = len(block)
    below, above = (rows - 1) // 2, rows // 2

    def middle(ordered: list[Block]) -> NDArray[np.floating]:
        kind = np.float32 if block.dtype == np.float32 else np.float64
        total = np.add(ordered[below], ordered[above], dtype=kind)
        return np.multiply(total, kind(0.5), out=total) if below != above else ordered[below].astype(kind)

    found: NDArray[np.floating] = _by_blocks(block, {below, above}, middle)
    return found


def trimmed_mean(block: Block, trim: int) -> NDArray[np.float64]:
    """Mean of each column without its ``trim`` smallest and largest values, (count,); 2·trim < n."""
    kept = range(trim, len(block) - trim)

    def mean(ordered: list[Block]) -> NDArray[np.floating]:
        total = ordered[kept[0]].astype(np.float64)
        for row in kept[1:]:
            np.add(total, ordered[row], out=total)
        return np.divide(total, len(kept), out=total)

    found: NDArray[np.float64] = _by_blocks(block, kept, mean)
    return found


def _by_blocks(
    block: Block, wanted: Collection[int], fold: Callable[[list[Block]], NDArray[np.floating]]
) -> Any:
    """``fold`` over the ``wanted`` rows in order, block by block; others are in no order."""
    rows, values = block.shape
    size = min(values, columns_of(rows, block.itemsize))
    scratch = np.empty((rows + 1, size), block.dtype)
    network = _network(rows, frozenset(wanted))
    found: NDArray[np.floating] | None = None
    for start in range(0, values, size or 1):
        count = min(size, values - start)
        folded = fold(_ordered(block[:, start : start + count], scratch[:, :count], network))
        if found is None:
            found = np.empty(values, folded.dtype)
        found[start : start + count] = folded
    return np.empty(0) if found is None else found


def _ordered(block: Block, scratch: Block, network: Iterable[Comparator]) -> list[Block]:
    """Rows of ``block`` in order, in ``scratch``, which has one row more."""
    *rows, spare = scratch
    for row, values in zip(rows, block, strict=True):
        np.add(values, values.dtype.type(0), out=row)
    for low, high, needs_low, needs_high in network:
        a, b = rows[low], rows[high]
        if needs_low and needs_high:
            np.minimum(a, b, out=spare)
            np.maximum(a, b, out=b)
            rows[low], spare = spare, a
        elif needs_low:
            np.minimum(a, b, out=a)
        else:
            np.maximum(a, b, out=b)
    return rows


@lru_cache(maxsize=16)
def _network(rows: int, wanted: frozenset[int]) -> tuple[Comparator, ...]:
    """Comparators that bring the ``wanted`` rows to their places."""
    needed, kept = set(wanted), []
    for low, high in reversed(list(_odd_even_merge_sort(rows))):
        if low in needed or high in needed:
            kept.append(Comparator(low, high, low in needed, high in needed))
            needed |= {low, high}
    return tuple(reversed(kept))


def _odd_even_merge_sort(rows: int) -> Iterable[tuple[int, int]]:
    """Batcher's network for any number of rows, as pairs of places."""
    span = 1
    while span < rows:
        step = span
        while step >= 1:
            for first in range(step % span, rows - step, 2 * step):
                for low in range(first, min(first + step, rows - step)):
                    if low // (2 * span) == (low + step) // (2 * span):
                        yield low, low + step
            step //= 2
        span *= 2
