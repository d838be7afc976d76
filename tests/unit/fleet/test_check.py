"""What `reuna check` finds, and what no fleet is started for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reuna.core.errors import DataError, LearnerError, ReunaError
from reuna.fleet.check import check_all, check_project
from reuna.fleet.data import find_nodes
from reuna.fleet.open_project import open_settings
from reuna.template import make_project

TABLE = "time_s,vibration_mm_s,temperature_c,flow_m3_h,current_a,fault\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "pumps"
    make_project(folder, sample=True)
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """The template's project; the sample data are linked, for they are large."""
    folder = tmp_path / "pumps"
    make_project(folder, sample=False)
    (folder / "data").mkdir()
    for node in (made / "data").iterdir():
        (folder / "data" / node.name).symlink_to(node)
    return folder


def setting(old: str, new: str) -> Callable[[Path], None]:
    def make(project: Path) -> None:
        file = project / "reuna.toml"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return make


def round_settings(text: str) -> Callable[[Path], None]:
    def make(project: Path) -> None:
        file = project / "reuna.toml"
        file.write_text(f"{file.read_text()}\n[round]\n{text}\n")

    return make


def own_node(project: Path, name: str, text: str) -> None:
    train = project / "data" / name / "train"
    train.mkdir(parents=True)
    (train / "a.csv").write_text(text)


def code(old: str, new: str) -> Callable[[Path], None]:
    def make(project: Path) -> None:
        file = project / "detector" / "model.py"
        file.write_text(file.read_text().replace(old, new))

    return make


MISTAKES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a grid of other bits": (
        round_settings("grid_bits = 9"),
        "reuna.toml:49:1: round.grid_bits is 9, must be one of 4, 8, 16, 32",
    ),
    "a grid finer than numbers are": (
        round_settings("grid_exponent = -2000\nmax_weight = 2_000_000_000"),
        "reuna.toml:49:1: round.grid_exponent is -2000, must be between -60 and 30",
    ),
    "the largest values without the rest kept": (
        round_settings("keep = 0.1\nfeedback = false"),
        "reuna.toml:49:1: round.keep is 0.1, and what is not kept would be lost for ever",
    ),
    "a metric nobody measures": (
        setting('"all"', '"nonsense"'),
        "reuna.toml:6:1: project.metric is 'nonsense', but no node measures that; measured are all, false_alarms",
    ),
    "a rate below zero": (setting("rate = 0.1\n", "rate = -0.1\n"), "train.rate is -0.1"),
    "a batch below zero": (setting("batch = 32", "batch = -1"), "train.batch is -1"),
    "a node named as the cloud": (lambda p: own_node(p, "cloud", TABLE), "'cloud' is used twice"),
    "a node named as a fog": (lambda p: own_node(p, "fog-1", TABLE), "'fog-1' is used twice"),
    "a table without rows": (lambda p: own_node(p, "new", TABLE), "new: "),
    "a missing column": (lambda p: own_node(p, "new", "time_s,fault\n0,0\n"), "has no column"),
    "a load that raises": (code("parts = splits(", "raise OSError('gone')  # "), "OSError: gone"),
    "a learner that raises": (code("return Scored(", "return {}['x']("), "making the learner: "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_before_a_fleet_starts(project: Path, mistake: str) -> None:
    make, message = MISTAKES[mistake]
    make(project)
    with pytest.raises(ReunaError) as told:
        check_project(project, None)
    assert message in told.value.message
    assert told.value.code != ReunaError.code


def test_a_sound_project_passes_and_says_what_it_is(project: Path) -> None:
    found = check_project(project, None)
    assert (found["params"], found["rounds"], len(found["nodes"])) == (36, 20, 4)


def test_settings_of_the_command_line_are_checked_as_those_of_the_file(project: Path) -> None:
    settings = open_settings(project, ["train.rate=-1"])
    with pytest.raises(ReunaError, match="train.rate is -1"):
        check_all(project, settings, find_nodes(project / "data"))


def test_a_run_that_needs_not_all_begins_without_a_node_whose_data_are_wrong(project: Path) -> None:
    own_node(project, "one", TABLE)
    settings, data = open_settings(project, []), find_nodes(project / "data")
    assert len(check_all(project, settings, data, quorum=0.8)["nodes"]) == 4
    with pytest.raises(DataError, match="one: "):
        check_all(project, settings, data, quorum=0.81)


def test_every_node_with_a_mistake_is_named(project: Path) -> None:
    for name in ("one", "two"):
        own_node(project, name, TABLE)
    with pytest.raises(DataError) as told:
        check_project(project, None)
    assert [line.partition(":")[0] for line in told.value.message.splitlines()] == ["one", "two"]


@pytest.mark.parametrize(
    ("folders", "what"),
    [
        (("pump 1", "pump-1"), "node 'pump-1'"),
        (("a/pump", "b/pump"), "node 'pump'"),
        (("north/a", "North/b"), "site 'north'"),
    ],
)
def test_two_folders_of_one_name_are_refused_and_both_named(
    tmp_path: Path, folders: tuple[str, str], what: str
) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.csv").write_text(TABLE)
    with pytest.raises(DataError, match=what) as told:
        find_nodes(tmp_path)
    named = [folder.partition("/")[0] for folder in folders]
    assert all(f"{tmp_path / name}" in told.value.message for name in named)


def test_a_site_and_its_node_may_share_a_name(tmp_path: Path) -> None:
    for node in ("pump", "fan"):
        (tmp_path / "pump" / node).mkdir(parents=True)
        (tmp_path / "pump" / node / "a.csv").write_text(TABLE)
    assert [(node.name, node.site) for node in find_nodes(tmp_path)] == [("fan", "pump"), ("pump", "pump")]


def test_a_learner_that_raises_while_a_run_is_prepared_is_blamed_with_file_and_line(project: Path) -> None:
    from reuna.fleet.layout import Fleet
    from reuna.fleet.session import Job, prepare

    code("return Scored(", "return {}['x'](")(project)
    job = Job(project, open_settings(project, []), [], project / "runs")
    with pytest.raises(LearnerError, match=r"detector/model.py:\d+: KeyError"):
        prepare(job, Fleet("none", project, ()), "r-1")


def test_a_gate_on_what_nobody_measures_is_told_at_its_line(project: Path) -> None:
    file = project / "reuna.toml"
    gates = "[gates]\nall = { min = 0.5 }\nalll = { min = 0.5 }\n'all without flow_m3_h' = { min = 0 }\nlatency_ms = { max = 9 }\n"
    text = file.read_text().partition("[gates]")[0] + gates
    file.write_text(text)
    at = text.splitlines().index("alll = { min = 0.5 }") + 1
    with pytest.raises(ReunaError) as told:
        check_project(project, None)
    (line,) = told.value.message.splitlines()
    assert line.startswith(f"reuna.toml:{at}:1: gates.alll is a gate on 'alll', but no node measures that")


def test_a_gate_on_how_clean_the_data_are_needs_a_contract(project: Path) -> None:
    file = project / "reuna.toml"
    clean = "[gates]\ncontract_pass_rate = { min = 0.9 }\n"
    file.write_text(file.read_text().partition("[gates]")[0] + clean)
    check_project(project, None)
    text = file.read_text()
    start, end = text.index("# What the nodes' tables"), text.index("[strategy]")
    file.write_text(text[:start] + text[end:])
    (project / "detector" / "model.py").write_text(PLAIN)
    with pytest.raises(ReunaError, match=r"reuna.toml:\d+:1: gates.contract_pass_rate needs a data contract"):
        check_project(project, None)


PLAIN = """
import numpy as np
from reuna import Dataset, Samples, SoftmaxClassifier

def load(folder, settings):
    samples = Samples(np.ones((4, 2), np.float32), np.array([0, 1, 0, 1]), np.zeros(4, np.int64))
    return Dataset(samples, samples, samples)

class Known(SoftmaxClassifier):
    def evaluate(self, model, data, settings):
        return {"all": 1.0}

def learner(settings):
    return Known(2, 2)
"""
