"""What `reuna test` says of where it ran, and what it hears on the way."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from reuna.api import play
from reuna.core.errors import LearnerError, ProjectError, RunFailed
from reuna.fleet.aside import lines_of
from reuna.fleet.scenarios import Ask, play_all
from reuna.fleet.testing import commit_of
from reuna.sim.faults import Walker
from reuna.sim.fleet import SimEdge, make_spec
from reuna.template import make_project


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(
        ["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def test_the_commit_is_that_of_the_project_and_says_when_files_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert commit_of(tmp_path) == ""
    git(tmp_path, "init", "-q")
    assert commit_of(tmp_path) == "", "nothing is committed"
    (tmp_path / "model.py").write_text("a = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    head = git(tmp_path, "rev-parse", "--short=12", "HEAD")
    (tmp_path / "junit.xml").write_text("written by the test itself")
    assert commit_of(tmp_path) == head
    (tmp_path / "model.py").write_text("a = 2\n")
    assert commit_of(tmp_path) == f"{head}+"
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))  # as in a hook of another repository
    assert commit_of(tmp_path) == f"{head}+"
    monkeypatch.setenv("PATH", "/nowhere")
    assert commit_of(tmp_path) == ""


def test_a_run_tells_of_each_round_when_it_is_closed() -> None:
    fogs = {"fog-1": {"a": SimEdge(Walker(), 3), "b": SimEdge(Walker(), 5)}}
    heard: list[tuple[str, Any]] = []
    spec, model, bundle = make_spec(fogs, Walker(), 3, evaluate=True)
    play(fogs, spec, model, bundle, lambda what, fields: heard.append((what, fields.get("round"))))
    assert heard == [("round", 1), ("round", 2), ("round", 3), ("evaluate", None)]


async def test_the_processs_mistakes_come_back_as_what_they_are(tmp_path: Path) -> None:
    make_project(tmp_path / "pumps", sample=False)
    node = tmp_path / "data" / "pump-1" / "train"
    node.mkdir(parents=True)
    (node / "a.csv").write_text(
        "second,vibration_mm_s,temperature_c,flow_m3_h,current_a,fault\n0,1,40,20,8,0\n"
    )
    model = tmp_path / "pumps" / "detector" / "model.py"
    ask = Ask(tmp_path / "pumps", tmp_path / "data", [])
    model.write_text("def load(folder, settings): return 1\ndef learner(settings): raise KeyError('rate')\n")
    with pytest.raises(LearnerError, match=r"making the learner: detector/model.py:2: KeyError: 'rate'"):
        await play_all(ask, lambda _line: None)
    model.write_text("def load(folder, settings): return 1\n")
    with pytest.raises(ProjectError, match="has no function learner"):
        await play_all(ask, lambda _line: None)


async def test_a_module_that_ends_badly_says_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"(?s)what we did failed:.*JSONDecodeError|KeyError"):
        async for _ in lines_of("reuna.fleet.scenarios", {}, "what we did"):
            pass
