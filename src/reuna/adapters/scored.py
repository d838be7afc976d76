"""A learner measured by the project's own yardstick instead of the learner's.

    Scored(SoftmaxClassifier(8, 4), lambda answer, data: {"all": accuracy(data.test.y, answer(data.test.x))})

Everything but `evaluate` is the inner learner's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reuna.core.ports import Learner, Tensors
from reuna.core.records import Metrics, Setting

Array = NDArray[np.float32]
Answer = Callable[[Array], NDArray[Any]]  #: x (n, features) -> what the model answers, (n, outputs)


class Predicting(Learner, Protocol):
    """A learner that can say what its model answers."""

    def predict(self, model: Tensors, x: Array) -> NDArray[Any]:
        """(n, outputs) for x (n, features) float32."""


class Scored:
    """Implements `reuna.core.ports.Learner`: ``learner``, with ``by(answer, data)`` as its metrics."""

    def __init__(self, learner: Predicting, by: Callable[[Answer, Any], Metrics]) -> None:
        self.learner = learner
        self._by = by

    def init(self, seed: int) -> Tensors:
        """The inner learner's."""
        return self.learner.init(seed)

    def fit(
        self, model: Tensors, data: Any, settings: Mapping[str, Setting], seed: int
    ) -> tuple[Tensors, int, Metrics]:
        """The inner learner's."""
        return self.learner.fit(model, data, settings, seed)

    def evaluate(self, model: Tensors, data: Any, settings: Mapping[str, Setting]) -> Metrics:
        """What ``by`` says of the model's answers."""
        return self._by(lambda x: self.predict(model, x), data)

    def predict(self, model: Tensors, x: Array) -> NDArray[Any]:
        """The inner learner's."""
        return self.learner.predict(model, x)

    def export(self, model: Tensors) -> bytes:
        """The inner learner's."""
        return self.learner.export(model)
