"""`reuna init`: what it asks, what it commits, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from reuna.adapters.new_repository import begin_repository
from reuna.core.project import project_schema

WHO = {f"GIT_{role}_{what}": "a@b.c" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def reuna(*arguments: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "reuna.cli", *arguments]
    return subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **WHO, **more},
    )


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(autouse=True)
def _no_repository_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name, value in WHO.items():
        monkeypatch.setenv(name, value)


def test_where_nobody_sits_it_takes_what_is_usual_and_commits_all_but_the_data(tmp_path: Path) -> None:
    done = reuna("init", "pumps", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "next: cd pumps && reuna run"
    folder = tmp_path / "pumps"
    assert tomllib.loads((folder / "reuna.toml").read_text())["project"]["task"] == "fault-classification"
    assert git(folder, "log", "--format=%s") == "A project of reuna init: fault-classification, builtin\n"
    assert git(folder, "branch", "--show-current") == "main\n"
    assert git(folder, "status", "--porcelain") == ""
    tracked = git(folder, "ls-files").split()
    assert {".gitlab-ci.yml", ".github/workflows/reuna.yml", ".pre-commit-config.yaml"} < set(tracked)
    assert not [name for name in tracked if name.startswith("data/")]
    assert (folder / "data" / "pump-1" / "train").is_dir()


def test_options_choose_without_a_question(tmp_path: Path) -> None:
    done = reuna(
        "init",
        "pumps",
        "--task",
        "remaining-useful-life",
        "--learner",
        "torch",
        "--no-git",
        "--no-sample",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "pumps"
    assert tomllib.loads((folder / "reuna.toml").read_text())["project"]["metric"] == "rmse"
    assert "TorchLearner" in (folder / "detector" / "estimator.py").read_text()
    assert not (folder / ".git").exists()
    assert not (folder / "data").exists()


def test_at_a_terminal_it_asks_two_questions(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "reuna.cli", "init", "pumps", "--no-sample"]
    running = subprocess.Popen(
        command, cwd=tmp_path, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    os.write(ours, b"anomaly-detection\n\n")
    said = running.communicate(timeout=60)[0].decode()
    os.close(ours)
    os.close(theirs)
    assert running.returncode == 0, said
    assert said.count("What is learnt?") == said.count("What is trained?") == 1
    settings = tomllib.loads((tmp_path / "pumps" / "reuna.toml").read_text())
    assert settings["project"]["task"] == "anomaly-detection"
    assert "LinearReconstruction" in (tmp_path / "pumps" / "detector" / "estimator.py").read_text()


def test_yes_asks_nothing_at_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "reuna.cli", "init", "pumps", "--no-sample", "--yes"]
    done = subprocess.run(command, cwd=tmp_path, stdin=theirs, capture_output=True, text=True, timeout=60)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0, done.stderr
    assert "?" not in done.stdout


def test_in_a_repository_that_is_there_nothing_is_committed(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    done = reuna("init", "pumps", "--no-sample", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "note: the folder lies in the repository" in done.stderr
    assert not (tmp_path / "pumps" / ".git").exists()
    assert git(tmp_path, "rev-list", "--all") == ""


def test_without_git_the_project_is_made_all_the_same(tmp_path: Path) -> None:
    done = reuna("init", "pumps", "--no-sample", cwd=tmp_path, PATH="/nowhere")
    assert done.returncode == 0, done.stderr
    assert "note: git is not installed, so no repository was made" in done.stderr


def test_a_commit_that_git_refuses_is_a_note_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "pre-commit").write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
    (hooks / "pre-commit").chmod(0o755)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.hooksPath")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(hooks))
    (tmp_path / "pumps").mkdir()
    (tmp_path / "pumps" / "a").write_text("a")
    assert (
        begin_repository(tmp_path / "pumps", "x")
        == "git commit failed (not today), so there is no first commit"
    )


def test_an_unknown_task_is_one_message_and_makes_nothing(tmp_path: Path) -> None:
    done = reuna("init", "pumps", "--task", "anomalies", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "error: 'anomalies' is no task; did you mean anomaly-detection?"
    assert not (tmp_path / "pumps").exists()


def test_the_schema_is_printed_as_it_is_published(tmp_path: Path) -> None:
    done = reuna("schema", cwd=tmp_path)
    assert json.loads(done.stdout) == project_schema()
    assert (Path(__file__).parents[3] / "docs" / "reference" / "reuna.schema.json").read_text() == done.stdout
