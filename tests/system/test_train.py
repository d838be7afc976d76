"""Training on a fleet that is up: begun by a build's digest, stopped, resumed, retried, and not done twice."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reuna.core.errors import ReunaError
from reuna.fleet.client import Operator
from reuna.fleet.layout import open_fleet
from reuna.template import make_project
from tests.repositories import commit, git

pytestmark = [pytest.mark.system, pytest.mark.timeout(170)]
ROUNDS = 20
PLAIN = "\n[run]\nlocal = false\ncentralised = false\n"


class Line:
    """A fleet on this machine, and whoever uses it from a project's folder."""

    def __init__(self, folder: Path) -> None:
        self.project, self.fleet = folder / "pumps", folder / "line" / "fleet.toml"
        make_project(self.project, sample=True)
        for pump in ("pump-3", "pump-4"):  # two machines tell the same story in half the time
            shutil.rmtree(self.project / "data" / pump)
        settings = (self.project / "reuna.toml").read_text().replace("rounds = 20", f"rounds = {ROUNDS}")
        (self.project / "reuna.toml").write_text(settings + PLAIN)
        git(self.project, "init", "--quiet", ".")
        commit(self.project, {".gitignore": "runs\ndist\n"})
        self.fleet.parent.mkdir()
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()

    def begin(self, *words: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "reuna.cli", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=cwd or self.elsewhere, stdout=pipe, stderr=pipe, text=True)

    def reuna(self, *words: str, cwd: Path | None = None, status: int = 0) -> tuple[str, str]:
        """What it prints, and what it says beside that."""
        done = self.begin(*words, cwd=cwd)
        out, err = done.communicate(timeout=100)
        assert done.returncode == status, err
        return out, err

    def at(self, *words: str) -> dict[str, Any]:
        """What a command about this fleet prints as JSON."""
        found: dict[str, Any] = json.loads(self.reuna(*words, "--fleet", str(self.fleet), "--json")[0])
        return found

    @property
    def operator(self) -> Operator:
        return Operator.of(open_fleet(self.fleet))


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path)
    data = str(made.project / "data")
    command = [sys.executable, "-m", "reuna.cli", "up", str(made.fleet), "--data", data]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        until(made.fleet.exists)
        until(lambda: len(made.operator.nodes()) == 3)
        yield made
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(60)


def until(happened: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := happened():
                return found
        except ReunaError:  # what is half written, or not up yet
            pass
        time.sleep(0.01)
    raise AssertionError("it did not happen in time")


def rounds(events: list[dict[str, Any]]) -> list[int]:
    return [event["round"] for event in events if event["what"] == "round"]


def test_a_run_by_digest_is_stopped_resumed_and_retried_to_the_same_bits_and_not_done_twice(
    line: Line,
) -> None:
    made = json.loads(line.reuna("build", str(line.project), "--json")[0])
    _, said = line.reuna("run", "--build", "sha256:" + made["digest"], "--fleet", str(line.fleet), status=2)
    assert "keeps no build of that name" in said, "what was not handed over cannot be named"
    assert line.at("build", "push", made["file"])["digest"] == made["digest"]
    build = f"sha256:{made['digest'][:16]}"

    whole = line.at("run", "--build", build)
    assert whole["source"]["build"] == whole["asked"]["build"] == made["digest"]
    assert rounds(whole["timeline"]) == list(range(1, ROUNDS + 1))

    same, said = line.reuna("run", "--build", "pumps", "--fleet", str(line.fleet), "--json")
    assert json.loads(same) == whole
    assert f"unchanged since {whole['run']}: model sha256:{whole['model_digest']}" in said
    assert [each["run"] for each in line.operator.runs()] == [whole["run"]], "no run was begun"

    again = line.begin("run", "--build", build, "--again", "--fleet", str(line.fleet))
    run = until(lambda: [each["run"] for each in line.operator.runs() if each["run"] != whole["run"]])[0]
    until(lambda: len(rounds(line.operator.timeline(run, 0))) > 2)
    line.operator.stop(run)
    _, said = again.communicate(timeout=60)
    assert again.returncode == 4
    assert f"reuna resume {run}" in said
    before = rounds(line.operator.timeline(run, 0))
    assert 2 < len(before) < ROUNDS, "it was stopped on the way"

    resumed = line.at("resume", run)
    assert resumed["run"] == run
    assert resumed["model_digest"] == whole["model_digest"]
    assert resumed["sites"] == whole["sites"]
    assert rounds(resumed["timeline"]) == list(range(1, ROUNDS + 1)), "each round once"
    told = [event["what"] for event in resumed["timeline"]]
    assert told.index("resumed") >= len(before)
    _, said = line.reuna("resume", run, "--fleet", str(line.fleet), status=2)
    assert f"run {run} is done" in said

    retried = line.at("retry", run)
    assert retried["run"] not in {run, whole["run"]}
    assert retried["asked"] == {**resumed["asked"], "run": retried["run"], "retries": run}
    assert retried["model_digest"] == whole["model_digest"]
    assert {each["state"] for each in line.operator.runs()} == {"done"}
