"""What the demo promises, over its three committed splits: its own project and data, in this process.

Alone a plant cannot name faults it never saw; together all can, nearly as well as with all data in one
place, without false alarms. The figures that the README shows come from real processes: `make demo`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

import reuna
from reuna.adapters.project import load_entry
from reuna.demo import plants
from reuna.demo.job import PROJECT, write_plants
from reuna.fleet.open_project import open_settings

POINT = 0.01


@pytest.fixture(scope="module", params=range(plants.SPLITS), ids=lambda split: f"split {split + 1}")
def result(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> reuna.Result:
    """A whole run of the demo's project over one split."""
    pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    folder, asked = tmp_path_factory.mktemp("plants"), open_settings(PROJECT, [])
    entry = load_entry(PROJECT, asked.entry)
    nodes = {
        node.name: entry.load(node.folder, asked.settings) for node in write_plants(folder, request.param)
    }
    return reuna.simulate(
        entry.learner(asked.settings),
        nodes,
        asked.rounds,
        strategy=asked.strategy,
        settings=asked.settings,
        seed=asked.seed,
        fogs=2,
        compare=True,
    )


def mean(scores: Mapping[str, Mapping[str, float]], metric: str) -> float:
    return float(np.mean([each[metric] for each in scores.values()]))


def test_every_plant_gains_twenty_points_over_training_alone(result: reuna.Result) -> None:
    assert len(result.scores) == plants.PLANTS
    for plant, federated in result.scores.items():
        assert federated["all"] >= result.local[plant]["all"] + 20 * POINT, plant


def test_no_plant_loses_more_than_three_points_on_the_faults_it_has_seen(result: reuna.Result) -> None:
    for plant, federated in result.scores.items():
        assert federated["seen"] >= result.local[plant]["seen"] - 3 * POINT, plant


def test_the_mean_is_within_two_points_of_all_data_in_one_place(result: reuna.Result) -> None:
    assert mean(result.scores, "all") >= mean(result.centralised, "all") - 2 * POINT


def test_no_plant_has_more_than_five_in_a_hundred_false_alarms(result: reuna.Result) -> None:
    assert max(each["false_alarms"] for each in result.scores.values()) <= 0.05
