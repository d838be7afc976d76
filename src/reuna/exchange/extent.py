"""How far an update or a sum goes, told from the integers that leave."""

from __future__ import annotations

import math

import numpy as np

from reuna.core.ports import Blob
from reuna.core.records import Contribution, Grid
from reuna.learn.grid import LOT, unpack


def length(manifest: Contribution, body: Blob, grid: Grid) -> float:
    """Length (L2) of an encoded update; of a partial sum that of the mean over its weight."""
    squares, lot = 0.0, LOT * manifest.width
    for start in range(0, manifest.size, lot):
        data = body.read(start, min(lot, manifest.size - start))
        values = unpack(data, manifest.width).astype(np.float64)
        squares += float(np.dot(values, values))
    over = manifest.weight if manifest.kind == "partial" else 1
    return math.sqrt(squares) * grid.step / over
