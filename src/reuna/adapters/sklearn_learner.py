"""A scikit-learn estimator with ``partial_fit`` as a learner: SGD and MLP, classifier or regressor.

    SklearnLearner(SGDClassifier(loss="log_loss"), features=20, classes=4)
    SklearnLearner(MLPRegressor(hidden_layer_sizes=(32,)), features=20)

The classes are fixed beforehand, so that a label nobody saw at a site still has its row. Settings
of `fit`: ``epochs`` (calls of ``partial_fit``), ``rate`` (constant step; default: the estimator's
own). The estimator's optimiser starts anew in each fit, and it knows no proximal term. Models are
named as scikit-learn names them: ``coef``, ``intercept``, for an MLP ``coef_0``, ``intercept_0``, ….
Needs the extra ``sklearn``; nothing is imported before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reuna.adapters.onnx_export import Dense, dense_graph
from reuna.core.data import Dataset, Samples, check_samples, number
from reuna.core.errors import ExtraMissing, LearnerError
from reuna.core.ports import Tensors
from reuna.core.records import Metrics, Setting
from reuna.core.tensors import float32

Array = NDArray[np.float32]
_TINY = 1e-12  # keeps a logarithm finite


class SklearnLearner:
    """Implements `reuna.core.ports.Learner` over clones of one estimator."""

    def __init__(self, estimator: Any, *, features: int, classes: int = 0, outputs: int = 1) -> None:
        """``classes``: labels are whole numbers below it; 0 for a regressor, which has ``outputs``.

        Raises `ExtraMissing`, `LearnerError` for an estimator that cannot be trained step by step.
        """
        _check_estimator(estimator, classes, outputs)
        self.features = features
        self.outputs = outputs
        self.classes = classes
        self._template = estimator

    def init(self, seed: int) -> Tensors:
        """Zeros for a linear model; Glorot's uniform weights and zero biases for an MLP."""
        rng = np.random.default_rng(seed)
        model = _tensors(self._primed(seed))
        return {name: _drawn(rng, name, tensor.shape) for name, tensor in sorted(model.items())}

    def fit(
        self, model: Tensors, data: Dataset, settings: Mapping[str, Setting], seed: int
    ) -> tuple[Tensors, int, Metrics]:
        """``epochs`` calls of ``partial_fit``. Raises `DataError`, `SettingsError`."""
        check_samples(data.train, self.features, self.classes)
        estimator = self._loaded(model, seed)
        if "rate" in settings:
            _set_rate(estimator, number(settings, "rate", 0.1))
        for _ in range(int(number(settings, "epochs", 1))):
            self._step(estimator, data.train.x, data.train.y)
        return _tensors(estimator), len(data.train), self._metrics(estimator, data.train)

    def evaluate(self, model: Tensors, data: Dataset, settings: Mapping[str, Setting]) -> Metrics:
        """On the test samples: accuracy (``all``) or ``rmse``, and ``loss`` where there is one."""
        check_samples(data.test, self.features, self.classes)
        return self._metrics(self._loaded(model, 0), data.test)

    def predict(self, model: Tensors, x: Array) -> NDArray[Any]:
        """Probabilities (n, classes); decision scores where it has none; (n, outputs) for a regressor."""
        return self._answers(self._loaded(model, 0), x)

    def export(self, model: Tensors) -> bytes:
        """The model as ONNX; answers what `predict` does. Raises `ExtraMissing`."""
        estimator = self._loaded(model, 0)
        layers = _layers(estimator)
        if self.classes == 2 and hasattr(estimator, "predict_proba"):
            layers[-1] = _two_columns(layers[-1])
        return dense_graph(layers)

    def _primed(self, seed: int) -> Any:
        """A clone that has seen each class once, so that all its arrays exist."""
        clone = _sklearn().clone(self._template)
        if "random_state" in clone.get_params():
            clone.set_params(random_state=seed)
        rows = max(1, self.classes)
        targets = np.arange(rows) if self.outputs == 1 else np.zeros((rows, self.outputs))
        self._step(clone, np.zeros((rows, self.features), np.float32), targets)
        return clone

    def _loaded(self, model: Tensors, seed: int) -> Any:
        """A clone that holds the model and remembers nothing else."""
        estimator = self._primed(seed)
        if hasattr(estimator, "coefs_"):
            layers = range(len(estimator.coefs_))
            estimator.coefs_ = [np.array(model[f"coef_{layer}"]) for layer in layers]
            estimator.intercepts_ = [np.array(model[f"intercept_{layer}"]) for layer in layers]
            vars(estimator).pop("_optimizer", None)  # its moments are those of the priming step
            estimator.t_ = 0
        else:
            estimator.coef_ = model["coef"].astype(estimator.coef_.dtype)
            estimator.intercept_ = model["intercept"].astype(estimator.intercept_.dtype)
            estimator.t_ = 1.0
        return estimator

    def _step(self, estimator: Any, x: Array, y: NDArray[Any]) -> None:
        if self.classes:
            estimator.partial_fit(x, y, classes=np.arange(self.classes))
        else:
            estimator.partial_fit(x, y)

    def _answers(self, estimator: Any, x: Array) -> NDArray[Any]:
        if not self.classes:
            return np.asarray(estimator.predict(x)).reshape(len(x), -1)
        if not hasattr(estimator, "predict_proba"):
            return np.asarray(estimator.decision_function(x)).reshape(len(x), -1)
        if not hasattr(estimator, "coefs_") and _link(estimator) == "one-vs-rest":
            return _one_vs_rest(np.asarray(estimator.decision_function(x), np.float64))
        return np.asarray(estimator.predict_proba(x))

    def _metrics(self, estimator: Any, samples: Samples) -> Metrics:
        answers = self._answers(estimator, samples.x)
        if not self.classes:
            loss = 0.5 * float(np.mean((answers - samples.y.reshape(answers.shape)) ** 2))
            return {"rmse": float(np.sqrt(2 * loss)), "loss": loss}
        metrics = {"all": float(np.mean(estimator.predict(samples.x) == samples.y))}
        if hasattr(estimator, "predict_proba"):
            chosen = answers[np.arange(len(samples)), samples.y.astype(np.int64)]
            metrics["loss"] = -float(np.mean(np.log(chosen + _TINY)))
        return metrics


def _check_estimator(estimator: Any, classes: int, outputs: int) -> None:
    name = type(estimator).__name__
    if not hasattr(estimator, "partial_fit"):
        raise LearnerError(f"{name} has no partial_fit", "Use SGDClassifier(loss='log_loss') or an MLP.")
    if getattr(estimator, "average", False):
        raise LearnerError(f"{name} averages its steps, which rounds already do", "Set average=False.")
    if getattr(estimator, "loss", "") == "modified_huber":
        raise LearnerError(f"{name} has probabilities that no graph of ours has", "Use loss='log_loss'.")
    classifies = bool(_sklearn().is_classifier(estimator))
    if classifies and classes < 2:
        raise LearnerError(f"{name} classifies, and has {classes} classes", "Give classes=N, 2 or more.")
    if outputs > 1 and not hasattr(estimator, "hidden_layer_sizes"):
        raise LearnerError(f"{name} has one output", "For more use MLPRegressor.")
    if classes and not classifies:
        raise LearnerError(f"{name} is a regressor", "Leave classes out.")


def _sklearn() -> ModuleType:
    try:
        import sklearn.base
    except ImportError:
        raise ExtraMissing("scikit-learn is not installed", "Run `pip install 'reuna[sklearn]'`.") from None
    module: ModuleType = sklearn.base
    return module


def _tensors(estimator: Any) -> dict[str, Array]:
    """The fitted arrays, copied, as float32."""
    if not hasattr(estimator, "coefs_"):
        return {"coef": float32(estimator.coef_), "intercept": float32(estimator.intercept_)}
    coefs = {f"coef_{layer}": float32(array) for layer, array in enumerate(estimator.coefs_)}
    return coefs | {f"intercept_{layer}": float32(array) for layer, array in enumerate(estimator.intercepts_)}


def _drawn(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
    """First values of a tensor. Weights of an MLP: uniform, Glorot and Bengio 2010, eq. 16."""
    if not name.startswith("coef_"):
        return np.zeros(shape, np.float32)
    bound = np.sqrt(6.0 / sum(shape))
    return float32(rng.uniform(-bound, bound, shape))


def _set_rate(estimator: Any, rate: float) -> None:
    if "learning_rate_init" in estimator.get_params():
        estimator.set_params(learning_rate_init=rate)
    else:
        estimator.set_params(learning_rate="constant", eta0=rate)


def _layers(estimator: Any) -> list[Dense]:
    """The estimator's arithmetic as dense layers."""
    if not hasattr(estimator, "coefs_"):
        return [
            Dense(
                estimator.coef_.reshape(-1, estimator.n_features_in_).T,
                estimator.intercept_,
                _link(estimator),
            )
        ]
    inner = [estimator.activation] * (len(estimator.coefs_) - 1)
    parts = zip(estimator.coefs_, estimator.intercepts_, [*inner, estimator.out_activation_], strict=True)
    return [Dense(*part) for part in parts]


def _link(estimator: Any) -> str:
    """What turns a linear estimator's scores into its answer."""
    if not hasattr(estimator, "predict_proba"):
        return ""
    return "one-vs-rest" if len(estimator.classes_) > 2 else "sigmoid"


def _one_vs_rest(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sigmoids by class divided by their sum, (n, classes), from their logarithms.

    As the estimator's own ``predict_proba``, which loses the digits of a small sum.
    """
    logs = -np.logaddexp(0, -scores)
    shifted = np.exp(logs - logs.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities


def _two_columns(layer: Dense) -> Dense:
    """One sigmoid as a softmax over (0, score): the probabilities of both classes."""
    nothing = np.zeros((len(layer.weight), 1))
    weight = np.concatenate([nothing, layer.weight], axis=1)
    return Dense(weight, np.concatenate([[0.0], layer.bias]), "softmax")
