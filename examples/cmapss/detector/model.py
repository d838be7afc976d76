"""Remaining useful life, capped at 125 cycles: a small network, federated.

Every node scales with its own engines; only the network's weights are shared. The target is in
units of the cap, the metric ``rmse`` in cycles, at the last cycle of each test engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from sklearn.neural_network import MLPRegressor

from reuna.adapters.sklearn_learner import SklearnLearner
from reuna.adapters.tables import Table, read_folder
from reuna.core.data import Dataset, Samples
from reuna.core.ports import Tensors
from reuna.core.records import Metrics, Setting

from .features import CAP, FEATURES, SENSORS, Scale, conditions, fit_scale, normalise, windows


class LifeRegressor(SklearnLearner):
    """Answers the remaining life in parts of the cap."""

    def evaluate(self, model: Tensors, data: Dataset, settings: Mapping[str, Setting]) -> Metrics:
        """``rmse`` and ``mae`` in cycles, over the test engines; answers are cut to 0 to 125 cycles."""
        answer = np.clip(self.predict(model, data.test.x)[:, 0], 0, 1)
        error = CAP * (answer - data.test.y)
        return {"rmse": float(np.sqrt(np.mean(error**2))), "mae": float(np.mean(np.abs(error)))}


def load(folder: Path, settings: Mapping[str, Setting]) -> Dataset:
    """This node's engines: every cycle of those to learn from, the last cycle of those to test."""
    tables = read_folder(folder)
    train = tables["train"]
    sensors = np.concatenate([_sensors(table) for table in train])
    scale = fit_scale(sensors, np.concatenate([_conditions(table) for table in train]))
    return Dataset(
        _samples(train, scale),
        _samples(tables["validation"], scale),
        _samples(tables["test"], scale, last_only=True),
    )


def learner(settings: Mapping[str, Setting]) -> LifeRegressor:
    """One hidden layer of ``hidden`` units."""
    estimator = MLPRegressor(hidden_layer_sizes=(int(settings.get("hidden", 32)),), alpha=0.1)
    return LifeRegressor(estimator, features=FEATURES)


def _samples(tables: Sequence[Table], scale: Scale, last_only: bool = False) -> Samples:
    x, y, engines = [], [], []
    for table in tables:
        distance = normalise(scale, _sensors(table), _conditions(table))
        unit, life = table.columns["unit"], np.minimum(table.columns["rul"], CAP) / CAP
        for engine in np.unique(unit):
            rows = np.flatnonzero(unit == engine)
            kept = slice(-1, None) if last_only else slice(None)
            x.append(windows(distance[rows])[kept])
            y.append(life[rows][kept])
            engines.append(np.full(len(y[-1]), int(engine)))
    return Samples(np.concatenate(x), np.concatenate(y).astype(np.float32), np.concatenate(engines))


def _sensors(table: Table) -> np.ndarray:
    return table.filled(SENSORS).astype(np.float64)


def _conditions(table: Table) -> np.ndarray:
    return conditions(table.filled(["setting1"])[:, 0].astype(np.float64))
