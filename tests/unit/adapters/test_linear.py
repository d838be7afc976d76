"""Linear models: the gradient is the loss's, training is repeatable, bad data are named."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.adapters.linear import (
    BinaryLogistic,
    LinearModel,
    LinearRegressor,
    Loss,
    SoftmaxClassifier,
    cross_entropy,
    logistic_loss,
    sigmoid,
    softmax,
    squared_error,
)
from reuna.core.data import Dataset, Samples, batches, joined, no_samples, number, pooled
from reuna.core.errors import DataError, LearnerError, SettingsError
from reuna.core.tensors import pack, unpack

RNG = np.random.default_rng(1)
X = RNG.normal(size=(30, 4)).astype(np.float32)
TRUTH = np.array([1, -2, 0.5, 0], np.float32)


def both(y: Any, x: Any = X) -> Dataset:
    samples = Samples(x, y)
    return Dataset(samples, samples, samples)


CASES = {
    "softmax": (SoftmaxClassifier(4, 3), both(X[:, :3].argmax(axis=1))),
    "logistic": (BinaryLogistic(4), both((X @ TRUTH > 0).astype(np.int64))),
    "least squares": (LinearRegressor(4), both(X @ TRUTH + 3)),
}
each = pytest.mark.parametrize(("learner", "data"), CASES.values(), ids=CASES)


@pytest.mark.parametrize(
    ("loss", "outputs", "targets"),
    [
        (cross_entropy, 3, np.array([0, 2, 1, 2, 0])),
        (logistic_loss, 1, np.array([0, 1, 1, 0, 1])),
        (squared_error, 1, np.array([0.5, -1, 2, 0, 3], np.float32)),
    ],
)
def test_the_gradient_is_that_of_the_loss(loss: Loss, outputs: int, targets: Any) -> None:
    scores = np.random.default_rng(2).normal(size=(5, outputs)).astype(np.float32)
    gradient, _ = loss(scores, targets)
    step = 1e-2
    for place in np.ndindex(*scores.shape):
        up, down = scores.copy(), scores.copy()
        up[place] += step
        down[place] -= step
        slope = (loss(up, targets)[1] - loss(down, targets)[1]) / (2 * step)
        assert gradient[place] == pytest.approx(slope, abs=2e-4)
    assert gradient.dtype == np.float32


@each
def test_training_lowers_the_loss(learner: LinearModel, data: Dataset) -> None:
    base = learner.init(1)
    trained, weight, metrics = learner.fit(base, data, {"epochs": 200, "rate": 0.3}, 1)
    assert weight == 30
    assert metrics["loss"] < 0.5 * learner.evaluate(base, data, {})["loss"]
    assert learner.evaluate(trained, data, {})["loss"] == pytest.approx(metrics["loss"], rel=0.05)


@each
def test_seed_and_batches_decide_every_bit(learner: LinearModel, data: Dataset) -> None:
    settings = {"epochs": 3, "batch": 7}
    base = unpack(pack(learner.init(1)))
    bits = [pack(learner.fit(base, data, settings, seed)[0]) for seed in (1, 1, 2)]
    assert bits[0] == bits[1] != bits[2]


@each
def test_the_same_settings_from_text_files_may_be_whole_numbers(learner: LinearModel, data: Dataset) -> None:
    whole = learner.fit(learner.init(1), data, {"rate": 1, "l2": 0, "mu": 0, "epochs": 1}, 1)[0]
    broken = learner.fit(learner.init(1), data, {"rate": 1.0, "l2": 0.0, "mu": 0.0, "epochs": 1.0}, 1)[0]
    assert pack(whole) == pack(broken)


@each
def test_the_proximal_term_pulls_towards_the_incoming_model(learner: LinearModel, data: Dataset) -> None:
    base = {name: tensor + np.float32(0.5) for name, tensor in learner.init(1).items()}

    def moved(mu: float) -> float:
        trained = learner.fit(base, data, {"epochs": 100, "mu": mu, "rate": 0.05}, 1)[0]
        return float(sum(np.square(trained[name] - base[name]).sum() for name in base))

    assert moved(10) < 0.2 * moved(0.1) < 0.2 * moved(0)


def test_one_step_of_fedprox_is_equation_two() -> None:
    learner, data = CASES["least squares"]
    base = learner.init(1)
    once = learner.fit(base, data, {"rate": 0.1, "mu": 2.0}, 1)[0]
    twice = learner.fit(base, data, {"rate": 0.1, "mu": 2.0, "epochs": 2}, 1)[0]
    plain = learner.fit(once, data, {"rate": 0.1}, 1)[0]
    expected = plain["weight"] - np.float32(0.1 * 2.0) * (once["weight"] - base["weight"])
    assert np.allclose(twice["weight"], expected, atol=1e-6)


def test_ridge_shrinks_weights_and_not_the_bias() -> None:
    learner, data = CASES["least squares"]
    free = learner.fit(learner.init(1), data, {"epochs": 300}, 1)[0]
    held = learner.fit(learner.init(1), data, {"epochs": 300, "l2": 1.0}, 1)[0]
    assert np.linalg.norm(held["weight"]) < 0.7 * np.linalg.norm(free["weight"])
    assert held["bias"][0] > 2


def test_no_epoch_changes_nothing() -> None:
    learner, data = CASES["softmax"]
    base = {name: tensor + 1 for name, tensor in learner.init(1).items()}
    assert pack(learner.fit(base, data, {"epochs": 0}, 1)[0]) == pack(base)


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=2, max_size=5))
def test_probabilities_are_probabilities_whatever_the_scores(scores: list[float]) -> None:
    row = np.array([scores], np.float32)
    assert softmax(row).sum() == pytest.approx(1, abs=1e-5)
    assert ((softmax(row) >= 0) & (sigmoid(row) >= 0) & (sigmoid(row) <= 1)).all()


def test_a_diverging_fit_says_what_to_lower() -> None:
    learner, data = CASES["least squares"]
    with pytest.raises(LearnerError, match="diverged at a rate of 1000") as caught:
        learner.fit(learner.init(1), data, {"rate": 1000, "epochs": 100}, 1)
    assert "Lower" in caught.value.next_step


@pytest.mark.parametrize("value", ["fast", -0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["rate", "l2", "mu", "epochs", "batch"])
def test_a_setting_that_is_no_number_is_named(name: str, value: Any) -> None:
    learner, data = CASES["softmax"]
    with pytest.raises(SettingsError, match=f"{name} is"):
        learner.fit(learner.init(1), data, {name: value}, 1)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (no_samples(4), "no samples"),
        (Samples(np.zeros((2, 5), np.float32), np.zeros(2, np.int64)), r"shape \(2, 5\), the model 4"),
        (Samples(np.zeros(2, np.float32), np.zeros(2, np.int64)), r"shape \(2,\)"),
        (
            Samples(np.zeros((2, 4), np.float32), np.array([0, 3])),
            "labels are 0 to 3, the model knows 0 to 2",
        ),
        (Samples(np.zeros((2, 4), np.float32), np.array([-1, 1])), "labels are -1 to 1"),
    ],
)
def test_data_that_do_not_fit_are_named(samples: Samples, said: str) -> None:
    learner, data = CASES["softmax"]
    with pytest.raises(DataError, match=said):
        learner.fit(learner.init(1), replace(data, train=samples), {}, 1)
    with pytest.raises(DataError, match=said):
        learner.evaluate(learner.init(1), replace(data, test=samples), {})


def test_a_regressor_counts_its_error_in_the_targets_unit() -> None:
    learner, data = CASES["least squares"]
    found = learner.evaluate(learner.init(1), data, {})
    assert found["rmse"] == pytest.approx(float(np.sqrt(np.mean(data.test.y**2))), rel=1e-5)


@each
def test_a_small_fit_is_cheap(learner: LinearModel, data: Dataset) -> None:
    """130 µs is the budget of a simulated client at 100 samples and 50 features."""
    x = RNG.normal(size=(100, 50)).astype(np.float32)
    wide = both(np.resize(data.train.y, 100), x)
    same = type(learner)(50, 3) if learner.outputs == 3 else type(learner)(50)  # type: ignore[arg-type, call-arg]
    base, best = same.init(1), float("inf")
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(10):
            same.fit(base, wide, {"rate": 0.01}, 1)
        best = min(best, (time.perf_counter() - began) / 10)
    assert best < 130e-6


# --- samples ---------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(0, 50), st.integers(0, 3))
def test_each_epoch_sees_each_sample_once(rows: int, size: int, epochs: int) -> None:
    samples = Samples(np.zeros((rows, 1), np.float32), np.arange(rows))
    parts = list(batches(samples, {"epochs": epochs, "batch": size}, 3))
    seen = [part.y for part in parts]
    assert sorted(np.concatenate(seen).tolist() if seen else []) == sorted(list(range(rows)) * epochs)
    assert all(len(part) <= (size or rows) for part in parts)


def test_nodes_are_pooled_in_their_order() -> None:
    one, two = both(np.zeros(30, np.int64)), both(np.ones(30, np.int64))
    assert pooled([one, two]).train.y.tolist() == [0] * 30 + [1] * 30
    assert len(joined([no_samples(4), one.train])) == 30
    with pytest.raises(DataError, match="no samples to join"):
        joined([])


def test_a_missing_number_has_its_default() -> None:
    assert number({}, "rate", 0.25) == 0.25
    assert number({"rate": 2}, "rate", 0.25) == 2
