"""Samples as learners see them: features, targets, what belongs together, and their batches.

>>> samples = Samples(np.zeros((5, 2), np.float32), np.arange(5))
>>> [len(part) for part in batches(samples, {"epochs": 2, "batch": 3}, seed=1)]
[3, 2, 3, 2]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import DataError, SettingsError
from reuna.core.records import Setting

_NUMBERS = (int, float)


@dataclass(frozen=True)
class Samples:
    """``x`` is (n, features) float32, ``y`` (n,): class numbers as int64, or targets as float32.

    ``group`` (n,) says which samples belong together (a run, an engine); empty when nobody asks.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64] | NDArray[np.float32]
    group: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Dataset:
    """One node's samples. Settings are chosen on ``validation``; ``test`` is looked at last."""

    train: Samples
    validation: Samples
    test: Samples


def no_samples(features: int) -> Samples:
    """Nothing, for a split that a node does not have."""
    return Samples(np.empty((0, features), np.float32), np.empty(0, np.int64))


def joined(parts: Sequence[Samples]) -> Samples:
    """Samples one after the other; groups are left out. Raises `DataError` when there are none."""
    if not parts:
        raise DataError("there are no samples to join")
    x = np.concatenate([part.x for part in parts])
    return Samples(x, np.concatenate([part.y for part in parts if len(part)] or [parts[0].y]))


def pooled(datasets: Sequence[Dataset]) -> Dataset:
    """All nodes' samples in one place, as the centralised baseline sees them."""
    return Dataset(
        joined([data.train for data in datasets]),
        joined([data.validation for data in datasets]),
        joined([data.test for data in datasets]),
    )


def check_samples(samples: Samples, features: int, classes: int = 0) -> None:
    """Raises `DataError` for no samples, another number of features, or a label that is no class.

    Classes are whole numbers from 0; with ``classes`` 0 the targets may be any numbers.
    """
    if not len(samples):
        raise DataError("this node has no samples")
    if samples.x.ndim != 2 or samples.x.shape[1] != features:
        raise DataError(f"the samples have shape {samples.x.shape}, the model {features} features")
    if not classes:
        return
    low, high = np.minimum.reduce(samples.y, axis=None), np.maximum.reduce(samples.y, axis=None)
    if not 0 <= low <= high < classes:
        raise DataError(f"labels are {low} to {high}, the model knows 0 to {classes - 1}")


def batches(samples: Samples, settings: Mapping[str, Setting], seed: int) -> Iterator[Samples]:
    """``epochs`` passes over the samples, each in its own order, cut into ``batch`` samples (0: all).

    Whole passes keep the order. Raises `SettingsError`.
    """
    epochs, size = int(number(settings, "epochs", 1)), int(number(settings, "batch", 0))
    if size == 0 or size >= len(samples):
        for _ in range(epochs):
            yield samples
        return
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(samples))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            yield Samples(samples.x[chosen], samples.y[chosen])


def number(settings: Mapping[str, Setting], name: str, default: float) -> float:
    """A learner's setting as a finite number from 0 on. Raises `SettingsError`."""
    value = settings.get(name, default)
    if not isinstance(value, _NUMBERS) or not 0 <= value < np.inf:
        raise SettingsError(f"train.{name} is {value!r}, expected a number from 0 on")
    return value
