"""`reuna study`: every way over the same nodes, the same figures in any number of processes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reuna
from reuna.core.errors import PlanError, RunFailed, SettingsError
from reuna.fleet.study import Ask, Row, by_site, compute, prepared, settings_for, study
from reuna.sim.baseline import centralised, each_alone
from reuna.template import make_project
from tests.commands import reuna as command


@pytest.fixture(scope="module")
def pumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "pumps"
    make_project(folder, sample=True)
    return folder


def ask_of(pumps: Path, *strategies: str, seeds: tuple[int, ...] = (), **changes: Any) -> Ask:
    asked = Ask(pumps, pumps / "data", ["strategy.rounds=2"], list(strategies), list(seeds))
    return prepared(replace(asked, **changes))


def test_each_strategy_is_played_with_each_seed_beside_training_alone_and_in_one_place(pumps: Path) -> None:
    told: list[dict[str, Any]] = []
    compute(ask_of(pumps, "fedavg", "median", seeds=(1, 2)), told.append)
    rows = [Row(**line["row"]) for line in told if line["what"] == "row"]
    ways = ["alone", "centralised", "fedavg", "median"]
    assert [(row.way, row.seed) for row in rows] == [(way, seed) for seed in (1, 2) for way in ways]
    assert all(set(row.scores) == {"pump-1", "pump-2", "pump-3", "pump-4"} for row in rows)
    assert len({row.model for row in rows if row.model}) == 4
    assert all((row.sent > 0) == (row.rounds == 2) for row in rows)
    assert [line["round"] for line in told if line["what"] == "round"] == [1, 2] * 4


async def test_the_study_in_a_process_of_its_own_has_the_same_figures_however_many_train(pumps: Path) -> None:
    heard: list[str] = []
    found = [
        await study(ask_of(pumps, "fedavg", processes=processes), lambda line: heard.append(line["what"]))
        for processes in (1, 2)
    ]
    one, two = ([replace(row, seconds=0.0) for row in rows] for rows in found)
    assert one == two
    assert "round" in heard


def test_a_strategys_settings_in_the_file_do_not_stand_in_the_way_of_another(pumps: Path) -> None:
    own = prepared(Ask(pumps, pumps / "data", [], [], []))
    assert (own.strategies, own.seeds) == (["fedavgm"], [1])
    assert "momentum" in settings_for(own, "fedavgm", 1).settings
    assert "momentum" not in settings_for(own, "fedadam", 1).settings


def test_what_cannot_be_played_is_refused_before_anything_is_loaded(pumps: Path) -> None:
    with pytest.raises(PlanError, match="no strategy named 'fedmagic'"):
        ask_of(pumps, "fedavg", "fedmagic")
    with pytest.raises(PlanError, match="krum .* at least 5 nodes, and there may be 4"):
        ask_of(pumps, "fedavg", "krum")
    with pytest.raises(SettingsError, match="run.seed"):
        ask_of(pumps, seeds=(-1,))


def test_a_metric_that_a_node_does_not_have_is_named_with_its_site() -> None:
    with pytest.raises(RunFailed, match="mill has no 'f1'"):
        by_site({"a": {"f1": 1.0}, "b": {}}, {"mill": ("a", "b")}, "f1")
    assert by_site({"a": {"f1": 1.0}, "b": {"f1": 0.5}}, {"mill": ("a", "b")}, "f1") == {"mill": 0.75}


def test_the_baselines_are_those_of_a_run_that_compares() -> None:
    rng = np.random.default_rng(1)
    samples = [
        reuna.Samples(rng.normal(size=(30, 4)).astype(np.float32), rng.integers(0, 2, 30)) for _ in range(3)
    ]
    nodes = {f"n{number}": reuna.Dataset(each, each, each) for number, each in enumerate(samples)}
    learner, told = reuna.SoftmaxClassifier(4, 2), {"rate": 0.2, "epochs": 1}
    whole = reuna.simulate(learner, nodes, 3, settings=told, seed=7, compare=True)
    assert each_alone(learner, nodes, told, 3, 7) == whole.local
    assert centralised(learner, nodes, told, 3, 7) == whole.centralised


def test_the_command_prints_rows_for_scripts_and_refuses_in_one_line(pumps: Path) -> None:
    done = command("study", str(pumps), "--rounds", "1", "--strategy", "fedavg", "--json", cwd=pumps)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["way"] for row in rows] == ["alone", "centralised", "fedavg"]
    assert set(rows[0]) == {
        "way", "seed", "worst", "mean", "scores", "rounds", "update_bytes", "seconds", "model"
    }  # fmt: skip
    assert rows[2]["worst"] <= rows[2]["mean"]
    refused = command("study", str(pumps), "--strategy", "fedmagic", cwd=pumps)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: no strategy named 'fedmagic'")
