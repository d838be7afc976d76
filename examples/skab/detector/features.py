"""From one run of the rig to features: distances from the run's own beginning.

    x = windows(signals)        # one call per run

As in SKAB's own protocol the first 400 rows of each run are normal operation: they give the centre
and spread of each sensor.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

SENSORS = (
    "Accelerometer1RMS",
    "Accelerometer2RMS",
    "Current",
    "Pressure",
    "Temperature",
    "Thermocouple",
    "Voltage",
    "Volume Flow RateRMS",
)
NORMAL = 400  # rows at the start of a run
WINDOW = 15  # rows up to and with the one that is judged
SMALLEST = 1e-6  # spread
KINDS = 4  # of features per sensor
FEATURES = KINDS * len(SENSORS) + 2

Floats = NDArray[np.float64]


def windows(signals: Floats) -> NDArray[np.float32]:
    """Features (rows, FEATURES) of every row of one run (rows, sensors)."""
    normal = _smoothed(signals[:NORMAL])
    centre, spread = normal.mean(axis=0), np.maximum(normal.std(axis=0), SMALLEST)
    inverse = np.linalg.pinv(np.cov((normal - centre) / spread, rowvar=False) + 0.01 * np.eye(len(spread)))
    distance = (_smoothed(signals) - centre) / spread
    t2 = np.einsum("ij,jk,ik->i", distance, inverse, distance)[:, None]
    window_t2 = np.log1p(_mean(t2))
    near, far = _log(distance), _log(_mean(distance))
    columns = [near, np.abs(near), far, np.abs(far), np.log1p(t2), window_t2]
    return np.concatenate(columns, axis=1).astype(np.float32)


def _smoothed(values: Floats) -> Floats:
    """Median of each row and the two before it."""
    padded = np.concatenate([values[:1], values[:1], values])
    median: Floats = np.median(sliding_window_view(padded, 3, axis=0), axis=-1)
    return median


def _mean(values: Floats) -> Floats:
    """Mean of each row and the rows before it in its window."""
    padded = np.concatenate([np.repeat(values[:1], WINDOW - 1, axis=0), values])
    mean: Floats = sliding_window_view(padded, WINDOW, axis=0).mean(axis=-1)
    return mean


def _log(distance: Floats) -> Floats:
    """Signed log: far away and very far away stay comparable."""
    return np.sign(distance) * np.log1p(np.abs(distance))
