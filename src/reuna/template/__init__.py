"""What `reuna init` makes: a small project that trains at once, and sample data to train on.

A project is made of parts: ``project/common`` is in every one, ``project/tasks/TASK`` says which rows
are read and how good a model is, ``project/learners/TASK/LEARNER.py`` what is trained. A name
that begins with ``dot_`` begins with a dot in the project.
"""

from __future__ import annotations

import difflib
import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from string import Template

from reuna.core.errors import ProjectError, SettingsError
from reuna.core.project import TASKS, project_schema
from reuna.fleet.data import node_name
from reuna.template.choices import ABOUT, EXTRAS, LEARNERS, MODULES, PACES

PARTS = Path(__file__).parent / "project"
SKIPPED = shutil.ignore_patterns("__pycache__")
SCHEMA = ".reuna.schema.json"
FILLED = ("reuna.toml", "README.md", "requirements.txt", ".pre-commit-config.yaml", ".yml")  #: have $fields


def make_project(folder: Path, sample: bool, task: str = TASKS[0], learner: str = LEARNERS[0]) -> list[Path]:
    """Write the project; the files made, without the sample data.

    Raises `ProjectError` when the folder is not empty, `SettingsError` for a name, task or learner.
    """
    check_choices(task, learner)
    if folder.exists() and any(folder.iterdir()):
        raise ProjectError(f"{folder} is not empty", "Name a folder that does not exist yet.")
    name = folder.absolute().name
    if node_name(Path(name)) != name:
        raise SettingsError(f"{name!r} is no project name", "Use a-z, 0-9 and -.")
    for part in ("common", f"tasks/{task}"):
        shutil.copytree(PARTS / part, folder, ignore=SKIPPED, dirs_exist_ok=True)
    shutil.copy(PARTS / "learners" / task / f"{learner}.py", folder / "detector" / "estimator.py")
    for path in sorted(folder.rglob("dot_*")):
        path.rename(path.with_name("." + path.name.removeprefix("dot_")))
    _fill(folder, {"name": name, "task": task, **_words(task, learner)})
    (folder / SCHEMA).write_text(json.dumps(project_schema(), indent=2) + "\n", encoding="utf-8")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if sample:
        write_sample(folder)
    return files


def check_choices(task: str, learner: str) -> None:
    """Raises `SettingsError` for what is no task or no learner of ours."""
    for what, said, known in (("task", task, TASKS), ("learner", learner, LEARNERS)):
        if said not in known:
            close = difflib.get_close_matches(said, known, n=1, cutoff=0.4)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise SettingsError(f"{said!r} is no {what}{meant}", f"Name one of {', '.join(known)}.")


def missing_module(learner: str) -> str:
    """What the learner needs and this Python does not have, or ''."""
    module = MODULES.get(learner, "")
    return module if module and find_spec(module) is None else ""


def write_sample(project: Path) -> None:
    """The project's sample data, by its own ``tests/sample.py``. Raises `ProjectError`."""
    command = [sys.executable, "tests/sample.py"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise ProjectError(f"tests/sample.py failed: {last}", "Run it in the project: python tests/sample.py")


def _words(task: str, learner: str) -> dict[str, str]:
    about, pace = ABOUT[task], PACES[task, learner]
    return {
        "metric": about.metric,
        "label": about.label,
        "time": about.time,
        "every_s": str(about.every_s),
        "max_gap_s": str(about.max_gap_s),
        "about": about.about,
        "gates": about.gates,
        "extras": EXTRAS[learner],
        "rounds": str(pace.rounds),
        "server_rate": f"{pace.server_rate:g}",
        "momentum": f"{pace.momentum:g}",
        "train": pace.train(),
    }


def _fill(folder: Path, words: dict[str, str]) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.name.endswith(FILLED):
            text = path.read_text(encoding="utf-8")
            path.write_text(Template(text).substitute(words), encoding="utf-8")
