"""Linear models in plain numpy: softmax classifier and linear regressor, trained by SGD.

Settings of `fit`: ``epochs`` (passes over the data), ``rate`` (step), ``batch`` (samples a step,
0: all), ``l2`` (ridge on the weights), ``mu`` (FedProx: pull towards the incoming model, Li et
al. 2020 eq. 2). Parameters are float32 tensors ``weight`` (features, outputs), ``bias`` (outputs,).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from reuna.core.data import Dataset, Samples
from reuna.core.errors import DataError
from reuna.core.ports import Tensors
from reuna.core.records import Metrics, Setting

Array = NDArray[np.float32]
#: (scores (n, outputs), targets (n,)) -> (gradient of the mean loss by the scores, mean loss)
Loss = Callable[[Array, NDArray[np.int64] | Array], tuple[Array, float]]


def softmax(scores: Array) -> Array:
    """Probabilities by row, (n, classes) float32."""
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities


def cross_entropy(scores: Array, targets: NDArray[np.int64] | Array) -> tuple[Array, float]:
    """Mean negative log-likelihood of the target classes, and its gradient."""
    probabilities = softmax(scores)
    rows = np.arange(len(targets))
    labels = targets.astype(np.int64, copy=False)
    loss = -float(np.log(probabilities[rows, labels] + 1e-12).mean())
    probabilities[rows, labels] -= 1.0
    probabilities /= np.float32(len(targets))
    return probabilities, loss


def squared_error(scores: Array, targets: NDArray[np.int64] | Array) -> tuple[Array, float]:
    """Half the mean squared error, and its gradient."""
    error = scores[:, 0] - targets.astype(np.float32, copy=False)
    return (error / np.float32(len(error)))[:, None], 0.5 * float(np.mean(error * error))


class LinearModel:
    """``scores = x @ weight + bias`` under a loss. Implements `reuna.core.ports.Learner`."""

    def __init__(self, features: int, outputs: int, loss: Loss) -> None:
        self.features = features
        self.outputs = outputs
        self._loss = loss

    def init(self, seed: int) -> Tensors:
        """Zeros: the loss is convex, so nothing is gained by chance."""
        return {
            "bias": np.zeros(self.outputs, np.float32),
            "weight": np.zeros((self.features, self.outputs), np.float32),
        }

    def fit(
        self, model: Tensors, data: Dataset, settings: Mapping[str, Setting], seed: int
    ) -> tuple[Tensors, int, Metrics]:
        """SGD over the training samples. Raises `DataError` when there are none or of another width."""
        samples = data.train
        self._check(samples)
        weight, bias = np.array(model["weight"]), np.array(model["bias"])
        rate, l2 = np.float32(settings.get("rate", 0.1)), np.float32(settings.get("l2", 0.0))
        mu = np.float32(settings.get("mu", 0.0))
        loss = 0.0
        for x, y in _batches(samples, settings, seed):
            gradient, loss = self._loss(x @ weight + bias, y)
            step_w, step_b = x.T @ gradient, gradient.sum(axis=0)
            if l2:
                step_w += l2 * weight
            if mu:
                step_w += mu * (weight - model["weight"])
                step_b += mu * (bias - model["bias"])
            weight -= rate * step_w
            bias -= rate * step_b
        return {"bias": bias, "weight": weight}, len(samples), {"loss": loss}

    def evaluate(self, model: Tensors, data: Dataset, settings: Mapping[str, Setting]) -> Metrics:
        """Mean loss on the test samples."""
        self._check(data.test)
        _, loss = self._loss(self.scores(model, data.test.x), data.test.y)
        return {"loss": loss}

    def scores(self, model: Tensors, x: Array) -> Array:
        """Raw scores, (n, outputs) float32."""
        found: Array = x @ model["weight"] + model["bias"]
        return found

    def export(self, model: Tensors) -> bytes:
        """The model as ONNX; see `reuna.adapters.onnx_export`."""
        from reuna.adapters.onnx_export import linear_graph

        return linear_graph(model, "softmax" if self._loss is cross_entropy else "")

    def _check(self, samples: Samples) -> None:
        if not len(samples):
            raise DataError("this node has no samples")
        if samples.x.shape[1] != self.features:
            raise DataError(f"the samples have {samples.x.shape[1]} features, the model {self.features}")


class SoftmaxClassifier(LinearModel):
    """Multinomial logistic regression over ``classes`` classes, numbered from 0."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes, cross_entropy)

    def predict(self, model: Tensors, x: Array) -> Array:
        """Probabilities, (n, classes) float32."""
        return softmax(self.scores(model, x))

    def evaluate(self, model: Tensors, data: Dataset, settings: Mapping[str, Setting]) -> Metrics:
        """Accuracy (``all``) and mean loss on the test samples."""
        metrics = super().evaluate(model, data, settings)
        hit = self.scores(model, data.test.x).argmax(axis=1) == data.test.y
        return {**metrics, "all": float(np.mean(hit))}


class LinearRegressor(LinearModel):
    """Least squares by SGD, one output."""

    def __init__(self, features: int) -> None:
        super().__init__(features, 1, squared_error)

    def evaluate(self, model: Tensors, data: Dataset, settings: Mapping[str, Setting]) -> Metrics:
        """Root mean squared error on the test samples."""
        error = self.scores(model, data.test.x)[:, 0] - data.test.y
        return {"rmse": float(np.sqrt(np.mean(error * error))), "loss": 0.5 * float(np.mean(error * error))}


def _batches(
    samples: Samples, settings: Mapping[str, Setting], seed: int
) -> Iterator[tuple[Array, NDArray[np.int64] | Array]]:
    """Every pass over the data in its own order, cut into batches."""
    epochs, size = int(settings.get("epochs", 1)), int(settings.get("batch", 0))
    if size <= 0 or size >= len(samples):
        for _ in range(epochs):
            yield samples.x, samples.y
        return
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(samples))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            yield samples.x[chosen], samples.y[chosen]
