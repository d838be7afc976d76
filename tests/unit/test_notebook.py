"""The library: a federation in a notebook, with its comparison, and with clear errors at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import reuna
from reuna.core.errors import DataError, LearnerError, PlanError, ReunaError

SETTINGS = {"rate": 0.5, "epochs": 2}


def site(shift: float, seed: int = 1) -> reuna.Dataset:
    x = np.random.default_rng(seed).normal(shift, 1, (60, 2)).astype(np.float32)
    rows = reuna.Samples(x, (x.sum(axis=1) > 0).astype(np.int64))
    return reuna.Dataset(rows, rows, rows)


SITES = {"mill": site(-1), "press_2": site(0, 2), "Pump": site(1, 3)}


def train(learner: Any = None, sites: Any = None, **more: Any) -> reuna.Result:
    given = learner or reuna.SoftmaxClassifier(2, 2)
    return reuna.simulate(given, SITES if sites is None else sites, 3, settings=SETTINGS, **more)


def test_the_three_ways_of_training_are_compared() -> None:
    result = train(compare=True)
    assert result.scores.keys() == result.local.keys() == result.centralised.keys() == SITES.keys()
    assert result.digest == train().digest
    learner = reuna.SoftmaxClassifier(2, 2)
    alone, _, _ = learner.fit(learner.init(1), SITES["mill"], {"rate": 0.5, "epochs": 6}, 1)
    assert result.local["mill"] == pytest.approx(learner.evaluate(alone, SITES["mill"], {}))


def test_without_being_asked_nothing_is_compared() -> None:
    result = train()
    assert not result.local
    assert not result.centralised


def test_each_site_has_a_bar_for_each_way_of_training() -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    (axes,) = train(compare=True).plot_sites().axes
    assert [text.get_text() for text in axes.get_xticklabels()] == sorted(SITES)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "local",
        "federated",
        "centralised",
    ]
    assert len(axes.patches) == 9
    (alone,) = train().plot_sites("loss").axes
    assert len(alone.patches) == 3


async def test_a_cell_of_a_notebook_trains_as_a_script_does() -> None:
    assert train(compare=True).digest == await asyncio.to_thread(train_digest)
    assert asyncio.get_running_loop().is_running()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("virtual")]


def train_digest() -> str:
    return train().digest


async def test_an_error_comes_out_of_a_cell_as_of_a_script() -> None:
    with pytest.raises(LearnerError, match="mill, training"):
        train(Faulty(weight=0))


class Faulty(reuna.SoftmaxClassifier):
    """Does one thing wrong, at the node that has mostly negative rows."""

    def __init__(self, **wrong: Any) -> None:
        super().__init__(2, 2)
        self.wrong = wrong

    def init(self, seed: int) -> Any:
        return self.wrong["init"]() if "init" in self.wrong else super().init(seed)

    def fit(self, model: Any, data: Any, settings: Any, seed: int) -> Any:
        trained, weight, metrics = super().fit(model, data, settings, seed)
        if data.train.x.mean() > -0.5:
            return trained, weight, metrics
        if "fit" in self.wrong:
            self.wrong["fit"]()
        change: Callable[[Any], Any] = self.wrong.get("model", lambda same: same)
        return change(trained), self.wrong.get("weight", weight), self.wrong.get("metrics", metrics)

    def evaluate(self, model: Any, data: Any, settings: Any) -> Any:
        metrics = super().evaluate(model, data, settings)
        return self.wrong.get("scores", metrics) if data.train.x.mean() <= -0.5 else metrics


def fail(error: Exception) -> Callable[[], Any]:
    def raising() -> Any:
        raise error

    return raising


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"fit": fail(ZeroDivisionError("by zero"))}, "mill, training: ZeroDivisionError: by zero"),
        ({"fit": fail(LearnerError("no"))}, "mill, training: no"),
        ({"weight": 0}, "mill, training: fit returned 0 samples"),
        ({"weight": 1.5}, "mill, training: fit returned 1.5 samples"),
        ({"metrics": {"loss": float("nan")}}, "mill, training: the metric 'loss' is nan"),
        (
            {"model": lambda model: {name: tensor * np.float32("nan") for name, tensor in model.items()}},
            "mill, training: fit returned values that are not finite in 'bias'",
        ),
        (
            {"model": lambda model: {**model, "bias": np.zeros(3, np.float32)}},
            "mill, training: fit returned tensors of other names or shapes",
        ),
        ({"scores": {"all": float("inf")}}, "mill, evaluating: the metric 'all' is inf"),
        ({"scores": 7}, "mill, evaluating: metrics must be numbers by name"),
        ({"init": fail(KeyError("size"))}, "making the first model: KeyError: 'size'"),
    ],
)
def test_what_a_learner_does_wrong_is_said_at_once_with_the_node(wrong: Any, said: str) -> None:
    learner = Faulty(**wrong)
    with pytest.raises(LearnerError) as caught:
        train(learner)
    assert said in caught.value.message


def test_where_a_learner_raised_can_be_traced() -> None:
    with pytest.raises(LearnerError) as caught:
        train(Faulty(fit=fail(ZeroDivisionError("by zero"))))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_data_with_a_gap_are_refused_before_training(split: str) -> None:
    data = SITES["mill"]
    x = np.array(data.train.x)
    x[3, 1] = np.nan
    gap = replace(data, **{split: reuna.Samples(x, data.train.y)})
    with pytest.raises(DataError, match=f"mill: 1 of its {split} values are not finite numbers"):
        train(sites={**SITES, "mill": gap})


def test_labels_that_the_model_does_not_know_name_the_node() -> None:
    data = SITES["mill"]
    other = replace(data, train=reuna.Samples(data.train.x, data.train.y + 5))
    with pytest.raises(DataError, match="mill, training: labels are 5 to 6, the model knows 0 to 1"):
        train(sites={**SITES, "mill": other})


@pytest.mark.parametrize(
    ("sites", "said"),
    [
        ({"cloud": SITES["mill"]}, "'cloud' cannot be the name of a node"),
        ({"fog-1": SITES["mill"]}, "a fog and an edge have the same name"),
        ({}, "the run has no edge nodes"),
    ],
)
def test_a_fleet_that_cannot_be_is_refused(sites: Any, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        train(sites=sites)


def test_only_datasets_can_be_put_in_one_place() -> None:
    with pytest.raises(DataError, match="mill: its data are a dict"):
        train(sites={"mill": {}}, compare=True)


def test_the_comparison_says_that_it_is_what_failed() -> None:
    class Wide(reuna.SoftmaxClassifier):
        def fit(self, model: Any, data: Any, settings: Any, seed: int) -> Any:
            if len(data.train) > 100:
                raise MemoryError
            return super().fit(model, data, settings, seed)

    with pytest.raises(ReunaError, match="training on all data in one place: MemoryError"):
        train(Wide(2, 2), compare=True)
