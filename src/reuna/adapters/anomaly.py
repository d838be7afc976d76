"""Anomaly detection: a model of what is normal, and how far a sample is from what it makes of it.

    AnomalyDetector(LinearReconstruction(features=8))

The inner learner is a regressor with as many outputs as inputs, which learns to give normal samples
back; what it gives back badly is strange. It must not be able to give back everything: a network has
a narrow layer, `reuna.adapters.linear.LinearReconstruction` sees for each feature the others only.
Labels ``y`` are 0 for normal and 1 for an anomaly; nothing is learnt from anomalies. The alarm's
threshold is the node's own: the setting ``quantile`` (0.99) of its normal validation samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reuna.adapters.onnx_export import with_distance
from reuna.core.data import Dataset, Samples, number
from reuna.core.errors import DataError, SettingsError
from reuna.core.ports import Learner, Tensors
from reuna.core.records import Metrics, Setting
from reuna.core.scores import NORMAL, anomaly_scores

Array = NDArray[np.float32]


class Reconstructing(Learner, Protocol):
    """A learner whose model answers as many values as it takes."""

    features: int

    def predict(self, model: Tensors, x: Array) -> NDArray[Any]:
        """(n, features) for x (n, features) float32."""


class AnomalyDetector:
    """Implements `reuna.core.ports.Learner` over one that gives normal samples back."""

    def __init__(self, learner: Reconstructing) -> None:
        self.learner = learner

    def init(self, seed: int) -> Tensors:
        """The inner learner's."""
        return self.learner.init(seed)

    def fit(
        self, model: Tensors, data: Dataset, settings: Mapping[str, Setting], seed: int
    ) -> tuple[Tensors, int, Metrics]:
        """The inner learner's, on the normal training samples. Raises `DataError` where there are none."""
        return self.learner.fit(model, replace(data, train=_normal(data.train)), settings, seed)

    def evaluate(self, model: Tensors, data: Dataset, settings: Mapping[str, Setting]) -> Metrics:
        """On the test samples: ``auroc``, ``detected``, ``false_alarms``; ``loss`` of the normal ones.

        Raises `DataError` without normal validation samples, `SettingsError` for a quantile over 1.
        """
        quantile = number(settings, "quantile", 0.99)
        if quantile > 1:
            raise SettingsError(f"train.quantile is {quantile}, expected a number from 0 to 1")
        normal = self.predict(model, _normal(data.validation, "validation").x)[:, 0]
        found = self.predict(model, data.test.x)[:, 0]
        scores = anomaly_scores(data.test.y != NORMAL, found, float(np.quantile(normal, quantile)))
        return {**scores, "loss": 0.5 * float(np.mean(normal))}

    def predict(self, model: Tensors, x: Array) -> Array:
        """How strange each sample is: mean squared distance from what is given back, (n, 1) float32."""
        error = x - self.learner.predict(model, x).astype(np.float32, copy=False)
        distance: Array = np.mean(error * error, axis=1, keepdims=True, dtype=np.float32)
        return distance

    def export(self, model: Tensors) -> bytes:
        """The inner learner's graph and the distance behind it; answers what `predict` does."""
        return with_distance(self.learner.export(model))


def _normal(samples: Samples, split: str = "training") -> Samples:
    """Normal samples as their own targets."""
    x = samples.x[samples.y == NORMAL]
    if not len(x):
        raise DataError(
            f"this node has no normal {split} samples", f"Add {split} recordings in which nothing happens."
        )
    return Samples(x, x)
