"""How far an update or a sum goes, told from the integers that leave."""

from __future__ import annotations

import math

import numpy as np

from reuna.core.ports import Blob
from reuna.core.records import Contribution, Grid
from reuna.learn.grid import LOT, unpack


def length(manifest: Contribution, body: Blob, grid: Grid) -> float:
    """Length (L2) of an encoded update, of several the largest; of a sum that of the mean by its weight."""
    size = manifest.params * manifest.width
    squares = max(_squares(body, start, size, manifest.width) for start in range(0, manifest.size, size))
    over = manifest.weight if manifest.kind == "partial" else 1
    return math.sqrt(squares) * grid.step / over


def _squares(body: Blob, first: int, size: int, width: int) -> float:
    found, lot = 0.0, LOT * width
    for start in range(0, size, lot):
        values = unpack(body.read(first + start, min(lot, size - start)), width).astype(np.float64)
        found += float(np.dot(values, values))
    return found
