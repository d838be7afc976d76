"""Linear models in plain numpy: softmax, logistic, least squares, reconstruction; trained by plain SGD.

Settings of `fit`: ``epochs`` (passes over the data), ``rate`` (step), ``batch`` (samples a step,
0: all), ``l2`` (ridge on the weights), ``mu`` (FedProx: pull towards the incoming model, Li et
al. 2020 eq. 2). Parameters are float32 tensors ``weight`` (features, outputs), ``bias`` (outputs,).

>>> import numpy as np
>>> x = np.array([[-1.0], [1.0]], np.float32)
>>> samples = Samples(x, np.array([0, 1]))
>>> learner = SoftmaxClassifier(features=1, classes=2)
>>> data = Dataset(samples, samples, samples)
>>> model, weight, metrics = learner.fit(learner.init(seed=1), data, {"epochs": 5, "rate": 1.0}, seed=1)
>>> weight, learner.evaluate(model, data, {})["all"]
(2, 1.0)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from reuna.core.data import Dataset, Samples, batches, check_samples, number
from reuna.core.errors import LearnerError
from reuna.core.ports import Tensors
from reuna.core.records import Metrics, Setting

Array = NDArray[np.float32]
#: (scores (n, outputs), targets (n,)) -> (gradient of the mean loss by the scores, mean loss)
Loss = Callable[[Array, NDArray[np.int64] | Array], tuple[Array, float]]

#: settings of `fit` and their defaults
NUMBERS = (("rate", 0.1), ("l2", 0.0), ("mu", 0.0))


def softmax(scores: Array) -> Array:
    """Probabilities by row, (n, classes) float32.

    By the functions' own ``reduce``: of a hundred rows a tenth of the time would go to what numpy adds to it.
    """
    highest: Array = np.maximum.reduce(scores, axis=1, keepdims=True)
    shifted: Array = np.exp(scores - highest)
    total: Array = np.add.reduce(shifted, axis=1, keepdims=True)
    return shifted / total


def cross_entropy(scores: Array, targets: NDArray[np.int64] | Array) -> tuple[Array, float]:
    """Mean negative log-likelihood of the target classes, and its gradient."""
    probabilities = softmax(scores)
    rows = np.arange(len(targets))
    labels = targets.astype(np.int64, copy=False)
    loss = -float(np.add.reduce(np.log(probabilities[rows, labels] + 1e-12)) / len(rows))
    probabilities[rows, labels] -= 1.0
    probabilities /= np.float32(len(targets))
    return probabilities, loss


def squared_error(scores: Array, targets: NDArray[np.int64] | Array) -> tuple[Array, float]:
    """Half the mean squared error, and its gradient; targets (n,) or (n, outputs)."""
    error = scores - targets.astype(np.float32, copy=False).reshape(scores.shape)
    return error / np.float32(error.size), 0.5 * float(np.mean(error * error))


def logistic_loss(scores: Array, targets: NDArray[np.int64] | Array) -> tuple[Array, float]:
    """Mean negative log-likelihood of targets 0 and 1 under one score, and its gradient."""
    score, labels = scores[:, 0], targets.astype(np.float32, copy=False)
    loss = float(np.mean(np.logaddexp(0, score) - labels * score))
    return ((sigmoid(score) - labels) / np.float32(len(labels)))[:, None], loss


def sigmoid(scores: Array) -> Array:
    """Probability of class 1, float32; no overflow for large scores."""
    probability: Array = np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * scores))
    return probability


class LinearModel:
    """``scores = x @ weight + bias`` under a loss. Implements `reuna.core.ports.Learner`."""

    activation = ""  #: what turns scores into predictions, as `reuna.adapters.onnx_export` names it

    def __init__(self, features: int, outputs: int, loss: Loss, classes: int = 0) -> None:
        """``classes``: targets are whole numbers below it; 0: targets are any number."""
        self.features = features
        self.outputs = outputs
        self._loss = loss
        self._classes = classes

    def init(self, seed: int) -> Tensors:
        """Zeros: the loss is convex, so nothing is gained by chance."""
        return {
            "bias": np.zeros(self.outputs, np.float32),
            "weight": np.zeros((self.features, self.outputs), np.float32),
        }

    def fit(
        self, model: Tensors, data: Dataset, settings: Mapping[str, Setting], seed: int
    ) -> tuple[Tensors, int, Metrics]:
        """SGD over the training samples; ``loss`` is that of the last step.

        Raises `DataError` for no samples, another width or an unknown label, `SettingsError`, and
        `LearnerError` when the steps were too large to stay finite.
        """
        samples = data.train
        self._check(samples)
        weight, bias = np.array(model["weight"]), np.array(model["bias"])
        rate, l2, mu = (np.float32(number(settings, *setting)) for setting in NUMBERS)
        loss = 0.0
        with np.errstate(over="ignore", invalid="ignore"):  # a diverging fit is told below, once
            for part in batches(samples, settings, seed):
                gradient, loss = self._loss(part.x @ weight + bias, part.y)
                step_w, step_b = self._free(part.x.T @ gradient), np.add.reduce(gradient, axis=0)
                if l2:
                    step_w += l2 * weight
                if mu:
                    step_w += mu * (weight - model["weight"])
                    step_b += mu * (bias - model["bias"])
                weight -= rate * step_w
                bias -= rate * step_b
        if not np.isfinite(weight).all():
            raise LearnerError(
                f"training diverged at a rate of {rate:g}", "Lower `rate` or scale the features."
            )
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

    def predict(self, model: Tensors, x: Array) -> Array:
        """What the exported graph answers too: probabilities or values, (n, outputs) float32."""
        return self.scores(model, x)

    def export(self, model: Tensors) -> bytes:
        """The model as ONNX; see `reuna.adapters.onnx_export`."""
        from reuna.adapters.onnx_export import linear_graph

        return linear_graph(model, self.activation)

    def _free(self, step: Array) -> Array:
        """The step, (features, outputs), without what the model may not learn."""
        return step

    def _check(self, samples: Samples) -> None:
        check_samples(samples, self.features, self._classes)


class SoftmaxClassifier(LinearModel):
    """Multinomial logistic regression over ``classes`` classes, numbered from 0.

    A node that never saw a class still has its row: it only learns that its samples are not of it.
    """

    activation = "softmax"

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes, cross_entropy, classes)

    def predict(self, model: Tensors, x: Array) -> Array:
        """Probabilities, (n, classes) float32."""
        return softmax(self.scores(model, x))

    def evaluate(self, model: Tensors, data: Dataset, settings: Mapping[str, Setting]) -> Metrics:
        """Accuracy (``all``) and mean loss on the test samples."""
        metrics = super().evaluate(model, data, settings)
        hit = self.scores(model, data.test.x).argmax(axis=1) == data.test.y
        return {**metrics, "all": float(np.mean(hit))}


class BinaryLogistic(LinearModel):
    """Logistic regression for labels 0 and 1, one output: the probability of 1."""

    activation = "sigmoid"

    def __init__(self, features: int) -> None:
        super().__init__(features, 1, logistic_loss, 2)

    def predict(self, model: Tensors, x: Array) -> Array:
        """Probability of label 1, (n, 1) float32."""
        return sigmoid(self.scores(model, x))

    def evaluate(self, model: Tensors, data: Dataset, settings: Mapping[str, Setting]) -> Metrics:
        """Accuracy (``all``) and mean loss on the test samples."""
        metrics = super().evaluate(model, data, settings)
        hit = (self.scores(model, data.test.x)[:, 0] > 0) == data.test.y
        return {**metrics, "all": float(np.mean(hit))}


class LinearRegressor(LinearModel):
    """Least squares by SGD, one output."""

    def __init__(self, features: int) -> None:
        super().__init__(features, 1, squared_error)

    def evaluate(self, model: Tensors, data: Dataset, settings: Mapping[str, Setting]) -> Metrics:
        """Root mean squared error (``rmse``) and mean loss on the test samples."""
        loss = super().evaluate(model, data, settings)["loss"]
        return {"rmse": float(np.sqrt(2 * loss)), "loss": loss}


class LinearReconstruction(LinearModel):
    """Each feature from all the others, by least squares: what is normal, for `AnomalyDetector`.

    The weight of a feature on itself stays zero, else the model would give back whatever comes in.
    """

    def __init__(self, features: int) -> None:
        super().__init__(features, features, squared_error)

    def _free(self, step: Array) -> Array:
        np.fill_diagonal(step, 0.0)
        return step
