"""How far an update or a sum goes, told from the integers that leave."""

from __future__ import annotations

import math

import numpy as np

from reuna.core.ports import Blob
from reuna.core.records import Contribution, Grid
from reuna.exchange.bodies import Between, lot_by_lot, open_each


def length(manifest: Contribution, body: Blob, grid: Grid) -> float:
    """Length (L2) of an encoded update, of several the largest; of a sum that of the mean by its weight."""
    squares = max(_squares(between, manifest.params) for between in open_each(manifest, body))
    over = manifest.weight if manifest.kind == "partial" else 1
    return math.sqrt(squares) * grid.step / over


def _squares(between: Between, params: int) -> float:
    found = 0.0
    for each in lot_by_lot(between, params):
        values = each.astype(np.float64)
        found += float(np.dot(values, values))
    return found
