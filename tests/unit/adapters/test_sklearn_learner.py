"""scikit-learn estimators as learners: classes fixed beforehand, nothing kept between fits."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from reuna.adapters.onnx_export import check_parity
from reuna.adapters.sklearn_learner import SklearnLearner
from reuna.core.data import Dataset, Samples
from reuna.core.errors import DataError, ExtraMissing, LearnerError, SettingsError
from reuna.core.tensors import pack, unpack

linear = pytest.importorskip("sklearn.linear_model", reason="the extra `sklearn` is not installed")
networks = pytest.importorskip("sklearn.neural_network")

X = np.random.default_rng(2).normal(size=(80, 4)).astype(np.float32)
TRUTH = np.array([1, -2, 0.5, 0], np.float32)


def data(classes: int) -> Dataset:
    y = X[:, :classes].argmax(axis=1) if classes else X @ TRUTH
    samples = Samples(X, y)
    return Dataset(samples, samples, samples)


CASES: dict[str, tuple[Any, int]] = {
    "SGD": (linear.SGDClassifier(loss="log_loss"), 3),
    "SGD of two": (linear.SGDClassifier(loss="log_loss"), 2),
    "hinge": (linear.SGDClassifier(), 3),
    "hinge of two": (linear.SGDClassifier(), 2),
    "SGD regressor": (linear.SGDRegressor(), 0),
    "MLP": (networks.MLPClassifier((8,)), 3),
    "MLP of two": (networks.MLPClassifier((8, 4), activation="tanh"), 2),
    "MLP by SGD": (networks.MLPClassifier((8,), activation="logistic", solver="sgd"), 3),
    "MLP regressor": (networks.MLPRegressor(hidden_layer_sizes=(8,)), 0),
}
each = pytest.mark.parametrize(("estimator", "classes"), CASES.values(), ids=CASES)


def learner(estimator: Any, classes: int) -> SklearnLearner:
    return SklearnLearner(estimator, features=4, classes=classes)


@each
def test_training_finds_what_is_there(estimator: Any, classes: int) -> None:
    made = learner(estimator, classes)
    model, data_ = made.init(1), data(classes)
    for seed in range(6):
        model, weight, metrics = made.fit(model, data_, {"epochs": 25, "rate": 0.02}, seed)
    assert weight == 80
    found = made.evaluate(model, data_, {})
    assert metrics.keys() == found.keys()
    if classes:
        assert found["all"] > (0.65 if getattr(estimator, "solver", "") == "sgd" else 0.85)
    else:
        assert found["rmse"] < 0.3


@each
def test_the_exported_graph_answers_the_same(estimator: Any, classes: int) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    made = learner(estimator, classes)
    model, _, _ = made.fit(made.init(1), data(classes), {"epochs": 3}, 1)
    assert check_parity(made.export(model), made, model, X, 2e-5) < 1e-4
    assert check_parity(made.export(model), made, model, X[:1], 2e-5) < 1e-4


@each
def test_the_estimator_itself_would_say_so_too(estimator: Any, classes: int) -> None:
    """The arrays mean the same to a scikit-learn user who takes them home."""
    made = learner(estimator, classes)
    model, _, _ = made.fit(made.init(1), data(classes), {"epochs": 2}, 1)
    theirs = made._loaded(model, 5)
    answers = made.predict(model, X)
    if not classes:
        assert np.array_equal(theirs.predict(X), answers[:, 0])
    elif answers.shape[1] == 1:
        assert np.array_equal(theirs.predict(X), answers[:, 0] > 0)
    else:  # where two sigmoids are both 1 to the last digit, either may be named
        assert (answers[np.arange(80), theirs.predict(X)] >= answers.max(axis=1) - 1e-6).all()
    if hasattr(theirs, "predict_proba"):
        assert np.allclose(theirs.predict_proba(X), answers, atol=1e-6)


@each
def test_a_fit_depends_on_model_data_and_seed_alone(estimator: Any, classes: int) -> None:
    made, settings = learner(estimator, classes), {"epochs": 2}
    base = unpack(pack(made.init(1)))
    first = pack(made.fit(base, data(classes), settings, 3)[0])
    made.fit(base, data(classes), settings, 4)
    assert pack(made.fit(base, data(classes), settings, 3)[0]) == first
    assert pack(learner(estimator, classes).fit(base, data(classes), settings, 3)[0]) == first


@each
def test_no_epoch_gives_back_the_model(estimator: Any, classes: int) -> None:
    made = learner(estimator, classes)
    base = made.fit(made.init(1), data(classes), {}, 1)[0]
    assert pack(made.fit(base, data(classes), {"epochs": 0}, 2)[0]) == pack(base)


def test_a_label_nobody_saw_has_its_row() -> None:
    made = learner(linear.SGDClassifier(loss="log_loss"), 5)
    assert made.init(1)["coef"].shape == (5, 4)
    trained, _, _ = made.fit(made.init(1), data(3), {}, 1)
    assert trained["coef"].shape == (5, 4)
    assert made.predict(trained, X).shape == (80, 5)


def test_networks_begin_at_chance_and_linear_models_at_zero() -> None:
    network = learner(networks.MLPClassifier((8,)), 3)
    assert pack(network.init(1)) == pack(network.init(1)) != pack(network.init(2))
    assert 0 < np.abs(network.init(1)["coef_0"]).max() <= np.sqrt(6 / 12)
    assert not any(tensor.any() for tensor in learner(linear.SGDRegressor(), 0).init(1).values())


def test_the_rate_is_the_step() -> None:
    made = learner(linear.SGDRegressor(), 0)
    small, large = (made.fit(made.init(1), data(0), {"rate": rate}, 1)[0] for rate in (1e-4, 1e-2))
    assert np.abs(small["coef"]).max() < 0.1 * np.abs(large["coef"]).max()
    with pytest.raises(SettingsError, match="rate is 'fast'"):
        made.fit(made.init(1), data(0), {"rate": "fast"}, 1)


@pytest.mark.parametrize(
    ("make", "classes", "said"),
    [
        (lambda: linear.LogisticRegression(), 3, "no partial_fit"),
        (lambda: networks.MLPClassifier(solver="lbfgs"), 3, "no partial_fit"),
        (lambda: linear.SGDClassifier(average=True), 3, "averages"),
        (lambda: linear.SGDClassifier(loss="modified_huber"), 3, "no graph of ours"),
        (lambda: linear.SGDClassifier(), 0, "classifies, and has 0 classes"),
        (lambda: linear.SGDClassifier(), 1, "classifies, and has 1 classes"),
        (lambda: linear.SGDRegressor(), 3, "is a regressor"),
    ],
)
def test_an_estimator_that_cannot_take_part_is_refused(make: Any, classes: int, said: str) -> None:
    with pytest.raises(LearnerError, match=said):
        learner(make(), classes)


def test_data_that_do_not_fit_are_named() -> None:
    made = learner(linear.SGDClassifier(loss="log_loss"), 2)
    with pytest.raises(DataError, match="0 to 2, the model knows 0 to 1"):
        made.fit(made.init(1), data(3), {}, 1)
    with pytest.raises(DataError, match="0 to 2"):
        made.evaluate(made.init(1), data(3), {})


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(ExtraMissing) as caught:
        learner(linear.SGDRegressor(), 0)
    assert "reuna[sklearn]" in caught.value.next_step


def test_importing_the_adapter_does_not_import_sklearn() -> None:
    code = "import sys, reuna.adapters.sklearn_learner; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
