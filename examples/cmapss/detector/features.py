"""From an engine's sensors to features: normalised per operating condition, then windows.

    scale = fit_scale(sensors, conditions)      # of the node's own training rows
    x = windows(normalise(scale, sensors, conditions))      # one call per engine, in order of cycles

An engine changes its operating condition from flight to flight in FD002, and a sensor's level says
more about the flight than about wear; its distance from the mean of that condition does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: the sensors that move with wear; the other seven stand still within a condition
SENSORS = tuple(f"s{number}" for number in (2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21))
WINDOW = 30  # cycles
SHORT = 10  # cycles at the end of a window; its mean against the window's is the trend
START = 20  # cycles at the start of an engine's life: what it looked like when new
FEATURES = 3 * len(SENSORS) + 1
CAP = 125.0  # cycles: earlier than this, wear does not show

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """Mean and spread (sensors,) by condition."""

    by_condition: Mapping[float, tuple[Floats, Floats]]


def conditions(setting1: Floats) -> Floats:
    """(rows,) the operating condition, told by the first setting (altitude): six levels, or one."""
    return np.round(setting1, 1) + 0.0  # no minus zero


def fit_scale(sensors: Floats, condition: Floats) -> Scale:
    """Mean and spread of each sensor within each condition; (rows, sensors), (rows,)."""
    scale = {}
    for each in np.unique(condition):
        rows = sensors[condition == each]
        scale[float(each)] = (rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-6))
    return Scale(scale)


def normalise(scale: Scale, sensors: Floats, condition: Floats) -> Floats:
    """Distances in spreads; a condition never seen in training counts as its mean, zero."""
    distance = np.zeros(sensors.shape)
    for each, (mean, spread) in scale.by_condition.items():
        rows = condition == each
        distance[rows] = (sensors[rows] - mean) / spread
    return distance


def windows(distance: Floats) -> NDArray[np.float32]:
    """(cycles, FEATURES) of one engine: mean of the last 30 cycles, trend within them, change, age.

    The change is against the engine's own first 20 cycles: no two engines are alike when new. The
    first cycles have shorter windows. No row knows anything of the cycles after it.
    """
    long, short = _running_mean(distance, WINDOW), _running_mean(distance, SHORT)
    age = np.arange(1, len(distance) + 1)[:, None] / 100.0 - 1.0
    columns = [long, short - long, long - _start(distance), age]
    return np.concatenate(columns, axis=1).astype(np.float32)


def _start(values: Floats) -> Floats:
    """Mean of the first 20 rows, or of as many as there were by then."""
    mean = _running_mean(values, START)
    mean[START:] = mean[min(START, len(mean)) - 1]
    return mean


def _running_mean(values: Floats, size: int) -> Floats:
    """Mean of each row and up to ``size - 1`` rows before it."""
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(0, end - size)
    mean: Floats = (total[end] - total[start]) / (end - start)[:, None]
    return mean
