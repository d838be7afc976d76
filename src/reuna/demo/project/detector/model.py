"""Which rows a plant learns from and what it learns: a linear softmax over one-hour windows.

Every plant scales on its own normal hours and sets its own alarm threshold on its own
validation runs; only the weights of the classifier are shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reuna.adapters.linear import SoftmaxClassifier
from reuna.adapters.tables import Table, per_table, read_folder
from reuna.core.contract import contract
from reuna.core.data import Dataset, Samples
from reuna.core.errors import DataError
from reuna.core.ports import Tensors
from reuna.core.records import Metrics, Setting
from reuna.core.scores import fault_scores

from .calibration import choose_threshold, decide
from .features import NORMAL, Floats, Labels, Scaler, apply_scaler, fit_scaler, windows

FAULTS = (1, 2, 4, 6, 7, 14, 17)
CLASSES = np.array([NORMAL, *FAULTS])
SIGNALS = 53
FEATURES = 3 * SIGNALS
NOT_SIGNALS = ("minute", "fault")
Cut = tuple[int, int]  #: rows of a window, and rows from one start to the next


@dataclass(frozen=True)
class PlantWindows(Dataset):
    """A plant's windows; ``seen`` are the faults in its training runs."""

    seen: tuple[int, ...] = ()


class FaultClassifier(SoftmaxClassifier):
    """Names the fault of a window, after calibration on the site's own validation windows."""

    def evaluate(self, model: Tensors, data: Dataset, settings: Mapping[str, Setting]) -> Metrics:
        """Macro-F1 on all, seen and unseen faults of the test runs, and false alarms."""
        validation, test = data.validation, data.test
        normal = self.predict(model, validation.x[validation.y == NORMAL])
        named = decide(self.predict(model, test.x), choose_threshold(normal))
        seen = data.seen if isinstance(data, PlantWindows) else ()
        places = range(len(CLASSES))
        truth = test.y.astype(np.int64)
        return fault_scores(truth, named, places, [_place(fault) for fault in seen], test.group == NORMAL)


def load(folder: Path, settings: Mapping[str, Setting]) -> PlantWindows:
    """One plant's windows, scaled on its own normal training hours."""
    tables, cut = read_folder(folder), contract(settings).window_rows
    train, labels = _cut(tables.get("train", []), folder, cut)
    scaler = fit_scaler(train[labels == NORMAL])
    seen = tuple(int(fault) for fault in np.unique(labels) if fault != NORMAL)
    return PlantWindows(
        _samples(tables["train"], scaler, folder, cut),
        _samples(tables.get("validation", []), scaler, folder, cut),
        _samples(tables.get("test", []), scaler, folder, cut),
        seen,
    )


def learner(settings: Mapping[str, Setting]) -> FaultClassifier:
    """The classifier over the seven faults and normal."""
    return FaultClassifier(FEATURES, len(CLASSES))


def _cut(runs: Iterable[Table], folder: Path, cut: Cut) -> tuple[Floats, Labels]:
    parts = [_windows(run, cut) for run in runs]
    if not parts:
        raise DataError(f"{folder} has no training, validation or test runs")
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


@per_table
def _windows(run: Table, cut: Cut) -> tuple[Floats, Labels]:
    names = [name for name in run.columns if name not in NOT_SIGNALS]
    if len(names) != SIGNALS or "fault" not in run.columns:
        raise DataError(f"{run.path} has {len(names)} signals and needs {SIGNALS}, and a column fault")
    return windows(run.filled(names), run.columns["fault"].astype(np.int32), *cut)


def _samples(runs: list[Table], scaler: Scaler, folder: Path, cut: Cut) -> Samples:
    """Scaled windows with class places; ``group`` is 0 for the windows of runs without any fault."""
    features, labels = _cut(runs, folder, cut)
    groups = [
        np.full(len(_windows(run, cut)[1]), int(np.any(run.columns["fault"] != NORMAL))) for run in runs
    ]
    places = np.searchsorted(CLASSES, labels)
    return Samples(apply_scaler(scaler, features), places.astype(np.int64), np.concatenate(groups))


def _place(fault: int) -> int:
    return int(np.searchsorted(CLASSES, fault))
