"""Signed releases go to the edges of a running fleet by themselves; what is none is refused there."""

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

from reuna.adapters.clock import SystemClock
from reuna.cloud.sign import Signing
from reuna.core.errors import Unreachable
from reuna.core.health import Health
from reuna.exchange.arrivals import ARRIVALS, read
from reuna.fleet.client import Operator
from reuna.fleet.layout import Fleet, make_fleet
from reuna.fleet.release import Catalogue
from reuna.fleet.trust import Ceremony
from reuna.template import make_project
from reuna.trust.stages import Stage
from reuna.wire import digest_bytes
from reuna.wire.build import sha256
from reuna.wire.release import decode
from tests import commands
from tests.releases import model, release, runnable, target

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]
EDGES = ("pump-1", "pump-2")


class Line:
    """A fleet that is up, its operator, and whoever signs."""

    def __init__(self, folder: Path) -> None:
        make_project(folder / "project", sample=True)
        data = {name: folder / "project" / "data" / name for name in EDGES}
        self.fleet: Fleet = make_fleet(folder / "line", "local", {"fog-1": data})
        self.file = folder / "line" / "fleet.toml"
        self.operator = Operator.of(self.fleet)
        self.folder = folder

    def reuna(self, *words: str) -> subprocess.CompletedProcess[str]:
        return commands.reuna(*words, cwd=self.folder, timeout=90)

    def add(self, data: bytes, name: str, *more: str) -> None:
        (self.folder / name).write_bytes(data)
        trust = ("--folder", str(self.fleet.folder / "trust"))
        done = self.reuna("trust", "add", name, "--kind", "release", "--name", name, *trust, *more)
        assert done.returncode == 0, done.stderr

    def sign_garbage(self, number: int) -> None:
        """What a holder of the release keys could sign: no release at all, under a release's name."""
        garbage = b"no release"
        ceremony = Ceremony(self.fleet.folder / "trust", time.time(), lambda _path: b"")
        (ceremony.folder / "targets" / digest_bytes(garbage)).write_bytes(garbage)
        ceremony.restage("targets", [*ceremony.listed("targets"), target(garbage, number, name="garbage")])
        assert ceremony.settle() == {}

    def where(self, *more: str) -> subprocess.CompletedProcess[str]:
        return self.reuna("release", "where", "--fleet", str(self.file), "--json", *more)

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The cloud's answer for which that is so; it answers when something changes."""
        mark, found = 0, {}
        while not found or not holds(found):
            found = self.operator.releases(mark, 20)
            mark = found["mark"]
        return found

    def kill_cloud(self) -> None:
        """The process that serves the cloud ends where it is; the fleet's keeper starts another one."""
        asked = ["pgrep", "-f", f"reuna.fleet.place cloud .*{self.fleet.folder}"]
        (pid,) = map(int, subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split())
        os.kill(pid, signal.SIGKILL)

    def rollout(self, name: str) -> dict[str, Any]:
        """Where a rollout is, once the cloud answers."""
        while True:
            try:
                return self.operator.rollout(name)
            except Unreachable:
                time.sleep(0.1)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    tmp_path = tmp_path_factory.mktemp("line")
    made = Line(tmp_path)
    command = [sys.executable, "-m", "reuna.cli", "up", str(made.file)]
    with (tmp_path / "up.log").open("wb") as out:
        running = subprocess.Popen(command, stderr=out, stdout=out, start_new_session=True)
    try:
        while not heard(made.operator):
            assert running.poll() is None, (tmp_path / "up.log").read_text()
            time.sleep(0.1)
        yield made
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(60)


def heard(operator: Operator) -> bool:
    try:
        return {"fog-1", *EDGES} <= set(operator.nodes())
    except Unreachable:
        return False


def held_by(found: dict[str, Any]) -> dict[str, list[tuple[int, str]]]:
    """Edge -> version and reason of each."""
    return {
        node: [(each["version"], each.get("refused", "")) for each in said["held"]]
        for node, said in found["nodes"].items()
    }


def test_edges_take_signed_releases_and_refuse_what_is_none(line: Line) -> None:
    began = time.monotonic()
    line.add(release(1, more=bytes(300_000)), "pumps-1")
    done = line.where("--wait", "60")
    took = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [node["node"] for node in found["nodes"]] == list(EDGES)
    assert all(node["site"] == "fog-1" and not node["missing"] for node in found["nodes"])
    assert all([each["version"] for each in node["held"]] == [1] for node in found["nodes"])
    digest = sha256(release(1, more=bytes(300_000)))
    assert found["releases"][0]["digest"] == digest, "the one that `reuna release make` prints"
    assert {each["digest"] for node in found["nodes"] for each in node["held"]} == {digest}
    for edge in EDGES:
        kept = line.fleet.folder / edge / "state" / "releases" / digest_bytes(release(1, more=bytes(300_000)))
        assert kept.read_bytes() == release(1, more=bytes(300_000))
    assert took < 30, "by the hourly look it would be an hour"

    line.sign_garbage(2)
    refused = {edge: [(1, ""), (2, "malformed")] for edge in EDGES}
    line.until(lambda answer: held_by(answer) == refused)
    waited = line.where("--wait", "1")
    assert waited.returncode == 2
    assert "pump-1 (refused: malformed), pump-2 (refused: malformed)" in waited.stderr
    assert "[R115]" in waited.stderr

    line.add(release(3), "pumps-3", "--where", "pump-1")
    line.until(lambda answer: (3, "") in held_by(answer)["pump-1"])
    assert (3, "") not in held_by(line.operator.releases())["pump-2"], "it is for the other one"
    deadline = time.monotonic() + 30
    while (came := read(line.fleet.folder / "pump-1" / "state" / ARRIVALS)["release"])[1] != 3:  # each second
        assert time.monotonic() < deadline, f"counted as what it is, also what was refused: {came}"
        time.sleep(0.1)
    print(f"signed to verified by both edges: {took:.2f} s")


def runs(found: dict[str, Any], project: str) -> dict[str, tuple[int, str, str]]:
    """Edge -> version, phase and reason."""
    return {
        node: (each.get("version", 0), each.get("phase", "none"), each.get("reason", ""))
        for node, said in found["nodes"].items()
        for each in said["operates"]
        if each["project"] == project
    }


def test_edges_run_what_they_hold_and_go_back_by_themselves(line: Line) -> None:
    pytest.importorskip("onnxruntime")
    rules = Health(trial_s=1.0)
    good = runnable(1, model(1), rules, "mills")
    line.add(good, "mills-1")
    line.until(lambda answer: runs(answer, "mills") == dict.fromkeys(EDGES, (1, "confirmed", "")))
    line.add(runnable(2, model(2, wrong=True), rules, "mills"), "mills-2")
    found = line.until(
        lambda answer: all(each[1] == "rolled_back" for each in runs(answer, "mills").values())
    )
    assert runs(found, "mills") == dict.fromkeys(EDGES, (1, "rolled_back", "self-test"))
    three = runnable(3, model(3), rules, "mills")
    signing = Signing(line.fleet.folder / "trust", SystemClock())
    stay = Stage("mills", 1, sha256(good), rollout="r-7")
    signing.stage([Stage("mills", 3, sha256(three), "shadow", ("pump-1",), "r-7"), stay])
    line.add(three, "mills-3")
    found = line.until(lambda answer: runs(answer, "mills")["pump-1"][1] == "shadow")
    line.until(lambda answer: (3, "") in held_by(answer)["pump-2"])
    assert runs(found, "mills")["pump-2"][0] == 1, "a stage says so, although it holds a newer one"
    signing.stage([Stage("mills", 3, sha256(three), where=("pump-1",), rollout="r-7"), stay])
    line.until(lambda answer: runs(answer, "mills")["pump-1"] == (3, "confirmed", ""))
    signing.stage([Stage("mills", 1, sha256(good), rollout="back")])
    line.until(lambda answer: runs(answer, "mills")["pump-1"][0] == 1)
    shown = line.reuna("release", "where", "--fleet", str(line.file))
    assert "confirmed" in shown.stdout


STATE = """
[fleet]
name = "local"
[projects.ovens]
champion = 2
rollout = true
[placements.ovens]
project = "ovens"
waves = ["pump-1", "all"]
soak_s = 1
"""


def test_a_directory_in_git_says_which_release_is_where_and_it_goes_out_in_waves(line: Line) -> None:
    pytest.importorskip("onnxruntime")
    catalogue = Catalogue.of(line.folder / "releases", "ovens")
    for version in (1, 2):
        data = runnable(version, model(version), Health(trial_s=1.0), "ovens")
        catalogue.add(decode(data), data)
    (line.folder / "state").mkdir()
    (line.folder / "state" / "ovens.toml").write_text(STATE)
    fleet = ("state", "--fleet", str(line.file))
    shown = line.reuna("plan", *fleet)
    assert shown.returncode == 10, shown.stderr
    assert shown.stdout.startswith("+ champion of ovens: 2\n+ rollout of ovens: 2\n2 to add, 0 to change, ")
    done = line.reuna("apply", *fleet, "--wait", "60")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "published: ovens 2 for every node" in done.stdout
    (rolled,) = (each for each in line.operator.rollouts() if each["project"] == "ovens")
    assert (rolled["phase"], rolled["version"], rolled["waves"]) == ("done", 2, 2)
    assert runs(line.operator.releases(), "ovens") == dict.fromkeys(EDGES, (2, "confirmed", ""))
    nothing = line.reuna("plan", *fleet)
    assert (nothing.returncode, nothing.stdout) == (0, "local is as wanted\n")
    line.reuna("trust", "withdraw", "releases/ovens-0002", "--folder", str(line.fleet.folder / "trust"))
    by_hand = line.reuna("plan", *fleet, "--json")
    assert by_hand.returncode == 10
    assert json.loads(by_hand.stdout)["changes"][0]["sign"] == "+"


def test_a_rollout_moves_one_edge_then_the_other_and_outlives_the_cloud(line: Line) -> None:
    pytest.importorskip("onnxruntime")
    rules = Health(trial_s=1.0)
    toml = line.folder / "fans" / "reuna.toml"
    toml.parent.mkdir()
    toml.write_text('[project]\nname = "fans"\n[rollout]\nwaves = ["pump-1", "all"]\nsoak_s = 1.0\n')
    rollout = ("--fleet", str(line.file), "--project", "fans")
    one, two = (runnable(number, model(number), rules, "fans") for number in (1, 2))
    bad = runnable(3, model(3, wrong=True), rules, "fans")
    line.add(one, "fans-1")
    first = line.reuna("rollout", "start", *rollout, "--name", "first", "--follow")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "wave 1/2 pump-1  ██████████ 1/1 confirmed" in first.stdout

    line.add(two, "fans-2")
    line.until(lambda answer: all((2, "") in held for held in held_by(answer).values()))
    assert runs(line.operator.releases(), "fans") == dict.fromkeys(EDGES, (1, "confirmed", "")), (
        "it is staged"
    )
    begun = line.reuna("rollout", "start", *rollout, "--name", "second", "--set", "rollout.soak_s=600")
    assert begun.returncode == 0, begun.stderr
    line.until(lambda answer: runs(answer, "fans")["pump-1"] == (2, "confirmed", ""))
    line.kill_cloud()
    while line.rollout("second")["phase"] != "wave" or line.rollout("second")["next"] is None:
        time.sleep(0.2)
    assert runs(line.operator.releases(), "fans")["pump-2"][0] == 1, "the soak goes on, and is not begun anew"
    assert line.reuna("rollout", "pause", "second", *rollout[:2]).returncode == 0
    while "rollout paused" not in {event["what"] for event in line.operator.rollout_events("second")}:
        time.sleep(0.1)
    back = line.reuna("rollback", "fans", *rollout[:2], "--json")
    assert json.loads(back.stdout) == {"rollout": "second", "did": "aborted"}, back.stderr
    line.until(lambda answer: {each[0] for each in runs(answer, "fans").values()} == {1})

    line.add(bad, "fans-3")
    third = line.reuna("rollout", "start", *rollout, "--name", "third", "--follow", "--json")
    assert third.returncode == 2
    assert "rollout third failed: pump-1 went back: self-test" in third.stderr
    assert json.loads(third.stdout)["nodes"]["pump-2"]["said"] == ""
    words = [event["what"] for event in line.operator.rollout_events("second")]
    assert words == [
        "rollout wave",
        "rollout met",
        "rollout order",
        "rollout paused",
        "rollout order",
        "rollout aborted",
    ]
    assert "third" in line.reuna("rollout", "status", *rollout[:2]).stdout
