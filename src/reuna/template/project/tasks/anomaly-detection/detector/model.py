"""Which rows this node learns from, and what it learns: what is normal, so that all else is strange."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reuna import Dataset, Table
from reuna.adapters.anomaly import AnomalyDetector

from .estimator import estimator
from .samples import splits, undivided, width


def load(folder: Path, settings: Mapping[str, Any]) -> Dataset:
    """This node's windows by split, scaled on its own normal training windows.

    Labels other than 0 are anomalies. They are needed in the test recordings only.
    """
    parts = splits(folder, settings, _anomalous, undivided, lambda anomalous: anomalous == 0)
    return Dataset(parts["train"], parts["validation"], parts["test"])


def learner(settings: Mapping[str, Any]) -> AnomalyDetector:
    """A model that gives normal windows back; how badly it does is how strange a window is."""
    return AnomalyDetector(estimator(width(settings)))


def _anomalous(table: Table, label: str) -> np.ndarray:
    return (table.whole(label) != 0).astype(np.int64)
