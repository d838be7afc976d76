"""Which machine fails: a small network, federated; each node sets its own alarm threshold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from sklearn.neural_network import MLPClassifier

from reuna.adapters.sklearn_learner import SklearnLearner
from reuna.adapters.tables import read_folder, require
from reuna.core.data import Dataset, Samples, joined
from reuna.core.ports import Tensors
from reuna.core.records import Metrics, Setting

from .features import COLUMNS, FEATURES, LABEL, TYPE, Floats, features, labels

ENOUGH = 10  # failures
THRESHOLDS = np.linspace(0.05, 0.95, 19)


class FailureClassifier(SklearnLearner):
    """Scores by F1 of the failures, which accuracy would hide: 3 % of the rows."""

    def evaluate(self, model: Tensors, data: Dataset, settings: Mapping[str, Setting]) -> Metrics:
        """F1 (``all``) and ``false_alarms`` on the test rows, at the node's own threshold."""
        threshold = choose_threshold(self._chances(model, data.validation), data.validation.y == 1)
        failed, alarm = data.test.y == 1, self._chances(model, data.test) >= threshold
        return {"all": f1(failed, alarm), "false_alarms": float(np.mean(alarm[~failed]))}

    def _chances(self, model: Tensors, samples: Samples) -> Floats:
        return np.asarray(self.predict(model, samples.x))[:, 1]


def choose_threshold(chances: Floats, failed: np.ndarray) -> float:
    """The threshold of best F1 on validation rows; even odds when too few of them failed to tell."""
    if int(failed.sum()) < ENOUGH:
        return 0.5
    scores = np.array([f1(failed, chances >= each) for each in THRESHOLDS])
    best = np.flatnonzero(scores == scores.max())
    return float(THRESHOLDS[best[len(best) // 2]])


def f1(true: np.ndarray, said: np.ndarray) -> float:
    """F1 of two Boolean arrays; 0 when neither holds anything."""
    size = int(true.sum()) + int(said.sum())
    return 2 * int((true & said).sum()) / size if size else 0.0


def load(folder: Path, settings: Mapping[str, Setting]) -> Dataset:
    """This node's rows."""
    splits: dict[str, Samples] = {}
    for split, tables in read_folder(folder).items():
        for table in tables:
            require(table, (*COLUMNS, TYPE, LABEL))
        splits[split] = joined([Samples(features(table), labels(table)) for table in tables])
    return Dataset(splits["train"], splits["validation"], splits["test"])


def learner(settings: Mapping[str, Setting]) -> FailureClassifier:
    """One hidden layer of ``hidden`` units."""
    hidden = int(settings.get("hidden", 32))
    estimator = MLPClassifier(hidden_layer_sizes=(hidden,), alpha=0.01)
    return FailureClassifier(estimator, features=FEATURES, classes=2)
