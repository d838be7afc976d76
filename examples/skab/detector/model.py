"""Which seconds are anomalous: a logistic regression over distances from normal, federated.

The runs of the training nodes carry labels, so this is supervised, unlike SKAB's published table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from reuna.adapters.linear import BinaryLogistic
from reuna.adapters.tables import Table, read_folder
from reuna.core.data import Dataset, Samples
from reuna.core.ports import Tensors
from reuna.core.records import Metrics, Setting

from .features import FEATURES, NORMAL, SENSORS, windows

LATER = 1  # group of the rows after a run's first 400
THRESHOLDS = np.linspace(0.1, 0.9, 17)


class AnomalyDetector(BinaryLogistic):
    """Scores by F1 of the anomalous rows, as SKAB does."""

    def evaluate(self, model: Tensors, data: Dataset, settings: Mapping[str, Setting]) -> Metrics:
        """On test runs, at the threshold best on validation runs.

        ``all`` and ``false_alarms`` count whole runs, as SKAB does; ``later`` is F1 without the first
        400 rows of each run, which are known to be normal.
        """
        known = self.predict(model, data.validation.x)[:, 0]
        scores = np.array([f1(data.validation.y == 1, known >= each) for each in THRESHOLDS])
        alarm = self.predict(model, data.test.x)[:, 0] >= THRESHOLDS[scores.argmax()]
        anomalous, later = data.test.y == 1, data.test.group == LATER
        return {
            "all": f1(anomalous, alarm),
            "later": f1(anomalous[later], alarm[later]),
            "false_alarms": float(np.mean(alarm[~anomalous])),
        }


def f1(true: np.ndarray, said: np.ndarray) -> float:
    """F1 of two Boolean arrays; 0 when neither holds anything."""
    size = int(true.sum()) + int(said.sum())
    return 2 * int((true & said).sum()) / size if size else 0.0


def load(folder: Path, settings: Mapping[str, Setting]) -> Dataset:
    """This node's runs, one file each; what trains begins after each run's first 400 rows."""
    runs = read_folder(folder)
    train = _samples(runs["train"])
    later = train.group == LATER
    return Dataset(
        Samples(train.x[later], train.y[later]), _samples(runs["validation"]), _samples(runs["test"])
    )


def learner(settings: Mapping[str, Setting]) -> AnomalyDetector:
    """One weight per feature."""
    return AnomalyDetector(FEATURES)


def _samples(runs: Sequence[Table]) -> Samples:
    """Every row; ``group`` is 1 after the first 400 rows of its run, else 0."""
    x = [windows(run.filled(SENSORS).astype(np.float64)) for run in runs]
    y = [run.matrix(["anomaly"])[:, 0].astype(np.int64) for run in runs]
    group = [(np.arange(len(run)) >= NORMAL).astype(np.int64) for run in runs]
    return Samples(np.concatenate(x), np.concatenate(y), np.concatenate(group))
