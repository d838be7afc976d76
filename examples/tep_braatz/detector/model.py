"""Which fault the plant shows: a linear softmax over 18 faults and normal, federated.

Every plant scales on its own normal hours. It learns from its own faults only, and is tested on all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reuna.adapters.linear import SoftmaxClassifier
from reuna.adapters.tables import Table, read_folder
from reuna.core.data import Dataset, Samples
from reuna.core.ports import Tensors
from reuna.core.records import Metrics, Setting

from .features import (
    CLASSES,
    FEATURES,
    NORMAL,
    SIGNALS,
    Floats,
    Labels,
    Scale,
    apply_scale,
    fit_scale,
    windows,
)


@dataclass(frozen=True)
class Plant(Dataset):
    """A plant's windows; ``seen`` are the classes in its training runs."""

    seen: tuple[int, ...] = ()


class FaultClassifier(SoftmaxClassifier):
    """Scores by macro-F1, on all faults and on those the plant has and has not trained on."""

    def evaluate(self, model: Tensors, data: Dataset, settings: Mapping[str, Setting]) -> Metrics:
        """``all``, ``seen``, ``unseen`` and ``false_alarms`` on the test runs."""
        truth, said = data.test.y, self.predict(model, data.test.x).argmax(axis=1)
        seen = data.seen if isinstance(data, Plant) else ()
        scores = [f1(truth == each, said == each) for each in range(len(CLASSES))]
        faults = range(1, len(CLASSES))
        known = [scores[each] for each in faults if each in seen]
        unknown = [scores[each] for each in faults if each not in seen]
        parts = {"all": scores, "seen": known, "unseen": unknown}
        found = {name: float(np.mean(part)) for name, part in parts.items() if part}
        alarms = said[data.test.group == NORMAL] != NORMAL
        return {**found, "false_alarms": float(np.mean(alarms))}


def f1(true: np.ndarray, said: np.ndarray) -> float:
    """F1 of two Boolean arrays; 0 when neither holds anything."""
    size = int(true.sum()) + int(said.sum())
    return 2 * int((true & said).sum()) / size if size else 0.0


def load(folder: Path, settings: Mapping[str, Setting]) -> Plant:
    """This plant's windows, one run a file."""
    runs = read_folder(folder)
    x, states = _cut(runs["train"])
    scale = fit_scale(x[states == NORMAL])
    train = _samples(runs["train"], scale)
    seen = tuple(int(each) for each in np.unique(train.y))
    return Plant(train, _samples(runs["validation"], scale), _samples(runs["test"], scale), seen)


def learner(settings: Mapping[str, Setting]) -> FaultClassifier:
    """One row of weights per class."""
    return FaultClassifier(FEATURES, len(CLASSES))


def _cut(runs: Sequence[Table]) -> tuple[Floats, Labels]:
    parts = [_windows(run) for run in runs]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _windows(run: Table) -> tuple[Floats, Labels]:
    signals = run.filled(SIGNALS).astype(np.float64)
    return windows(signals, run.matrix(["fault"])[:, 0].astype(np.int64))


def _samples(runs: Sequence[Table], scale: Scale) -> Samples:
    """Scaled windows with class places; ``group`` is the fault of the window's whole run."""
    x, states = _cut(runs)
    group = [np.full(len(_windows(run)[1]), int(run.columns["fault"].max())) for run in runs]
    places = np.searchsorted(CLASSES, states)
    return Samples(apply_scale(scale, x), places.astype(np.int64), np.concatenate(group).astype(np.int64))
