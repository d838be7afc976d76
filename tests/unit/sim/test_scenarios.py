"""What a site that is hit by a fault does, and who that is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna import Dataset, Samples, SoftmaxClassifier
from reuna.core.plans import work_seed
from reuna.core.project import project_settings
from reuna.core.settings import Source
from reuna.learn.strategies import TAKES
from reuna.sim import scenarios
from reuna.sim.scenarios import World


class Noting(SoftmaxClassifier):
    """Keeps what it was trained on."""

    def __init__(self) -> None:
        super().__init__(1, 3)
        self.saw: list[Samples] = []

    def fit(self, model: Any, data: Any, settings: Mapping[str, Any], seed: int) -> Any:
        self.saw.append(data.train)
        return super().fit(model, data, settings, seed)


def samples(count: int = 12) -> Samples:
    x = np.arange(count, dtype=np.float32)[:, None]
    return Samples(x, np.arange(count) % 3, np.arange(count))


def world(rounds: int = 4) -> World:
    data = Dataset(samples(), samples(), samples())
    sites = {"north": ("n-1", "n-2"), "south": ("s-1",)}
    return World(Noting, {"n-1": data, "n-2": data, "s-1": data}, sites, rounds, seed=7)


def asked(**values: Any) -> Any:
    return project_settings([Source("reuna.toml", {"project": {"name": "p"}, "test": values})], TAKES).test


@pytest.mark.parametrize(
    ("rounds", "present", "late"), [(1, [], [1]), (4, [1, 2], [1, 2]), (5, [1, 2], [1, 2, 3])]
)
def test_faults_last_for_half_of_the_rounds(rounds: int, present: list[int], late: list[int]) -> None:
    assert list(scenarios.before_dropout(rounds)) == present
    assert list(scenarios.first_half(rounds)) == late


@pytest.mark.parametrize("fault", ["dropout", "poisoned", "late-labels"])
def test_every_node_of_the_site_is_hit_and_no_other(fault: str) -> None:
    place = world()
    edges = scenarios.faulty(place, fault, "north", asked())
    assert type(edges["s-1"].learner) is Noting
    assert edges["s-1"].rounds is None
    for node in ("n-1", "n-2"):
        assert (type(edges[node].learner), edges[node].rounds) != (Noting, None)


def test_the_heaviest_site_is_the_one_whose_nodes_weigh_most_together() -> None:
    sites = {"big": ("b",), "many": ("m-1", "m-2")}
    assert scenarios.heaviest(sites, [{"b": 10, "m-1": 6, "m-2": 6}]) == "many"
    assert scenarios.heaviest(sites, [{"b": 10, "m-1": 6}]) == "big"
    assert scenarios.heaviest(sites, [{"b": 6, "m-1": 6}]) == "big", "the first by name"


def test_a_round_counts_for_a_site_when_any_of_its_nodes_gave() -> None:
    assert scenarios.counted(("m-1", "m-2"), [{"m-1": 3}, {"b": 3}, {"m-2": 3, "b": 1}]) == 2


@pytest.mark.parametrize("factor", [-10.0, 3.0, 0.0])
def test_a_poisoned_update_is_the_honest_one_times_the_factor(factor: float) -> None:
    place = world()
    honest, liar = Noting(), scenarios.faulty(place, "poisoned", "south", asked(poison_factor=factor))["s-1"]
    model = {"bias": np.ones(3, np.float32), "weight": np.ones((1, 3), np.float32)}
    true, weight, metrics = honest.fit(model, liar.data, {}, 1)
    lied = liar.learner.fit(model, liar.data, {}, 1)
    assert (lied[1], lied[2]) == (weight, metrics)
    for name, tensor in lied[0].items():
        assert tensor.dtype == np.float32
        np.testing.assert_allclose(
            tensor - model[name], factor * (true[name] - model[name]), rtol=1e-4, atol=1e-4
        )


def test_a_poisoned_update_stays_finite() -> None:
    class Leaping(Noting):
        def fit(self, model: Any, data: Any, settings: Mapping[str, Any], seed: int) -> Any:
            return {name: tensor + np.float32(1e38) for name, tensor in model.items()}, 1, {}

    found, _, _ = scenarios.Poisoner(Leaping(), 1e6).fit(Noting().init(1), None, {}, 1)
    assert all(np.isfinite(tensor).all() and tensor.max() > 1e38 for tensor in found.values())


def test_late_labels_are_missing_in_early_rounds_only() -> None:
    edge = scenarios.faulty(world(rounds=4), "late-labels", "south", asked(late_part=0.75))["s-1"]
    model = Noting().init(1)
    for number in (1, 2, 3, 4):
        edge.learner.fit(model, edge.data, {}, work_seed(7, number, "s-1"))
    inner: Any = vars(edge.learner)["_learner"]
    assert [len(each) for each in inner.saw] == [3, 3, 12, 12]
    assert inner.saw[0].y.tolist() == samples().y[:3].tolist()
    assert len(inner.saw[0].group) == 3


def test_wrong_labels_are_wrong_for_every_sample() -> None:
    data = scenarios.with_turned_labels(Dataset(samples(), samples(), samples()))
    assert not np.any(data.train.y == samples().y)
    assert set(data.train.y) == {0, 1, 2}
    np.testing.assert_array_equal(data.test.y, samples().y)


def test_a_target_is_mirrored() -> None:
    part = Samples(np.zeros((3, 1), np.float32), np.array([1.0, 2.0, 5.0], np.float32))
    data = scenarios.with_turned_labels(Dataset(part, part, part))
    assert data.train.y.tolist() == [5.0, 4.0, 1.0]
    assert data.train.y.dtype == np.float32


def test_shuffling_keeps_the_labels_and_says_the_same_for_the_same_key() -> None:
    whole = Dataset(samples(60), samples(), samples())
    one, again, other = (scenarios.with_shuffled_labels(whole, key).train.y for key in ("1/a", "1/a", "1/b"))
    assert one.tolist() == again.tolist() != other.tolist()
    assert sorted(one) == sorted(samples(60).y)
    assert one.tolist() != samples(60).y.tolist()


@given(st.integers(1, 50), st.floats(0.01, 1))
def test_one_sample_is_left_whatever_part_is_late(count: int, part: float) -> None:
    data = scenarios.without_last(Dataset(samples(count), samples(), samples()), part)
    assert 1 <= len(data.train) <= count
    assert data.train.y.tolist() == samples(count).y[: len(data.train)].tolist()


def test_data_that_are_no_datasets_have_no_labels_to_change() -> None:
    assert world().labelled
    assert not World(Noting, {"a": object()}, {"a": ("a",)}, 1, 1).labelled
