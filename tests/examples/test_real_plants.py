"""The examples on real plants: their folders, their features, and what they learn.

The data are not in the repository. They lie in the folder named by REUNA_DATA, or in
``../shared/data`` beside the repository; without either, the tests that need them are skipped.
"""

from __future__ import annotations

import importlib.util
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reuna.adapters.conformity import judge_folder
from reuna.adapters.project import Entry, load_entry
from reuna.adapters.tables import Table, read_folder
from reuna.adapters.toml_file import read_toml
from reuna.core.contract import contract
from reuna.core.project import ProjectSettings, project_settings
from reuna.core.settings import Source
from reuna.core.tensors import pack, unpack, vector_of
from reuna.edge.train import alone
from reuna.fleet.contract import infer
from reuna.fleet.data import find_nodes
from reuna.learn.strategies import STRATEGIES, TAKES

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("REUNA_DATA") or ROOT.parent / "shared" / "data")
SPANS = (("a", 0, 9), ("b", 10, 20), ("c", 18, 30), ("d", 29, 40), ("e", 41, 50))
Scores = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Case:
    """An example, its folder of data, what prepare is told, and the rounds that suffice here."""

    example: str
    source: str
    file: str
    rounds: int
    nodes: tuple[str, ...]
    options: tuple[str, ...] = ()


CASES = {
    "FD001": Case(
        "cmapss", "cmapss", "train_FD001.parquet", 12, ("fd001-1", "fd001-2", "fd001-3", "fd001-4")
    ),
    "FD002": Case(
        "cmapss",
        "cmapss",
        "train_FD002.parquet",
        4,
        ("fd002-1", "fd002-2", "fd002-3", "fd002-4"),
        ("--set", "FD002"),
    ),
    "skab": Case("skab", "skab", "skab.parquet", 30, ("other", "valve1", "valve2")),
    "tep": Case("tep_braatz", "tep_braatz", "tep.parquet", 40, ("plant-1", "plant-2", "plant-3")),
    "ai4i": Case("ai4i", "ai4i2020", "ai4i2020.parquet", 15, ("type-h", "type-l", "type-m")),
}


def prepared(case: Case, into: Path) -> Path:
    """The nodes' folders of a case, or a skip that says what is missing."""
    source = DATA / case.source
    if not (source / case.file).exists():
        pytest.skip(f"no {case.file} in {source}: set REUNA_DATA to the folder with the real plants' data")
    script("prepare", case.example).main([str(source), str(into), *case.options])
    return into


def script(name: str, example: str) -> Any:
    spec = importlib.util.spec_from_file_location(
        f"{example}_{name}", ROOT / "examples" / example / f"{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def opened(case: Case) -> tuple[Entry, ProjectSettings]:
    folder = ROOT / "examples" / case.example
    settings = project_settings([read_toml(folder / "reuna.toml")], TAKES)
    told = {**settings.settings, "rounds": case.rounds}
    return load_entry(folder, settings.entry), replace(settings, rounds=case.rounds, settings=told)


def trained(case: Case, folder: Path) -> tuple[Scores, Scores]:
    """Metrics of each node: trained alone, and federated, in this process."""
    entry, project = opened(case)
    told = project.settings
    learner = entry.learner(told)
    nodes = {node.name: entry.load(node.folder, told) for node in find_nodes(folder)}
    local = {}
    for name, data in nodes.items():
        own, _, _ = learner.fit(learner.init(project.seed), data, alone(told), 1)
        local[name] = learner.evaluate(own, data, told)
    model = federated(project, learner, list(nodes.values()))
    return local, {name: learner.evaluate(model, data, told) for name, data in nodes.items()}


def federated(project: ProjectSettings, learner: Any, nodes: list[Any]) -> Any:
    """The model after all rounds: weighted mean of the differences, and the server's strategy."""
    strategy = STRATEGIES[project.strategy]
    model = pack(learner.init(project.seed))
    state = strategy.init(len(vector_of(model)[1]))
    for number in range(1, project.rounds + 1):
        before = vector_of(model)[1]
        answers = [
            learner.fit(unpack(model), data, project.settings, 100 * number + place)
            for place, data in enumerate(nodes)
        ]
        weights = np.array([weight for _, weight, _ in answers], np.float64)
        after = np.stack([vector_of(pack(tensors))[1] for tensors, _, _ in answers])
        delta = weights @ (after - before.astype(np.float64)) / weights.sum()
        state, vector = strategy.apply(state, before, delta, number, project.settings)
        model = model[: len(model) - vector.nbytes] + vector.tobytes()
    return unpack(model)


def mean(scores: Scores, metric: str) -> float:
    return float(np.mean([found[metric] for found in scores.values()]))


@pytest.mark.parametrize("name", CASES)
def test_prepare_makes_the_nodes_and_no_row_is_in_two_splits(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    found = find_nodes(prepared(case, tmp_path))
    assert tuple(node.name for node in found) == case.nodes
    for node in found:
        splits = {split: rows_of(tables) for split, tables in read_folder(node.folder).items()}
        assert set(splits) == {"train", "validation", "test"}
        assert min(len(rows) for rows in splits.values()) > 100
        assert not splits["train"] & splits["test"]
        assert not splits["train"] & splits["validation"]
        assert not splits["validation"] & splits["test"]


def rows_of(tables: list[Table]) -> set[bytes]:
    """Each row's numbers, as bytes."""
    rows: set[bytes] = set()
    for table in tables:
        numbers = [column for column in table.columns.values() if column.dtype.kind in "fi"]
        rows |= {row.tobytes() for row in np.stack([each.astype(np.float64) for each in numbers], axis=1)}
    return rows


def test_engines_of_the_fleet_keep_their_remaining_life(tmp_path: Path) -> None:
    folder = prepared(CASES["FD001"], tmp_path)
    tables = read_folder(folder / "fd001-1")
    train, test = tables["train"][0].columns, tables["test"][0].columns
    assert train["rul"].min() == 0  # run to failure
    first = test["unit"] == 1  # the set's own label of test engine 1: 112 cycles left after its last
    assert test["rul"][first].min() == 112
    assert not np.isin(tables["validation"][0].columns["unit"], train["unit"]).any()


def test_groups_of_engines_federated_come_below_each_alone(tmp_path: Path) -> None:
    local, together = trained(CASES["FD001"], prepared(CASES["FD001"], tmp_path))
    assert mean(together, "rmse") < 14
    assert mean(together, "rmse") < mean(local, "rmse")


def test_six_operating_conditions_are_normalised_by_each_node_itself(tmp_path: Path) -> None:
    _, together = trained(CASES["FD002"], prepared(CASES["FD002"], tmp_path))
    assert mean(together, "rmse") < 13.5
    assert max(found["rmse"] for found in together.values()) < 16


def test_the_rig_groups_find_their_anomalies(tmp_path: Path) -> None:
    _, together = trained(CASES["skab"], prepared(CASES["skab"], tmp_path))
    assert mean(together, "all") > 0.7  # an alarm at every row gives 0.55
    assert together["valve1"]["all"] > 0.8
    assert mean(together, "false_alarms") < 0.15


def test_runs_of_the_rig_that_overlap_in_time_stay_together() -> None:
    module = script("prepare", "skab")
    day = np.datetime64("2020-03-01T00:00:00")
    spans = {name: (day + first, day + last) for name, first, last in SPANS}
    assert module.stretches(spans) == [["a"], ["b", "c", "d"], ["e"]]


def test_a_plant_learns_faults_that_only_others_have_seen(tmp_path: Path) -> None:
    local, together = trained(CASES["tep"], prepared(CASES["tep"], tmp_path))
    assert mean(local, "unseen") == 0
    assert mean(together, "unseen") > 0.65
    assert mean(together, "all") > 0.7
    assert mean(together, "false_alarms") < mean(local, "false_alarms")


def test_product_types_learn_failures_together(tmp_path: Path) -> None:
    local, together = trained(CASES["ai4i"], prepared(CASES["ai4i"], tmp_path))
    assert together["type-l"]["all"] > 0.6
    assert mean(together, "all") > mean(local, "all") - 0.05
    assert mean(together, "false_alarms") < 0.05


@pytest.mark.parametrize("name", ["FD001", "skab", "tep", "ai4i"])
def test_the_learner_starts_and_trains_alike_and_exports(name: str, tmp_path: Path) -> None:
    entry, project = opened(CASES[name])
    told = {**project.settings, "epochs": 1}
    learner = entry.learner(told)
    node = find_nodes(prepared(CASES[name], tmp_path))[0]
    data = entry.load(node.folder, told)
    model = learner.init(1)
    first, second = (pack(learner.fit(model, data, told, 1)[0]) for _ in range(2))
    assert first == second
    assert first != pack(model)
    assert learner.export(unpack(first))


def features(example: str) -> Any:
    """The example's features module, imported as the project imports it."""
    load_entry(ROOT / "examples" / example, "detector.model")
    return importlib.import_module("detector.features")


def test_features_of_an_engine_know_nothing_of_its_future() -> None:
    module = features("cmapss")
    life = np.random.default_rng(1).normal(size=(80, len(module.SENSORS)))
    for cycles in (1, 5, 20, 21, 50):
        np.testing.assert_allclose(module.windows(life[:cycles]), module.windows(life)[:cycles], atol=1e-6)
    assert module.windows(life).shape == (80, module.FEATURES)


def test_sensors_are_normalised_within_their_operating_condition() -> None:
    module = features("cmapss")
    condition = module.conditions(np.array([-0.002, 0.001, 0.8333, 0.8331]))
    assert len(np.unique(condition)) == 2
    sensors = np.array([[1.0], [3.0], [100.0], [300.0]])
    scale = module.fit_scale(sensors, condition)
    assert module.normalise(scale, sensors, condition)[:, 0].tolist() == [-1, 1, -1, 1]
    assert module.normalise(scale, sensors, condition + 7)[:, 0].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("shift", [0.0, 8.0])
def test_a_run_of_the_rig_is_measured_against_its_own_beginning(shift: float) -> None:
    module = features("skab")
    signals = np.random.default_rng(2).normal(5, 1, (700, len(module.SENSORS)))
    signals[550:, 3] += shift
    x = module.windows(signals)
    assert x.shape == (700, module.FEATURES)
    rise = float(x[570:, -1].mean() - x[400:540, -1].mean())
    assert rise > 1.5 if shift else abs(rise) < 0.5


def test_a_window_over_the_onset_of_a_fault_is_left_out() -> None:
    module = features("tep_braatz")
    faults = np.r_[np.zeros(40, np.int64), np.full(40, 4, np.int64)]
    x, states = module.windows(np.zeros((80, len(module.SIGNALS))), faults)
    assert x.shape == (len(states), module.FEATURES)
    assert states.tolist() == [0] * 5 + [4] * 5


def test_without_the_data_the_tests_say_where_it_should_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.DATA", tmp_path / "nowhere")
    with pytest.raises(pytest.skip.Exception, match="set REUNA_DATA to the folder"):
        prepared(CASES["skab"], tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_real_data_keep_the_contract_of_their_example_and_the_one_that_is_proposed_from_them(
    name: str, tmp_path: Path
) -> None:
    case = CASES[name]
    nodes = find_nodes(prepared(case, tmp_path / "nodes"))
    folder = ROOT / "examples" / case.example
    agreed = contract(project_settings([read_toml(folder / "reuna.toml")], TAKES).settings)
    assert agreed.signals
    proposed = {"project": {"name": "p"}, **tomllib.loads(infer(tmp_path / "nodes"))}
    own = contract(project_settings([Source("proposed", proposed)], TAKES).settings)
    assert len(own.signals) >= len(agreed.signals) - 2, "but for the label and the time"
    for node in nodes:
        judge_folder(node.folder, agreed).refuse(agreed)
        judge_folder(node.folder, own).refuse(own)
