"""A real fleet loses its cloud's disk in the middle of a run, and a node's; both come back from a backup."""

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
from reuna.fleet.layout import make_fleet
from reuna.template import make_project
from tests import commands

pytestmark = [pytest.mark.system, pytest.mark.timeout(170)]
PLAIN = ("--set", "run.local=false", "--set", "run.centralised=false", "--set", "round.deadline_s=60")
#: From the second fit on, training waits for as long as there is a file `held` beside the data.
HELD = """
_load, _fit, _folders, _fits = load, Scored.fit, [], []


def load(folder, settings):
    _folders.append(folder)
    return _load(folder, settings)


def fit(self, *given):
    import time

    _fits.append(1)
    while len(_fits) > 1 and (_folders[-1] / "held").exists():
        time.sleep(0.05)
    return _fit(self, *given)


Scored.fit = fit
"""


def until(happened: Callable[[], Any], seconds: float = 60) -> Any:
    """Poll a condition of other processes, with an end."""
    end = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.1)
    return found


class Line:
    """A cloud, a fog and two edges, each a process of its own, and a project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = folder / "pumps"
        make_project(self.project, sample=True)
        data = {name: self.project / "data" / name for name in ("pump-1", "pump-2")}
        self.fleet = make_fleet(folder / "line", "line", {"mill": data}, announce_s=0.5)
        self.operator = Operator.of(self.fleet)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        for place in self.fleet.places:
            self.start(place.name)

    def settings(self, name: str) -> Path:
        return next(place.settings for place in self.fleet.places if place.name == name)

    def start(self, name: str) -> None:
        kind = next(place.kind for place in self.fleet.places if place.name == name)
        command = [sys.executable, "-m", "reuna.cli", kind, "--settings", str(self.settings(name))]
        with (self.folder / f"{name}.log").open("ab") as out:
            self.running[name] = subprocess.Popen(command, stdout=out, stderr=out)

    def end(self, name: str, number: signal.Signals) -> None:
        process = self.running.pop(name)
        process.send_signal(number)
        process.wait(30)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "reuna.cli", *words]

    def reuna(self, *words: str, fails: bool = False) -> str:
        done = commands.reuna(*words, cwd=self.project, timeout=120)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr if fails else done.stdout

    def run(self, *more: str) -> dict[str, Any]:
        words = ("run", "--fleet", str(self.fleet.folder / "fleet.toml"), "--json", *PLAIN, *more)
        done = subprocess.run(
            self.command(*words), cwd=self.project, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def begin(self, *more: str) -> subprocess.Popen[bytes]:
        words = ("run", "--fleet", str(self.fleet.folder / "fleet.toml"), "--json", *PLAIN, *more)
        quiet = subprocess.DEVNULL
        return subprocess.Popen(self.command(*words), cwd=self.project, stdout=quiet, stderr=quiet)

    def asked(self, what: Callable[[], Any]) -> Any:
        """What the cloud answers, None while it does not."""
        try:
            return what()
        except ReunaError:
            return None

    def rounds(self, run: str) -> int:
        found = self.asked(lambda: self.operator.timeline(run, 0)) or []
        return sum(1 for event in found if event["what"] == "round")


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path)
    yield made
    for process in reversed(made.running.values()):
        process.terminate()
    for process in made.running.values():
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def test_a_cloud_comes_back_from_its_backup_and_the_interrupted_run_goes_on(line: Line) -> None:
    cloud, file = line.settings("cloud"), line.folder / "cloud.backup"
    first = line.run("--rounds", "2")["run"]
    history = line.operator.timeline(first, 0)
    line.reuna("backup", str(line.settings("pump-1")), str(line.folder / "pump-1.backup"))

    model = line.project / "detector" / "model.py"
    model.write_text(model.read_text() + HELD)
    held = [line.project / "data" / name / "held" for name in ("pump-1", "pump-2")]
    for file_of_edge in held:
        file_of_edge.touch()
    client = line.begin("--rounds", "3")
    try:
        second = until(lambda: [r["run"] for r in line.operator.runs() if r["run"] != first])[0]
        until(lambda: line.rounds(second) == 1)
        told = json.loads(line.reuna("backup", str(cloud), str(file), "--json"))
        at_the_end = line.rounds(second)
        line.end("cloud", signal.SIGKILL)
    finally:
        client.kill()
        client.wait()
        for file_of_edge in held:
            file_of_edge.unlink()
    assert told["marks"]["runs"] == {second: 1}
    assert at_the_end == 1, "the second round is held"
    state = line.fleet.folder / "cloud" / "state"
    shutil.rmtree(state)

    said = line.reuna("restore", str(file), str(cloud), "--digest", told["digest"])
    assert f"{second} goes on after round 1" in said
    assert "Private keys" not in said, "they lie outside the state folder, and are still there"
    line.start("cloud")
    until(lambda: line.asked(lambda: line.operator.status(second)["state"] == "done"), 90)
    assert line.operator.status(second)["result"]["rounds"] == 3
    assert line.operator.status(first)["state"] == "done"
    assert line.operator.timeline(first, 0) == history
    assert line.rounds(second) == 3
    trail = json.loads(line.reuna("audit", "show", "--settings", str(cloud), "--json"))
    assert {"place.backup", "place.restore"} <= {entry["what"] for entry in trail}
    line.reuna("audit", "verify", "--settings", str(cloud))
    found = json.loads(line.reuna("upgrade", "--check", str(cloud), "--json"))
    assert found["ok"] is True

    # and an edge whose state is put back to before that run: what never goes back is kept
    busy = line.reuna("restore", str(line.folder / "pump-1.backup"), str(line.settings("pump-1")), fails=True)
    assert "is running" in busy
    line.end("pump-1", signal.SIGTERM)
    words = ("restore", str(line.folder / "pump-1.backup"), str(line.settings("pump-1")))
    assert "is not empty" in line.reuna(*words, fails=True)
    back = json.loads(line.reuna(*words, "--replace", "--json"))
    assert (
        {"ledger", "ledger.key"}
        <= set(back["carried"])
        <= {"ledger", "ledger.key", "data.key", "policy", "trust"}
    )
    assert (back["behind"], back["missing_keys"]) == ([], [])
    line.start("pump-1")
    third = line.run("--rounds", "1", "--set", "round.quorum=1.0")["run"]
    assert "pump-1" in next(
        event["fields"]["members"] for event in line.operator.timeline(third, 0) if event["what"] == "round"
    )
    for node in ("pump-1", "mill"):
        line.reuna("ledger", "verify", str(line.fleet.folder / node / "state" / "ledger"))
    nodes = json.loads(line.reuna("node", "list", "--settings", str(cloud), "--json"))
    assert not [row for row in nodes if row.get("alarm") or row.get("alarms")], "the cloud countersigns on"
