"""The model on sample data: it keeps the promises of a learner, and it learns. No server is started."""

from pathlib import Path

import pytest
from detector.model import learner, load
from sample import write

import reuna
from reuna.checks import Bench, learner_checks
from reuna.fleet.open_project import open_settings

PROJECT = Path(__file__).parents[1]
SETTINGS = open_settings(PROJECT, [])
LOWER_IS_BETTER = ("rmse", "mae", "late", "false_alarms", "loss")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write(folder)
    return {node.name: load(node, SETTINGS.settings) for node in sorted(folder.iterdir())}


@pytest.mark.parametrize("check", tuple(learner_checks()), ids=lambda check: check.name)
def test_the_learner_keeps_its_promises(check, nodes):
    check.run(Bench(learner(SETTINGS.settings), nodes["pump-1"], SETTINGS.settings))


def test_training_makes_every_pump_better(nodes):
    metric = SETTINGS.metric
    untrained, trained = (
        reuna.simulate(
            learner(SETTINGS.settings), nodes, rounds, strategy=SETTINGS.strategy, settings=SETTINGS.settings
        ).scores
        for rounds in (0, SETTINGS.rounds)
    )
    sign = -1 if metric in LOWER_IS_BETTER else 1
    assert all(sign * trained[node][metric] > sign * untrained[node][metric] for node in nodes)
