"""The project that is pushed: what `reuna init` makes, with the detector of the demo's plants in it.

Its CI sees sample data of three plants. The fleet has six: at plant-6 the feed valve stands almost
open, which nobody who only looks at the sample data knows.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from drills.pushing.forge import git
from reuna.demo.job import PROJECT
from reuna.template import make_project

NAME = "tennessee-eastman"
#: No comparison with each plant alone, nor with all rows in one place: that nobody can do on a fleet.
RUN = "\n[run]\nlocal = false\ncentralised = false\n"

SAMPLE = '''"""Sample data: `python tests/sample.py` writes three plants, on other days than those on the machines."""

import sys
from pathlib import Path

from reuna.demo.plants import read_archive, write_plant_folder

SPLIT = 1


def write(folder: Path) -> None:
    archive = read_archive()
    for plant in range(3):
        write_plant_folder(plant, SPLIT, folder / f"plant-{plant + 1}", archive)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "data")
'''

TESTS = '''"""The detector on sample data. No server is started."""

from pathlib import Path

import pytest
from detector.model import learner, load
from sample import write

from reuna.checks import Bench, learner_checks
from reuna.fleet.open_project import open_settings

SETTINGS = open_settings(Path(__file__).parents[1], []).settings


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write(folder)
    return load(folder / "plant-1", SETTINGS)


@pytest.mark.parametrize("check", tuple(learner_checks()), ids=lambda check: check.name)
def test_the_learner_keeps_its_promises(check, plant):
    check.run(Bench(learner(SETTINGS), plant, SETTINGS))


def test_windows_have_only_faults_that_the_plant_has_seen(plant):
    assert len(plant.seen) == 4
'''

#: The second push: rows in which the feed valve stands too far open are no normal operation.
LOADED = "    tables, cut = read_folder(folder), contract(settings).window_rows\n"
STEADY = """    tables = steady(read_folder(folder), float(settings.get("open_valve", 100)))
    cut = contract(settings).window_rows
"""
HELD = '''

def steady(tables: Mapping[str, list[Table]], most: float) -> dict[str, list[Table]]:
    """With the valve of feed D above ``most`` % the row before it stands for a row."""
    return {split: [_held(table, most) for table in found] for split, found in tables.items()}


def _held(table: Table, most: float) -> Table:
    rows = np.where(table.columns["d_feed_valve"] <= most, np.arange(len(table)), 0)
    kept = np.maximum.accumulate(rows)
    columns = {name: column[kept] if name not in NOT_SIGNALS else column for name, column in table.columns.items()}
    return Table(table.path, columns, table.lines, table.units)
'''


def make_repository(folder: Path) -> Path:
    """The project in a git repository of one commit."""
    project = folder / NAME
    make_project(project, sample=False)
    for part in ("detector", "tests"):
        shutil.rmtree(project / part)
    shutil.copytree(PROJECT / "detector", project / "detector", ignore=shutil.ignore_patterns("__pycache__"))
    settings = (PROJECT / "reuna.toml").read_text(encoding="utf-8") + RUN
    (project / "tests").mkdir()
    files = {"reuna.toml": settings, "tests/sample.py": SAMPLE, "tests/test_detector.py": TESTS}
    for name, text in files.items():
        (project / name).write_text(text, encoding="utf-8")
    git(project, "init", "--quiet", "-b", "main", ".")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "-m", "The detector of the demo's plants")
    return project


def fewer_rounds(project: Path) -> dict[str, str]:
    """A change of configuration alone."""
    return _changed(project, "reuna.toml", "rounds = 40", "rounds = 30")


def steady_rows(project: Path) -> dict[str, str]:
    """A change of code: a limit for the valve, so high that it changes nothing yet."""
    text = _changed(project, "detector/model.py", LOADED, STEADY)["detector/model.py"]
    return {"detector/model.py": text + HELD}


def lower_limit(project: Path) -> dict[str, str]:
    """A change of configuration that is right for every plant but plant-6, where the valve is always open."""
    return _changed(project, "reuna.toml", "[train]\n", "[train]\nopen_valve = 96.2\n")


def _changed(project: Path, name: str, old: str, new: str) -> dict[str, str]:
    text = (project / name).read_text(encoding="utf-8")
    assert old in text, f"{name} does not say {old!r}"
    return {name: text.replace(old, new)}
