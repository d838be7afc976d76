"""How far an update or a sum goes, told from the integers that leave."""

from __future__ import annotations

import math

import numpy as np

from reuna.core.ports import Blob
from reuna.core.records import Contribution, Grid
from reuna.exchange.bodies import integers


def length(manifest: Contribution, body: Blob, grid: Grid) -> float:
    """Length (L2) of an encoded update; of a partial sum that of the mean over its weight."""
    squares = 0.0
    for each in integers(manifest, body):
        values = each.astype(np.float64)
        squares += float(np.dot(values, values))
    over = manifest.weight if manifest.kind == "partial" else 1
    return math.sqrt(squares) * grid.step / over
