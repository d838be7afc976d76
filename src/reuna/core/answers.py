"""What a learner may answer to `fit` and `evaluate`; whoever runs one holds it to that.

>>> numbers({"loss": 1})
{'loss': 1.0}
>>> numbers({"loss": float("nan")})
Traceback (most recent call last):
    ...
reuna.core.errors.LearnerError: the metric 'loss' is nan, expected a finite number
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from reuna.core.errors import LearnerError
from reuna.core.ports import Tensors
from reuna.core.records import Metrics
from reuna.core.tensors import layout_of

MAX_METRICS = 64


def fitted(model: Tensors, trained: Tensors, weight: Any, metrics: Mapping[str, Any]) -> Metrics:
    """The metrics of a fit from ``model``. Raises `LearnerError` for anything but what the port promises.

    Whether the values are finite is not asked: that reads them all.
    """
    if type(weight) is not int or weight < 1:
        raise LearnerError(f"fit returned {weight!r} samples, expected a whole number from 1 on")
    if layout_of(trained) != layout_of(model):
        raise LearnerError("fit returned tensors of other names or shapes than it was given")
    return numbers(metrics)


def numbers(metrics: Mapping[str, Any]) -> Metrics:
    """Metrics as the port promises them: at most 64 finite numbers by name. Raises `LearnerError`."""
    try:
        found = {str(name): float(value) for name, value in metrics.items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise LearnerError(f"metrics must be numbers by name: {error}") from error
    wrong = [name for name, value in found.items() if not math.isfinite(value)]
    if wrong:
        raise LearnerError(f"the metric {wrong[0]!r} is {found[wrong[0]]}, expected a finite number")
    if len(found) > MAX_METRICS:
        raise LearnerError(f"the learner gave {len(found)} metrics, {MAX_METRICS} are allowed")
    return found
