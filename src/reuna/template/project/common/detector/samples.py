"""From a node's folder to samples: its tables by split, cut into windows and scaled."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reuna import Samples, Table, contract, per_table, read_folder

from .features import scale, windows

Cut = tuple[np.ndarray, np.ndarray, np.ndarray]  # features; label of each window's first and last row
Labelled = tuple[np.ndarray, np.ndarray]  # features; each window's label


def splits(
    folder: Path,
    settings: Mapping[str, Any],
    read: Callable[[Table, str], np.ndarray],
    label: Callable[[Cut], Labelled],
    is_normal: Callable[[np.ndarray], np.ndarray],
) -> dict[str, Samples]:
    """Train, validation and test samples; ``group`` is the largest label of a window's recording.

    ``read`` takes the labels out of a table, ``label`` gives windows theirs, ``is_normal`` marks those
    of the training windows that the features are scaled on.
    """
    agreed = contract(settings)
    names = tuple(signal.name for signal in agreed.signals)
    how = (names, read, label, agreed.label, *agreed.window_rows)
    tables = read_folder(folder)
    parts = {split: [_cut(table, *how) for table in found] for split, found in tables.items()}
    x, y = _joined(parts["train"])
    return {split: _samples(found, x[is_normal(y)]) for split, found in parts.items()}


@per_table  # a machine that answers live keeps its tables: their features are made once
def _cut(
    table: Table,
    names: tuple[str, ...],
    read: Callable[[Table, str], np.ndarray],
    label: Callable[[Cut], Labelled],
    labels: str,
    rows: int,
    step: int,
) -> Labelled:
    values = table.filled(names)  # refuses empty cells
    return label(windows(values, read(table, labels), rows, step))


def width(settings: Mapping[str, Any]) -> int:
    """How many features a sample has."""
    return 2 * len(contract(settings).signals)


def undivided(cut: Cut) -> Labelled:
    """Windows with one label; those that straddle the onset of something are left out."""
    features, first, last = cut
    return features[first == last], first[first == last]


def _joined(parts: list[Labelled]) -> Labelled:
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def _samples(parts: list[Labelled], normal: np.ndarray) -> Samples:
    x, y = _joined(parts)
    group = np.concatenate([np.full(len(y), int(y.max(initial=0))) for _, y in parts])
    return Samples(scale(x, normal), y, group)
