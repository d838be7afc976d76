"""Which rows this node learns from, and what it learns."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reuna import Dataset, Samples, SoftmaxClassifier, Table, contract, read_folder
from reuna.core.scores import fault_scores

from .features import scale, windows

CLASSES = range(4)  # normal, worn bearing, blocked inlet, cavitation


@dataclass(frozen=True)
class PumpData(Dataset):
    """One pump's windows; ``seen`` are the faults in its training recordings."""

    seen: tuple[int, ...] = ()


class Detector(SoftmaxClassifier):
    """Linear softmax; says how good it is on faults that its site has and has not seen."""

    def evaluate(self, model: Any, data: Any, settings: Mapping[str, Any]) -> dict[str, float]:
        named = self.predict(model, data.test.x).argmax(axis=1)
        return fault_scores(data.test.y, named, CLASSES, data.seen, data.test.group == 0)


def load(folder: Path, settings: Mapping[str, Any]) -> PumpData:
    """This node's windows by split, scaled on its own normal training windows."""
    tables = read_folder(folder)
    cut = {split: [_windows(table, settings) for table in found] for split, found in tables.items()}
    train_x, train_y = _joined(cut["train"])
    normal = train_x[train_y == 0]
    parts = {split: _samples(found, normal) for split, found in cut.items()}
    seen = tuple(int(fault) for fault in np.unique(train_y) if fault)
    return PumpData(parts["train"], parts["validation"], parts["test"], seen)


def learner(settings: Mapping[str, Any]) -> Detector:
    """The model: as many features as `load` makes, as many classes as there are."""
    return Detector(2 * len(contract(settings).signals), len(CLASSES))


def _windows(table: Table, settings: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    agreed = contract(settings)
    values = table.filled([signal.name for signal in agreed.signals])  # refuses empty cells
    return windows(values, table.whole(agreed.label), *agreed.window_rows)


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def _samples(parts: list[tuple[np.ndarray, np.ndarray]], normal: np.ndarray) -> Samples:
    x, y = _joined(parts)
    group = np.concatenate([np.full(len(y), int(y.max())) for _, y in parts])  # 0: nothing happened
    return Samples(scale(x, normal), y, group)
