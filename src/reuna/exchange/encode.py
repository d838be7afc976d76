"""Trained weights as integers on the plan's grid, block by block; memory does not grow with the model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import Refused
from reuna.core.ports import Blob, BlobWriter
from reuna.core.records import Grid
from reuna.learn import grid as fixed

SAFE = 1e12  #: float32 values below this can be squared and added up


class Extent(NamedTuple):
    """How far an update goes: its largest value in size, its length (L2)."""

    largest: float
    norm: float


def extent(base: Blob, weights: Blob, params: int) -> Extent:
    """Of ``weights - base``.

    Both blobs are models as `reuna.core.tensors.pack` writes them, with equal headers. Raises
    `Refused` for another shape or a value that is not finite.
    """
    largest, squares = 0.0, 0.0
    for first, delta in _differences(base, weights, params):
        found = max(float(delta.max()), -float(delta.min()))
        if not math.isfinite(found):  # a NaN is the largest and the smallest
            raise Refused("not-finite", f"the update has values that are not finite after value {first}")
        largest = max(largest, found)
        squares += float(np.dot(delta, delta)) if found < SAFE else float(np.square(delta, dtype=float).sum())
    return Extent(largest, math.sqrt(squares))


def encode_difference(base: Blob, weights: Blob, params: int, grid: Grid, width: int, out: BlobWriter) -> int:
    """Write ``weights - base`` on the grid in ``width`` bytes each; how many values were clipped."""
    saturated = 0
    for _, delta in _differences(base, weights, params):
        integers, clipped = fixed.encode(delta, grid)
        saturated += clipped
        out.write(fixed.pack(integers, width))
    return saturated


def _differences(base: Blob, weights: Blob, params: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Where each lot begins, and its values; whole blocks of any width but for the last."""
    start = _same_header(base, weights, params)
    for first in range(0, params, fixed.LOT):
        count = min(fixed.LOT, params - first)
        yield first, _floats(weights, start, first, count) - _floats(base, start, first, count)


def schema_of(model: Blob) -> str:
    """SHA-256 of a model's header: names and shapes of its tensors."""
    length = int.from_bytes(model.read(0, 8), "little") + 8
    return hashlib.sha256(model.read(0, length)).hexdigest()


def _same_header(base: Blob, weights: Blob, params: int) -> int:
    """Where the values start, once both headers are known to be equal."""
    length = int.from_bytes(base.read(0, 8), "little") + 8
    sizes = {base.size, weights.size}
    if sizes != {length + 4 * params} or base.read(0, length) != weights.read(0, length):
        raise Refused("shape", "the trained model's tensors are not those of the base model")
    return length


def _floats(blob: Blob, start: int, first: int, count: int) -> NDArray[np.float32]:
    return np.frombuffer(blob.read(start + 4 * first, 4 * count), "<f4")
