"""Exact squared distances between updates, from their integers on the grid.

The short way, ``|x|^2 + |y|^2 - 2xy`` in floating point, fails when updates are close to each other
and far from nothing: the small distance is the difference of large numbers, and may come out
negative. Here differences to one row are taken first, in integers, and their products are summed in
parts so small that every number on the way is an integer below 2^53: double precision, and the
matrix product of any library, then make no error at all. The result is the true integer, so it is
the same for every block size, order and machine.

>>> rows = np.array([[10**9, 0], [10**9 + 3, 4]], np.int32)
>>> squares(lambda start, count: rows[:, start : start + count], 2, 2).tolist()
[[0, 25], [25, 0]]
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Read = Callable[[int, int], NDArray[np.signedinteger]]  #: (start, count) -> (n, count) integers below 2^31
Exact = NDArray[np.object_]  #: (n, n) whole numbers of any size

LIMB = 18  #: bits; a difference has at most 33 and its sign
CHUNK_VALUES = 2**18  #: differences worked on at a time: 2 MiB, and as much for each limb
MOST_COLUMNS, FEWEST_COLUMNS = 2**16, 2**10
FLUSH = 1024  #: chunks, of which each adds less than 2^53 to a 64-bit sum


def squares(read: Read, rows: int, values: int) -> Exact:
    """Squared distances of all pairs of rows, in steps of the grid: (n, n) Python integers."""
    products = _products(read, rows, values)
    own = products.diagonal()
    found: Exact = own[:, None] + own[None, :] - 2 * products
    return found


def _products(read: Read, rows: int, values: int) -> Exact:
    """Inner products of the differences to the first row."""
    size = max(FEWEST_COLUMNS, min(MOST_COLUMNS, CHUNK_VALUES // max(1, rows)))
    total: Exact = np.zeros((rows, rows), object)
    sums = np.zeros((3, rows, rows), np.int64)  #: of the products of low, mixed and high limbs
    for number, start in enumerate(range(0, values, size)):
        _add_products(read(start, min(size, values - start)), sums)
        if number % FLUSH == FLUSH - 1:
            total, sums = total + _joined(sums), np.zeros_like(sums)
    return np.add(total, _joined(sums))


def _add_products(block: NDArray[np.signedinteger], sums: NDArray[np.int64]) -> None:
    low = np.subtract(block, block[0], dtype=np.float64)
    if low.size == 0:
        return
    if max(low.max(), -low.min()) < 2.0**LIMB:
        sums[0] += (low @ low.T).astype(np.int64)
        return
    high = np.floor(np.multiply(low, 2.0**-LIMB))
    low -= high * 2.0**LIMB
    mixed = low @ high.T
    sums[0] += (low @ low.T).astype(np.int64)
    sums[1] += (mixed + mixed.T).astype(np.int64)
    sums[2] += (high @ high.T).astype(np.int64)


def _joined(sums: NDArray[np.int64]) -> Exact:
    low, mixed, high = (each.astype(object) for each in sums)
    joined: Exact = low + mixed * 2**LIMB + high * 2 ** (2 * LIMB)
    return joined
