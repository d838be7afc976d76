"""Every project that `reuna init` can make is sound, learns on its sample data, and passes its own tests."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import reuna
from reuna.adapters.project import load_entry, pack_bundle
from reuna.core.errors import ReunaError, SettingsError
from reuna.core.project import TASKS, project_schema
from reuna.fleet.check import check_project
from reuna.fleet.open_project import open_settings
from reuna.loop.release import decision, judge
from reuna.template import SCHEMA, make_project
from reuna.template.choices import LEARNERS, MODULES, PACES

CHOICES = [(task, learner) for task in TASKS for learner in LEARNERS]
#: What every pump must reach: (metric, worst value, higher is better)
ENOUGH = {
    "fault-classification": ("all", 0.95, True),
    "anomaly-detection": ("auroc", 0.95, True),
    "remaining-useful-life": ("rmse", 13.0, False),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """The projects by their choices, each made when it is first asked for."""

    class Projects(dict[tuple[str, str], Path]):
        def __missing__(self, choice: tuple[str, str]) -> Path:
            folder = tmp_path_factory.mktemp("made") / "-".join(choice)
            make_project(folder, True, *choice)
            self[choice] = folder
            return folder

    return Projects()


@pytest.fixture(params=CHOICES, ids="-".join)
def choice(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture
def project(made: dict[tuple[str, str], Path], choice: tuple[str, str]) -> Path:
    module = MODULES.get(choice[1])
    if module:
        pytest.importorskip(module, reason=f"the extra for {choice[1]} is not installed")
    return made[choice]


def test_every_combination_has_its_numbers_and_its_file() -> None:
    assert set(PACES) == set(CHOICES)


def test_a_project_is_checked_and_every_pump_learns_enough(project: Path, choice: tuple[str, str]) -> None:
    found = check_project(project, None)
    assert len(found["nodes"]) == 4
    settings = open_settings(project, [])
    entry = load_entry(project, settings.entry)
    nodes = {each.name: entry.load(each, settings.settings) for each in (project / "data").iterdir()}
    result = reuna.simulate(
        entry.learner(settings.settings), nodes, settings.rounds, strategy=settings.strategy,
        settings=settings.settings, seed=settings.seed,
    )  # fmt: skip
    metric, worst, higher = ENOUGH[choice[0]]
    assert settings.metric == metric
    values = {node: scores[metric] for node, scores in result.scores.items()}
    assert all(value >= worst if higher else value <= worst for value in values.values()), values
    assert settings.gates
    verdicts = judge(settings.gates, result.scores, None)
    assert decision(verdicts) == "pass", [each for each in verdicts if each.outcome != "pass"]


def test_a_project_passes_its_own_tests(project: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_sample_data_are_the_same_each_time_and_small(made: Any) -> None:
    for task in TASKS:
        project = made[task, "builtin"]
        files = sorted((project / "data").rglob("*.csv"))
        before = {path: path.read_bytes() for path in files}
        subprocess.run([sys.executable, "tests/sample.py"], cwd=project, check=True)
        assert before == {path: path.read_bytes() for path in sorted((project / "data").rglob("*.csv"))}
        assert sum(map(len, before.values())) < 1_000_000


@pytest.mark.parametrize("choice", CHOICES, ids="-".join)
def test_settings_of_every_project_are_as_its_schema_says(made: Any, choice: tuple[str, str]) -> None:
    project = made[choice]
    schema = json.loads((project / SCHEMA).read_text())
    jsonschema.validate(tomllib.loads((project / "reuna.toml").read_text()), schema)
    assert schema == project_schema()
    assert (project / "reuna.toml").read_text().startswith(f"#:schema ./{SCHEMA}\n")


@pytest.mark.parametrize("choice", CHOICES, ids="-".join)
def test_nothing_is_left_to_fill_in(made: Any, choice: tuple[str, str]) -> None:
    project = made[choice]
    for name in ("reuna.toml", "README.md", "requirements.txt", ".pre-commit-config.yaml"):
        assert not re.search(r"\$[a-z{]", (project / name).read_text()), name
    assert not list(project.rglob("dot_*"))
    assert ("torch" in (project / "requirements.txt").read_text()) == (choice[1] == "torch")


def commands(value: Any) -> Iterator[str]:
    """Every shell command of a CI file."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in {"run", "entry"}:
                yield inner
            elif key in {"script", "before_script"}:
                yield from inner
            else:
                yield from commands(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from commands(inner)


@pytest.mark.parametrize("name", [".github/workflows/reuna.yml", ".gitlab-ci.yml"])
def test_both_files_for_ci_do_the_same_steps(made: Any, name: str) -> None:
    found = commands(yaml.safe_load((made[TASKS[0], "builtin"] / name).read_text()))
    lines = dict.fromkeys(line for each in found for line in each.splitlines())
    assert [each for each in lines if each.startswith(("reuna", "python"))] == [
        "python -m pip install -r requirements.txt",
        "python tests/sample.py",
        "reuna check",
        "reuna test --junit reports/reuna.xml --markdown reports/reuna.md",
        "reuna build",
        'reuna run --build dist/*.build.tar --fleet "$REUNA_FLEET"',
        'reuna gate --releases "$REUNA_RELEASES"',
        'reuna release make --releases "$REUNA_RELEASES" --sign --trust "$REUNA_TRUST"',
        'reuna release where --fleet "$REUNA_FLEET" --wait 600',
    ]


def test_the_hooks_before_a_commit_are_commands_that_are_there(made: Any) -> None:
    found = yaml.safe_load((made[TASKS[0], "builtin"] / ".pre-commit-config.yaml").read_text())
    assert list(commands(found)) == ["reuna check", "python -m pytest -q"]


def test_a_site_is_shown_the_code_and_nothing_beside_it(made: Any) -> None:
    bundle = zipfile.ZipFile(io.BytesIO(pack_bundle(made[TASKS[0], "builtin"])))
    assert sorted(bundle.namelist()) == [
        "detector/__init__.py", "detector/estimator.py", "detector/features.py", "detector/model.py",
        "detector/samples.py",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "learner", "said", "step"),
    [
        (
            "anomaly",
            "builtin",
            "'anomaly' is no task; did you mean anomaly-detection?",
            "fault-classification",
        ),
        ("anomaly-detection", "sklearn", "'sklearn' is no learner; did you mean scikit-learn?", "builtin, "),
        ("x", "y", "'x' is no task", "Name one of"),
    ],
)
def test_what_is_no_choice_is_named_with_those_that_are(
    tmp_path: Path, task: str, learner: str, said: str, step: str
) -> None:
    with pytest.raises(SettingsError) as told:
        make_project(tmp_path / "pumps", True, task, learner)
    assert told.value.message == said
    assert step in told.value.next_step
    assert not (tmp_path / "pumps").exists()


@pytest.mark.parametrize("name", ["My Pumps", "pumps_2", "-x"])
def test_a_name_that_no_node_could_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ReunaError, match="is no project name"):
        make_project(tmp_path / name, False)
