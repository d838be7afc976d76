"""A run that the cloud begins by itself ends as one of a person: judged, released, held by every edge."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reuna.cli import app
from reuna.core.errors import Unreachable
from reuna.fleet.client import Operator
from reuna.fleet.layout import make_fleet
from reuna.fleet.release import Catalogue
from reuna.template import make_project
from tests.repositories import commit, git
from tests.system.test_fleet import command_of, of_session

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]
RUN = CliRunner()
EDGES = ("pump-1", "pump-2")
STATE = """
[fleet]
name = "local"
[projects.pumps]
release_from = "../pumps"
rollout = true
[placements.canary]
project = "pumps"
follows = "challenger"
[schedules.often]
again = "{run}"
every = "10s"
"""


class Works:
    """A project in git, a fleet that is up, and the desired state of both beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.project = folder, folder / "pumps"
        make_project(self.project, sample=True)
        text = (self.project / "reuna.toml").read_text()
        text = text.replace("rounds = 20", "rounds = 4") + "\n[run]\nlocal = false\ncentralised = false\n"
        text += "[operate]\ntrial_s = 1\n[rollout]\nwaves = ['pump-1', 'all']\nsoak_s = 0\n"
        git(self.project, "init", "--quiet", "-b", "main", ".")
        self.gated(text, "all = { min = 0.01, max_drop = 0.9 }")
        data = {name: self.project / "data" / name for name in EDGES}
        self.fleet = make_fleet(folder / "line", "local", {"fog-1": data})
        self.operator = Operator.of(self.fleet)
        self.running: list[subprocess.Popen[bytes]] = []

    def gated(self, text: str, gate: str) -> None:
        """The project with one gate, committed."""
        before, _, rest = text.partition("[gates]\n")
        commit(self.project, {"reuna.toml": f"{before}[gates]\n{gate}\n{rest[rest.index('[') :]}"})

    def begin(self, log: str, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "reuna.cli", *words],
                cwd=self.folder, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        self.running.append(process)
        return process

    def reuna(self, *words: str, status: int = 0) -> str:
        done = RUN.invoke(app, words)  # here, which spares a start of Python each time
        assert done.exit_code == status, done.output
        return done.stdout

    def by_a_person(self) -> str:
        """A run of the project's build, as CI begins one; its name."""
        self.reuna("build", "make", "pumps", "--output", "pumps.build.tar")
        told = self.reuna("run", "--build", "pumps.build.tar", "--fleet", "line/fleet.toml", "--json")
        return str(json.loads(told)["run"])

    def want(self, run: str) -> None:
        """The schedule repeats that run."""
        (self.folder / "state").mkdir(exist_ok=True)
        (self.folder / "state" / "new").write_text(STATE.format(run=run))
        (self.folder / "state" / "new").replace(self.folder / "state" / "pumps.toml")

    def until(self, look: Callable[[], Any], seconds: float = 90.0) -> Any:
        """What ``look`` finds, once it is something; a cloud that is away finds nothing."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if found := look():
                    return found
            except Unreachable:
                pass
            time.sleep(0.1)
        raise AssertionError((self.folder / "keep.log").read_text())

    def by_itself(self, state: str, *, of: str = "") -> list[dict[str, Any]]:
        """Runs that the cloud began by itself, of the build of another run."""
        build = self.operator.asked(of).build if of else ""
        found = [each for each in self.operator.runs() if each.get("why") and each["state"] == state]
        return [each for each in found if not of or self.operator.asked(each["run"]).build == build]

    def held(self) -> dict[str, list[int]]:
        told = self.operator.releases()["nodes"]
        return {node: [each["version"] for each in said["held"]] for node, said in told.items()}


@pytest.fixture
def works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Works]:
    made = Works(tmp_path)
    monkeypatch.chdir(tmp_path)
    try:
        yield made
    finally:
        for process in reversed(made.running):
            process.send_signal(signal.SIGINT)
            process.wait(60)


def test_a_schedule_trains_and_what_passes_is_on_every_edge_and_what_fails_is_not(works: Works) -> None:
    up = works.begin("up.log", "up", "line/fleet.toml")
    works.until(lambda: {"fog-1", *EDGES} <= set(works.operator.nodes()))
    first = works.by_a_person()
    works.want(first)
    works.begin("keep.log", "apply", "state", "--fleet", "line/fleet.toml", "--keep")

    (going,) = works.until(lambda: works.by_itself("running"))
    cloud = next(pid for pid in of_session(up.pid) if "reuna.fleet.place cloud" in command_of(pid))
    os.kill(cloud, signal.SIGKILL)
    works.until(lambda: works.held() == {edge: [1] for edge in EDGES})
    (rolled,) = works.until(lambda: [each for each in works.operator.rollouts() if each["phase"] == "done"])
    assert (rolled["version"], rolled["waves"]) == (1, 2)

    catalogue = Catalogue.of(works.folder / "releases", "pumps")
    about = catalogue.read("challenger").manifest.about
    told = {each["run"]: each for each in works.operator.runs()}
    assert len(told) == len(works.operator.runs())
    assert (going["why"], told[going["run"]]["state"]) == ("schedule often", "done"), "the run that was cut"
    assert told[about.run]["why"] == "schedule often"
    assert told[about.run]["gates"]["decision"] == "pass"
    assert (about.version, catalogue.versions()) == (1, [1]), "one release, however many runs taught the same"
    assert "why" not in told[first]
    lineage = json.loads(catalogue.read(1).parts["lineage.json"])
    assert [each["node"] for each in lineage["data"]] == list(EDGES)
    assert all(each["samples"] for each in lineage["data"])

    works.gated((works.project / "reuna.toml").read_text(), "all = { min = 2.0 }")
    second = works.by_a_person()
    works.want(second)
    stopped = works.until(lambda: works.by_itself("done", of=second))[-1]["run"]
    line = works.until(lambda: told_of(works.folder / "keep.log", stopped))
    assert line.startswith(f"✗ {stopped} of pumps, schedule often, is not released: worst all min 2 at pump-")
    assert catalogue.versions() == [1]
    assert f"{stopped}  done" in (shown := works.reuna("runs", "--fleet", "line/fleet.toml"))
    assert "gates: fail: not to be released; worst all min 2 at pump-" in shown
    works.reuna("fetch", stopped, "--fleet", "line/fleet.toml", "--project", "pumps", "--runs", "here")
    judged = json.loads(
        works.reuna("gate", stopped, "--project", "pumps", "--runs", "here", "--json", status=1)
    )
    assert judged["decision"] == "fail"
    planned = works.reuna("plan", "state", "--fleet", "line/fleet.toml", "--json")
    assert [each["state"] for each in json.loads(planned)["trained"]] == ["stopped"]


def told_of(log: Path, run: str) -> str:
    return next((line for line in log.read_text().splitlines() if run in line), "")
