"""Every learner we ship passes the shipped checks; every check catches the fault planted for it."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from reuna.adapters.anomaly import AnomalyDetector
from reuna.adapters.linear import BinaryLogistic, LinearReconstruction, LinearRegressor, SoftmaxClassifier
from reuna.adapters.scored import Scored
from reuna.checks import MAX_METRICS, Bench, Check, check_learner, failures, learner_checks
from reuna.core.data import Dataset, Samples
from reuna.core.errors import DataError, LearnerError
from reuna.core.tensors import float32

CHECKS = tuple(learner_checks())
FEATURES, CLASSES = 4, 3


def data(classes: int) -> Dataset:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(40, FEATURES)).astype(np.float32)
    y = rng.integers(0, classes, 40) if classes else x.sum(axis=1)
    samples = Samples(x, y)
    return Dataset(samples, samples, samples)


def sklearn(make: Callable[[Any, Any], Any], classes: int) -> Any:
    linear = pytest.importorskip("sklearn.linear_model", reason="the extra `sklearn` is not installed")
    networks = pytest.importorskip("sklearn.neural_network")
    from reuna.adapters.sklearn_learner import SklearnLearner

    return SklearnLearner(make(linear, networks), features=FEATURES, classes=classes)


def torch(classes: int) -> Any:
    nn = pytest.importorskip("torch.nn", reason="the extra `torch` is not installed")
    from reuna.adapters.torch_learner import TorchLearner

    return TorchLearner(lambda: nn.Linear(FEATURES, max(1, classes)), features=FEATURES, classes=classes)


def sklearn_anomaly() -> Any:
    networks = pytest.importorskip("sklearn.neural_network", reason="the extra `sklearn` is not installed")
    from reuna.adapters.sklearn_learner import SklearnLearner

    network = networks.MLPRegressor(hidden_layer_sizes=(2,), solver="sgd")
    return AnomalyDetector(SklearnLearner(network, features=FEATURES, outputs=FEATURES))


def torch_anomaly() -> Any:
    nn = pytest.importorskip("torch.nn", reason="the extra `torch` is not installed")
    from reuna.adapters.torch_learner import TorchLearner

    return AnomalyDetector(
        TorchLearner(lambda: nn.Sequential(nn.Linear(FEATURES, 2), nn.Linear(2, FEATURES)), features=FEATURES)
    )


def scored() -> Any:
    return Scored(
        SoftmaxClassifier(FEATURES, CLASSES), lambda answer, data: {"top": float(answer(data.test.x).max())}
    )


LEARNERS: dict[str, tuple[Callable[[], Any], int]] = {
    "softmax": (lambda: SoftmaxClassifier(FEATURES, CLASSES), CLASSES),
    "logistic": (lambda: BinaryLogistic(FEATURES), 2),
    "least squares": (lambda: LinearRegressor(FEATURES), 0),
    "sklearn SGD": (lambda: sklearn(lambda m, _: m.SGDClassifier(loss="log_loss"), CLASSES), CLASSES),
    "sklearn SGD of two": (lambda: sklearn(lambda m, _: m.SGDClassifier(loss="log_loss"), 2), 2),
    "sklearn hinge": (lambda: sklearn(lambda m, _: m.SGDClassifier(), CLASSES), CLASSES),
    "sklearn SGD regressor": (lambda: sklearn(lambda m, _: m.SGDRegressor(), 0), 0),
    "sklearn MLP": (lambda: sklearn(lambda _, m: m.MLPClassifier((5,)), CLASSES), CLASSES),
    "sklearn MLP of two": (lambda: sklearn(lambda _, m: m.MLPClassifier((5, 4)), 2), 2),
    "sklearn MLP regressor": (
        lambda: sklearn(lambda _, m: m.MLPRegressor(hidden_layer_sizes=(5,)), 0),
        0,
    ),
    "torch": (lambda: torch(CLASSES), CLASSES),
    "torch regressor": (lambda: torch(0), 0),
    "reconstruction": (lambda: AnomalyDetector(LinearReconstruction(FEATURES)), 1),
    "sklearn autoencoder": (sklearn_anomaly, 1),
    "torch autoencoder": (torch_anomaly, 1),
    "scored by the project": (scored, CLASSES),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("name", LEARNERS)
def test_a_shipped_learner_keeps_its_promise(name: str, check: Check) -> None:
    make, classes = LEARNERS[name]
    bench = Bench(make(), data(classes), {"epochs": 2, "rate": 0.05, "batch": 16})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torch|onnxscript|copyreg")
        check.run(bench)


def test_the_checks_run_in_one_call() -> None:
    assert check_learner(SoftmaxClassifier(FEATURES, CLASSES), data(CLASSES)) == CHECKS


class Sound(SoftmaxClassifier):
    """The learner into which faults are planted."""

    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES)


class InitByChance(Sound):
    def init(self, seed: int) -> Any:
        model = super().init(seed)
        return {**model, "bias": float32(np.random.default_rng().normal(size=CLASSES))}


class Doubles(Sound):
    def init(self, seed: int) -> Any:
        return {name: np.asarray(value, np.float64) for name, value in super().init(seed).items()}

    def fit(self, model: Any, data: Any, settings: Any, seed: int) -> Any:
        trained, weight, metrics = super().fit(model, data, settings, seed)
        return {name: value.astype(np.float64) for name, value in trained.items()}, weight, metrics


class FitByChance(Sound):
    def fit(self, model: Any, data: Any, settings: Any, seed: int) -> Any:
        trained, weight, metrics = super().fit(model, data, settings, seed)
        noise = float32(np.random.default_rng().normal(size=CLASSES))
        return {**trained, "bias": trained["bias"] + noise}, weight, metrics


class TrainsInPlace(Sound):
    def fit(self, model: Any, data: Any, settings: Any, seed: int) -> Any:
        trained, weight, metrics = super().fit(model, data, settings, seed)
        if model["bias"].flags.writeable:
            model["bias"][:] = trained["bias"]
        return trained, weight, metrics


class Grows(Sound):
    def fit(self, model: Any, data: Any, settings: Any, seed: int) -> Any:
        trained, weight, metrics = super().fit(
            {**model, "bias": model["bias"][:CLASSES]}, data, settings, seed
        )
        return {**trained, "steps": np.ones(1, np.float32)}, weight, metrics


class NotFinite(Sound):
    def init(self, seed: int) -> Any:
        return {**super().init(seed), "unused": np.full(1, np.nan, np.float32)}

    def fit(self, model: Any, data: Any, settings: Any, seed: int) -> Any:
        trained, weight, metrics = super().fit(model, data, settings, seed)
        return {**trained, "unused": model["unused"]}, weight, metrics


class Weightless(Sound):
    weight: Any = 0

    def fit(self, model: Any, data: Any, settings: Any, seed: int) -> Any:
        trained, _, metrics = super().fit(model, data, settings, seed)
        return trained, self.weight, metrics


class NumpyWeight(Weightless):
    weight = np.int64(40)


class WeightOfTrue(Weightless):
    weight = True


class LossIsNan(Sound):
    def fit(self, model: Any, data: Any, settings: Any, seed: int) -> Any:
        trained, weight, _ = super().fit(model, data, settings, seed)
        return trained, weight, {"loss": float("nan")}


class TooManyMetrics(Sound):
    def evaluate(self, model: Any, data: Any, settings: Any) -> Any:
        return {f"m{number}": 0.0 for number in range(MAX_METRICS + 1)}


class MetricIsText(Sound):
    def evaluate(self, model: Any, data: Any, settings: Any) -> Any:
        return {"loss": "low"}


class CountsEvaluations(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def evaluate(self, model: Any, data: Any, settings: Any) -> Any:
        self.seen += 1
        return {"calls": float(self.seen)}


class EvaluatesInPlace(Sound):
    def evaluate(self, model: Any, data: Any, settings: Any) -> Any:
        if model["bias"].flags.writeable:
            model["bias"] += 1
        return {}


class KeepsMomentum(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.momentum = np.zeros(CLASSES, np.float32)

    def fit(self, model: Any, data: Any, settings: Any, seed: int) -> Any:
        trained, weight, metrics = super().fit(model, data, settings, seed)
        bias = trained["bias"] + self.momentum
        self.momentum = trained["bias"] - model["bias"]
        return {**trained, "bias": bias}, weight, metrics


class KnowsOnlyWhatItSaw(Sound):
    def fit(self, model: Any, data: Any, settings: Any, seed: int) -> Any:
        trained, weight, metrics = super().fit(model, data, settings, seed)
        return {**trained, "bias": trained["bias"][: len(np.unique(data.train.y))]}, weight, metrics


class RefusesUnseen(Sound):
    def fit(self, model: Any, data: Any, settings: Any, seed: int) -> Any:
        if len(np.unique(data.train.y)) < CLASSES:
            raise DataError("a class is missing")
        return super().fit(model, data, settings, seed)


class ExportsScores(Sound):
    activation = ""


class ExportsNothing(Sound):
    def export(self, model: Any) -> bytes:
        return b""


FAULTS: dict[str, tuple[type[Sound], ...]] = {
    "init is seeded": (InitByChance,),
    "tensors are float32": (Doubles,),
    "fit is seeded": (FitByChance,),
    "fit leaves its input alone": (TrainsInPlace,),
    "fit keeps names and shapes": (Grows,),
    "values are finite": (NotFinite,),
    "weight counts samples": (Weightless, NumpyWeight, WeightOfTrue),
    "metrics are few finite numbers": (LossIsNan, TooManyMetrics, MetricIsText),
    "evaluate is pure": (CountsEvaluations, EvaluatesInPlace),
    "fit remembers nothing": (KeepsMomentum,),
    "an unseen label is no obstacle": (KnowsOnlyWhatItSaw, RefusesUnseen),
    "export says what the learner says": (ExportsScores, ExportsNothing),
}


@pytest.mark.parametrize(
    ("name", "fault"), [(name, fault) for name, faults in FAULTS.items() for fault in faults]
)
def test_a_planted_fault_is_caught_by_its_check_and_no_other(name: str, fault: type[Sound]) -> None:
    if name.startswith("export") and importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("the extra `onnx` is not installed")
    bench = Bench(fault(), data(CLASSES), {})
    assert [check.name for check in CHECKS if any(failures([check], bench))] == [name]


def test_every_check_has_a_planted_fault() -> None:
    assert list(FAULTS) == [check.name for check in CHECKS]


def test_all_broken_promises_are_told_at_once() -> None:
    class Both(Weightless, TooManyMetrics):
        pass

    with pytest.raises(LearnerError, match=r"Both breaks 2 of 12 promises") as caught:
        check_learner(Both(), data(CLASSES))
    assert "weight counts samples: fit said 0" in caught.value.message
    assert "65 metrics" in caught.value.message


def test_what_a_learner_raises_itself_says_which_check_met_it() -> None:
    class Raises(Sound):
        def evaluate(self, model: Any, data: Any, settings: Any) -> Any:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        check_learner(Raises(), data(CLASSES))
    assert caught.value.__notes__ == ["while checking that 'metrics are few finite numbers'"]


def test_data_of_any_kind_are_left_to_the_learner() -> None:
    class Rows:
        """What a project's own ``load`` may return."""

        def __init__(self, dataset: Dataset) -> None:
            self.dataset = dataset

    class Own(Sound):
        def fit(self, model: Any, data: Any, settings: Mapping[str, Any], seed: int) -> Any:
            return super().fit(model, data.dataset, settings, seed)

        def evaluate(self, model: Any, data: Any, settings: Mapping[str, Any]) -> Any:
            return super().evaluate(model, data.dataset, settings)

    assert check_learner(Own(), Rows(data(CLASSES)))


def test_one_class_alone_is_no_unseen_label() -> None:
    whole = data(CLASSES)
    one = replace(whole, train=Samples(whole.train.x, np.zeros(40, np.int64)))
    assert check_learner(SoftmaxClassifier(FEATURES, CLASSES), one)
