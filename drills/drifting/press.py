"""A press, and what may become of it: the truth that no node is told. Pure.

A press makes a stroke in a fifth of a second, of ten rows; a stroke is normal or has one fault, by chance
and each by itself. What it is like changes at once when something drifts: ``Condition``.

>>> from numpy.random import default_rng
>>> rows, faults = strokes(2, Condition(), 3, default_rng(1))
>>> rows.shape, faults.shape
((30, 4), (30,))
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

SIGNALS = ("vibration_mm_s", "temperature_c", "flow_m3_h", "current_a")
UNITS = ("mm/s", "degC", "m3/h", "A")
LOW = np.zeros(4)
HIGH = np.array([20.0, 120.0, 80.0, 40.0])
USUAL = np.array([6.0, 50.0, 40.0, 15.0])
NOISE = np.array([0.3, 1.5, 1.2, 0.5])
STROKE = 10  #: rows
EVERY_S = 0.02  #: from row to row
STROKE_S = STROKE * EVERY_S
NORMAL = 0
#: fault -> what it adds, in parts of the noise
EFFECTS = {
    1: np.array([3.75, 2.25, 0.0, 0.0]),
    2: np.array([0.0, 0.0, -3.75, -2.25]),
    3: np.array([-2.25, 0.0, 3.0, 3.75]),
}
KNOWN = (1, 2)  #: faults that there were before anything drifted
NEW = 3  #: one that comes later, and then shows in half of all strokes
FAULTY = 0.5  #: share of strokes without it


@dataclass(frozen=True)
class Condition:
    """What presses are like. ``mode``: what it makes of each signal everywhere, in parts of the noise.

    ``bias``: press -> what its sensors add, likewise; ``faults``: which there are.
    """

    mode: tuple[float, ...] = (0.0,) * 4
    bias: dict[str, tuple[float, ...]] = field(default_factory=dict)
    faults: tuple[int, ...] = KNOWN


def strokes(
    press: int, condition: Condition, count: int, rng: Generator, name: str = ""
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Rows (count * `STROKE`, signals) and the fault of each."""
    share = {NORMAL: 1 - FAULTY, **dict.fromkeys(KNOWN, FAULTY / len(KNOWN))}
    kind = rng.choice(list(share), count, p=list(share.values()))
    if NEW in condition.faults:
        kind = np.where(rng.random(count) < 0.5, NEW, kind)
    effects = np.array([EFFECTS.get(each, np.zeros(4)) for each in kind])
    offset = np.array(condition.mode) + np.array(condition.bias.get(name, (0.0,) * 4))
    faults = np.repeat(kind, STROKE)
    rows = np.repeat(effects + offset, STROKE, axis=0) + rng.normal(size=(len(faults), 4))
    load = 1.0 + 0.05 * press
    return np.clip(load * USUAL + rows * NOISE, LOW + 0.01, HIGH - 0.01), faults
