"""Which seconds are anomalous: a logistic regression over distances from normal, federated.

The runs of the training nodes carry labels, so this is supervised, unlike SKAB's published table.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from reuna.adapters.linear import BinaryLogistic
from reuna.adapters.tables import Table, read_folder
from reuna.core.data import Dataset, Samples, joined
from reuna.core.ports import Tensors
from reuna.core.records import Metrics, Setting

from .features import FEATURES, SENSORS, windows

THRESHOLDS = np.linspace(0.1, 0.9, 17)


class AnomalyDetector(BinaryLogistic):
    """Scores by F1 of the anomalous rows, as SKAB does."""

    def evaluate(self, model: Tensors, data: Dataset, settings: Mapping[str, Setting]) -> Metrics:
        """F1 (``all``) and ``false_alarms`` on test runs, at the threshold best on validation runs."""
        known = self.predict(model, data.validation.x)[:, 0]
        scores = np.array([f1(data.validation.y == 1, known >= each) for each in THRESHOLDS])
        alarm = self.predict(model, data.test.x)[:, 0] >= THRESHOLDS[scores.argmax()]
        anomalous = data.test.y == 1
        return {"all": f1(anomalous, alarm), "false_alarms": float(np.mean(alarm[~anomalous]))}


def f1(true: np.ndarray, said: np.ndarray) -> float:
    """F1 of two Boolean arrays; 0 when neither holds anything."""
    size = int(true.sum()) + int(said.sum())
    return 2 * int((true & said).sum()) / size if size else 0.0


def load(folder: Path, settings: Mapping[str, Setting]) -> Dataset:
    """This node's runs, one file each."""
    splits = {split: joined([_samples(run) for run in runs]) for split, runs in read_folder(folder).items()}
    return Dataset(splits["train"], splits["validation"], splits["test"])


def learner(settings: Mapping[str, Setting]) -> AnomalyDetector:
    """One weight per feature."""
    return AnomalyDetector(FEATURES)


def _samples(run: Table) -> Samples:
    signals = run.matrix(SENSORS).astype(np.float64)
    return Samples(*windows(signals, run.matrix(["anomaly"])[:, 0].astype(np.int64)))
