"""Rows as they cross the line to the fog, and back. Apart from the records, which need no numpy."""

from __future__ import annotations

import numpy as np

from reuna.core.grid import Cells, Rows
from reuna.core.second import Doubtful, Window

MAX_CELLS = 300_000  #: of all windows of a question, so that it fits a message


def packed(rows: Rows, start: int, length: int, before: int) -> Window:
    """The window of ``length`` rows from row ``start`` on, and at most ``before`` rows ahead of it."""
    ahead = min(before, start)
    first, count = start - ahead, ahead + length
    part = slice(first, first + count)
    cells = {
        name: (each.values[part].astype("<f8").tobytes(), each.good[part].astype(np.bool_).tobytes())
        for name, each in rows.cells.items()
    }
    return Window(rows.first_ns + first * rows.every_ns, ahead, count, cells)


def unpacked(asked: Doubtful, window: Window) -> Rows | None:
    """Its rows; None for cells that are not of so many rows."""
    cells = {}
    for name, (values, good) in window.cells.items():
        if len(values) != 8 * window.count or len(good) != window.count or name not in asked.units:
            return None
        known = np.frombuffer(good, np.uint8) != 0
        cells[name] = Cells(np.frombuffer(values, "<f8").astype(np.float64), known)
    return Rows(window.first_ns, asked.every_ns, window.count, cells, window.before)
