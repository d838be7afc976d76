"""From signals to features: one-hour windows, scaled on the plant's own normal hours.

    x, states = windows(signals, faults)        # one call per run
    scale = fit_scale(x[states == NORMAL])      # of the training runs
    x = apply_scale(scale, x)

A window of 20 samples (one hour) becomes, for each signal, its mean, its standard deviation and
the mean of its second half minus that of its first. A window that straddles the onset of a fault
is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

NORMAL = 0
#: 3, 9 and 15 are left out: no ordinary method tells them from normal operation
FAULTS = (1, 2, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21)
CLASSES = (NORMAL, *FAULTS)
SIGNALS = (*(f"xmeas_{n}" for n in range(1, 42)), *(f"xmv_{n}" for n in range(1, 12)))
WINDOW = 20  # samples
STRIDE = 5
FEATURES = 3 * len(SIGNALS)
SMALLEST = 1e-6  # spread

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Scale:
    """Centre and spread (features,) of normal windows."""

    centre: Floats
    spread: Floats


def windows(signals: Floats, faults: Labels) -> tuple[Floats, Labels]:
    """Features (windows, FEATURES) and fault of one run, in order of time."""
    cut = sliding_window_view(signals, WINDOW, axis=0)[::STRIDE]
    states = sliding_window_view(faults, WINDOW)[::STRIDE]
    half = WINDOW // 2
    change = cut[..., half:].mean(axis=-1) - cut[..., :half].mean(axis=-1)
    found = np.concatenate([cut.mean(axis=-1), cut.std(axis=-1), change], axis=1)
    pure = states[:, 0] == states[:, -1]
    return found[pure], states[pure, -1]


def fit_scale(normal: Floats) -> Scale:
    """Centre and spread of normal windows."""
    return Scale(normal.mean(axis=0), np.maximum(normal.std(axis=0), SMALLEST))


def apply_scale(scale: Scale, x: Floats) -> NDArray[np.float32]:
    """Distance from normal in spreads, signed log: far away and very far away stay comparable."""
    distance = (x - scale.centre) / scale.spread
    return (np.sign(distance) * np.log1p(np.abs(distance))).astype(np.float32)
