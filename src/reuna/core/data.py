"""Samples as learners see them: features, targets, and what belongs together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import DataError


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
