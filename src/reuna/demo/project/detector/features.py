"""From signals to features: one-hour windows, scaled on the site's own normal hours.

What lives here: pure functions over arrays. What must never: files, models.

    features, labels = windows(signals, states)        # one call per run
    scaler = fit_scaler(features[labels == NORMAL])    # of the site's training runs
    inputs = apply_scaler(scaler, features)

A window of 20 samples (one hour at 3 minutes) becomes, for each signal, its mean, its standard
deviation, and the mean of the second half minus that of the first. A step every 15 minutes.
Windows that straddle the onset of a fault are left out, in training and in test alike: they are
neither normal nor a full hour of the fault. How soon a fault is found is not measured here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

NORMAL = 0
WINDOW = 20  # samples: one hour
STRIDE = 5  # samples between the starts of two windows: 15 minutes
SMALLEST = 1e-3  # spread of a feature, in parts of its signal's mean: a valve may stand still
KINDS = 3  # of features per signal: mean, standard deviation, change

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Scaler:
    """Centre and spread (features,) float32 of a site's normal windows."""

    centre: Floats
    spread: Floats


def windows(
    signals: Floats, labels: NDArray[np.integer], rows: int = WINDOW, stride: int = STRIDE
) -> tuple[Floats, Labels]:
    """Features (windows, 3 * columns) and label (windows,) of one run, in order of time.

    signals: (samples, columns) in their units; labels: (samples,), 0 while normal. A run shorter
    than a window gives none.
    """
    columns = signals.shape[1]
    if len(signals) < rows:
        return np.zeros((0, KINDS * columns), np.float32), np.zeros(0, np.int32)
    cut = sliding_window_view(signals.astype(np.float64), rows, axis=0)[::stride]
    states = sliding_window_view(labels, rows)[::stride]
    half = rows // 2
    change = cut[..., half:].mean(axis=-1) - cut[..., :half].mean(axis=-1)
    features = np.concatenate([cut.mean(axis=-1), cut.std(axis=-1), change], axis=1)
    pure = states[:, 0] == states[:, -1]
    return features[pure].astype(np.float32), states[pure, -1].astype(np.int32)


def fit_scaler(normal: Floats) -> Scaler:
    """Centre and spread of the site's normal training windows (windows, 3 * columns)."""
    centre, spread = normal.mean(axis=0, dtype=np.float64), normal.std(axis=0, dtype=np.float64)
    means = np.abs(centre[: len(centre) // KINDS])
    smallest = np.tile(np.maximum(SMALLEST * means, 1e-6), KINDS)
    return Scaler(centre.astype(np.float32), np.maximum(spread, smallest).astype(np.float32))


def apply_scaler(scaler: Scaler, features: Floats) -> Floats:
    """Distance from normal in spreads, signed log: far away and very far away stay comparable."""
    distance = (features - scaler.centre) / scaler.spread
    scaled: Floats = (np.sign(distance) * np.log1p(np.abs(distance))).astype(np.float32)
    return scaled
