"""A run that is shown while it goes on: nothing that happens there reaches the run."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reuna.adapters import mlflow_tracking
from reuna.cli import app
from reuna.cli import mlflow as cli
from reuna.cli.view import Progress
from reuna.core.errors import ExtraMissing, NotUsable, PermissionDenied, Unreachable
from reuna.core.tracking import Tracked
from reuna.fleet import registry, tracking
from reuna.fleet.open_project import open_settings
from reuna.fleet.session import Finished, Job
from reuna.fleet.tracking import QUEUED, Live, commit_of, send, tracked
from reuna.sim.tracker import MemoryTracker
from reuna.template import make_project
from tests.catalogues import PROJECT, add, release
from tests.contract.test_trackers import AT, keep, round_event

RUN = "r-20261127-101500-aaaa"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    make_project(tmp_path / "pumps", sample=False)
    return tmp_path / "pumps"


class Said(list[str]):
    """Lines a person gets."""


def live(project: Path, opened: Any, said: list[str]) -> Live:
    return Live(opened, project, open_settings(project, []), said.append, pause_s=0.01)


def result_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def test_a_run_is_shown_from_its_first_round_to_its_result(project: Path, tmp_path: Path) -> None:
    server, said = MemoryTracker(), Said()
    shown = live(project, lambda: server, said)
    for number in (1, 2, 3):
        shown.watch(round_event(RUN, number))
    folder = keep(tmp_path / "runs", RUN, strategy="fedavgm")
    assert shown.finish(folder, result_of(folder))
    there = server.runs[RUN]
    assert [each.step for each in there.measures if each.name == ("loss",)] == [1, 2, 3]
    assert (there.state, there.params["strategy.name"], said) == ("finished", "fedavgm", [])
    assert {Path(each).name for each in there.files} == {"result.json", "report.html", "model.safetensors"}


class Stuck(MemoryTracker):
    """Answers nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def put(self, run: Tracked) -> str:
        self.go.wait()
        return super().put(run)


def test_a_server_that_hangs_delays_no_event_and_the_end_by_its_grace_alone(
    project: Path, tmp_path: Path
) -> None:
    server, said = Stuck(), Said()
    shown = live(project, lambda: server, said)
    began = time.monotonic()
    for number in range(1, 3 * QUEUED):
        shown.watch(round_event(RUN, number))
    folder = keep(tmp_path / "runs", RUN)
    assert not shown.finish(folder, result_of(folder), grace_s=0.2)
    assert time.monotonic() - began < 2
    assert len(said) == 1 and "reuna mlflow sync" in said[0]
    server.go.set()


def test_events_that_did_not_fit_come_with_the_result(project: Path, tmp_path: Path) -> None:
    server, said = Stuck(), Said()
    shown = live(project, lambda: server, said)
    for number in range(1, 3 * QUEUED + 1):
        shown.watch(round_event(RUN, number))
    server.go.set()
    folder = keep(tmp_path / "runs", RUN, rounds=3 * QUEUED)
    assert shown.finish(folder, result_of(folder))
    steps = sorted(each.step for each in server.runs[RUN].measures if each.name == ("loss",))
    assert steps == list(range(1, 3 * QUEUED + 1))


@pytest.mark.parametrize(
    "fault", [Unreachable("away"), PermissionDenied("no"), NotUsable("bad"), RuntimeError("bug")]
)
def test_whatever_a_tracker_raises_costs_one_line(project: Path, tmp_path: Path, fault: Exception) -> None:
    def fails() -> MemoryTracker:
        raise fault

    said = Said()
    shown = live(project, fails, said)
    for number in (1, 2, 3):
        shown.watch(round_event(RUN, number))
        time.sleep(0.03)
    folder = keep(tmp_path / "runs", RUN)
    began = time.monotonic()
    assert not shown.finish(folder, result_of(folder))
    assert time.monotonic() - began < 5
    assert len(said) == 1


def test_after_a_server_came_back_a_second_outage_is_said_again(project: Path) -> None:
    server, said = MemoryTracker(away=True), Said()
    shown = live(project, lambda: server, said)
    for away in (True, False, True):
        server.away = away
        before = len(said)
        shown.watch(round_event(RUN, 1))
        until = time.monotonic() + 5
        while (len(said) == before) if away else (RUN not in server.runs):
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.05)
    assert len(said) == 2


def test_a_run_without_a_result_stays_as_failed(project: Path) -> None:
    server, said = MemoryTracker(), Said()
    shown = live(project, lambda: server, said)
    shown.watch(round_event(RUN, 1))
    assert shown.failed()
    assert server.runs[RUN].state == "failed"


def test_a_run_that_ended_before_its_first_event_is_not_made(project: Path) -> None:
    server = MemoryTracker()
    assert live(project, lambda: server, []).failed()
    assert not server.runs


def test_the_commit_is_told_only_of_a_folder_that_is_exactly_it(project: Path) -> None:
    assert commit_of(project) == ""
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"],
    ):
        subprocess.run(["git", "-C", str(project), *words], check=True)
    assert len(commit_of(project)) == 40
    (project / "reuna.toml").write_text("changed")
    assert commit_of(project) == ""


def test_a_changed_result_is_sent_again_and_an_equal_one_is_not(tmp_path: Path) -> None:
    server = MemoryTracker()
    folder = keep(tmp_path, RUN)
    assert [send(server, folder, result_of(folder)) for _ in (1, 2)] == ["sent", "unchanged"]
    keep(tmp_path, RUN, worst_site={"site": "pump-1", "metric": "all", "value": 0.8})
    assert send(server, folder, result_of(folder)) == "sent"


def test_times_are_those_of_the_run(tmp_path: Path) -> None:
    folder = keep(tmp_path, RUN)
    found = tracked(folder, result_of(folder))
    assert found.began_s == 1795774500.0
    assert [each.at_s for each in found.measures if each.name == ("loss",)] == [AT + 1, AT + 2, AT + 3]
    assert tracked(keep(tmp_path, "odd"), {**result_of(folder), "run": "odd"}).began_s == AT + 1


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without MLflow."""
    monkeypatch.setattr(mlflow_tracking, "installed", lambda: False)
    monkeypatch.delenv(cli.URI, raising=False)


def shown(project: Path, *flags: str) -> Any:
    job = Job(project, open_settings(project, list(flags)), [], project / "runs")
    return cli.shown_live(job, Progress(job, quiet=False))


def test_asked_for_without_the_extra_is_an_error_before_anything_runs(project: Path, bare: None) -> None:
    with (
        pytest.raises(ExtraMissing, match="not installed") as found,
        shown(project, "tracking.mlflow=always"),
    ):
        raise AssertionError
    assert "reuna[mlflow]" in found.value.next_step


def test_an_address_alone_without_the_extra_costs_one_line(
    project: Path, bare: None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv(cli.URI, "http://127.0.0.1:9")
    with shown(project) as (watch, _):
        watch(round_event(RUN, 1))
    assert "reuna[mlflow]" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "uri", "there"), [
    ("auto", "", False), ("auto", "http://h", True), ("never", "http://h", False), ("always", "", True),
])  # fmt: skip
def test_a_run_is_shown_where_the_setting_and_the_address_say_so(
    project: Path, monkeypatch: pytest.MonkeyPatch, flag: str, uri: str, there: bool
) -> None:
    server, asked = MemoryTracker(), []
    monkeypatch.setenv(cli.URI, uri)
    monkeypatch.setattr(mlflow_tracking, "installed", lambda: True)
    monkeypatch.setattr(tracking, "open_store", lambda runs, at: asked.append(at) or server)
    folder = keep(project / "runs", RUN)
    with shown(project, f"tracking.mlflow={flag}") as (watch, done):
        watch(round_event(RUN, 1))
        done(Finished(folder, result_of(folder)))
    assert (RUN in server.runs, asked) == (there, [uri] if there else [])


def test_sync_names_each_run_and_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = MemoryTracker(deleted={"r-2"})
    monkeypatch.setattr(tracking, "open_store", lambda runs, at: server)
    for run in ("r-1", "r-2", "r-3"):
        keep(tmp_path, run)
    (tmp_path / "r-3" / "result.json").write_text("{")
    catalogue = add(tmp_path / "releases", release())
    add(tmp_path / "releases", release(2))
    catalogue.file(2).write_bytes(b"{")
    words = ["mlflow", "sync", "--runs", str(tmp_path), "--releases", str(tmp_path / "releases")]
    words += ["--experiment", "line 4"]
    first = CliRunner().invoke(app, words).stdout
    assert first.startswith(
        f"r-1: sent\nr-2: deleted in MLflow, left so\n{PROJECT} 1: sent\nPumps-hall-2 2: left out: "
    )
    again = CliRunner().invoke(app, [*words, "--json"])
    said = json.loads(again.stdout)
    assert (said["to"], said["runs"]) == ("memory", {"r-1": "unchanged", "r-2": "deleted"})
    assert said["releases"][f"{PROJECT} 1"] == "unchanged"
    assert server.runs["r-1"].experiment == "line 4"


def test_sync_that_watches_waits_for_a_server_and_sends_what_ends_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    server, turns = MemoryTracker(away=True), []

    def turn(_seconds: float) -> None:
        turns.append(1)
        server.away = len(turns) < 3
        if len(turns) == 4:
            keep(tmp_path, "r-2")
            catalogue.promote(1)
        if len(turns) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(cli.time, "sleep", turn)
    keep(tmp_path, "r-1")
    catalogue = add(tmp_path / "releases", release())
    with pytest.raises(KeyboardInterrupt):
        cli._for_ever(server, tmp_path, tmp_path / "releases", "", 1.0)
    said = capsys.readouterr()
    sent = f"r-1: sent\n{PROJECT} 1: sent\nr-2: sent\n{PROJECT} 1: there already\n"
    assert (said.out, said.err) == (sent, "waits: memory is away\n")
    assert server.aliases[PROJECT].keys() == {"champion"}


def test_release_commands_move_the_aliases_and_a_server_away_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = MemoryTracker()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setattr(mlflow_tracking, "installed", lambda: True)
    monkeypatch.setattr(tracking, "open_store", lambda runs, at: server)
    make_project(tmp_path / "pumps", sample=False)
    settings = tmp_path / "pumps" / "reuna.toml"
    settings.write_text(settings.read_text().replace('name = "pumps"', f'name = "{PROJECT}"'))
    for version in (1, 2):
        catalogue = add(tmp_path / "releases", release(version))
    places = ["--project", str(tmp_path / "pumps"), "--releases", str(tmp_path / "releases")]

    def promote(version: str) -> Any:
        return CliRunner().invoke(app, ["release", "promote", version, *places])

    def named() -> dict[str, int]:
        versions = {each.digest: each.version for each in server.models[PROJECT]}
        return {alias: versions[digest] for alias, digest in server.aliases[PROJECT].items()}

    assert promote("1").exit_code == 0
    assert named() == catalogue.aliases() == {"champion": 1, "challenger": 2}
    server.away = True
    away = promote("2")
    assert away.exit_code == 0 and away.stdout == "champion 2, previous 1\n"
    assert away.stderr == "memory is away. `reuna mlflow sync` sends later what is not there yet.\n"
    server.away = False
    sync = ["mlflow", "sync", "--runs", str(tmp_path / "runs"), "--releases", str(tmp_path / "releases")]
    assert CliRunner().invoke(app, sync).exit_code == 0
    assert named() == {"champion": 2, "previous": 1}


def test_a_server_that_hangs_delays_a_promotion_by_its_grace_alone(tmp_path: Path) -> None:
    stuck, said = threading.Event(), list[str]()

    def hangs() -> MemoryTracker:
        stuck.wait(20)
        return MemoryTracker()

    began = time.monotonic()
    registry.show(hangs, add(tmp_path, release()), said.append, grace_s=0.1)
    assert time.monotonic() - began < 5
    stuck.set()
    assert len(said) == 1 and "has not taken this within 0.1 s" in said[0]
