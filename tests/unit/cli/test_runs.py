"""Finished runs as a person lists and shows them, also when a result is no result any more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from typer.testing import CliRunner

from reuna.cli import app
from reuna.cli.run import begun_by_the_cloud
from reuna.core.errors import Corrupted, RunNotFound
from reuna.core.trigger import Trigger
from reuna.fleet.client import Operator
from tests.finished import finished

RUN = CliRunner()
BROKEN = {
    "empty": b"",
    "an empty object": b"{}",
    "a list": b"[]",
    "cut off": b'{"run": "r-2", "project"',
    "no text": b"\xff\xfe",
    "another type": b'{"run": 5}',
    "too deep": b"[" * 100_000,
}


@pytest.fixture(params=BROKEN)
def runs(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Two good runs, and a newer one whose result is broken."""
    for name in ("r-1", "r-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(finished(name)))
    (tmp_path / "r-3").mkdir()
    (tmp_path / "r-3" / "result.json").write_bytes(BROKEN[request.param])
    return tmp_path


def test_a_broken_result_is_left_out_of_the_list_and_named(runs: Path) -> None:
    done = RUN.invoke(app, ["runs", "--runs", str(runs), "--json"])
    assert [line["run"] for line in json.loads(done.stdout)] == ["r-2", "r-1"]
    assert str(runs / "r-3" / "result.json") in done.stderr


def test_the_newest_run_that_can_be_read_is_shown(runs: Path) -> None:
    done = RUN.invoke(app, ["show", "--runs", str(runs), "--json"])
    assert json.loads(done.stdout)["run"] == "r-2"


@pytest.mark.parametrize("command", [["show", "r-3"], ["diff", "r-1", "r-3"]])
def test_a_broken_result_that_is_asked_for_is_one_clear_message(runs: Path, command: list[str]) -> None:
    done = RUN.invoke(app, [*command, "--runs", str(runs)])
    assert isinstance(done.exception, Corrupted)
    assert str(runs / "r-3" / "result.json") in done.exception.message
    assert "again" in done.exception.next_step


def test_without_a_run_it_is_said_how_to_begin_one(tmp_path: Path) -> None:
    done = RUN.invoke(app, ["show", "--runs", str(tmp_path)])
    assert isinstance(done.exception, RunNotFound)
    assert "reuna demo" in done.exception.next_step


def test_runs_of_a_fleet_say_what_began_them_and_what_their_gates_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = {"project": "pumps", "task": "t", "rounds": 9, "edges": 6, "began": 86_400.0, "state": "done"}
    worst = {"gate": "all min", "bound": 0.9, "site": "plant-6", "value": 0.71}
    told = [
        {**plain, "run": "n-3", "why": "schedule n", "gates": {"decision": "fail", "worst": worst}},
        {**plain, "run": "n-2", "why": "schedule n", "gates": {"decision": "open", "why": "R1 no build"}},
        {**plain, "run": "r-1", "gates": {"decision": "pass", "worst": worst, "left": ["all max_drop"]}},
        {**plain, "run": "r-0", "state": "running"},
    ]

    class Cloud:
        def runs(self) -> list[dict[str, Any]]:
            return told

    monkeypatch.setattr("reuna.cli.run.open_at", lambda _where: (None, Cloud()))
    about = "pumps, 9 rounds, 6 edges, began 1970-01-02 00:00 UTC"
    assert RUN.invoke(app, ["runs", "--fleet", "x"]).stdout.splitlines() == [
        f"n-3  done       {about} by schedule n",
        "    gates: fail: not to be released; worst all min 0.9 at plant-6, which has 0.71",
        f"n-2  done       {about} by schedule n",
        "    gates: open: R1 no build",
        f"r-1  done       {about}",
        "    gates: pass: every gate holds at every site; closest all min 0.9 at plant-6, which has 0.71; "
        "all max_drop left to the release",
        f"r-0  running    {about}",
    ]
    listed = json.loads(RUN.invoke(app, ["runs", "--fleet", "x", "--json"]).stdout)
    assert (listed[0]["why"], listed[0]["gates"]["decision"]) == ("schedule n", "fail")


def test_what_begins_runs_by_itself_is_listed_with_how_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    rest = {"state": "rests", "why": "", "next": None, "last": None, "run": "", "proposal": "", "wrong": ""}
    nightly = msgspec.to_builtins(Trigger("nightly", "r-1", "02:30")) | rest
    moved = msgspec.to_builtins(Trigger("moved", "r-1", on="drift", cooldown_s=60.0)) | rest
    told = [
        nightly | {"next": 86_400.0, "wrong": "R306 no blob"},
        moved | {"state": "waits", "why": "quiet hours", "run": "m-1", "last": 0.0, "proposal": "ab"},
    ]

    class Cloud:
        def triggers(self) -> list[dict[str, Any]]:
            return told

    monkeypatch.setattr("reuna.cli.run.open_at", lambda _where: (None, Cloud()))
    assert RUN.invoke(app, ["triggers", "--fleet", "x"]).stdout.splitlines() == [
        "nightly  rests",
        "    r-1 again, every day 02:30 UTC",
        "    due next at 1970-01-02 00:00:00 UTC",
        "    went wrong: R306 no blob",
        "moved  waits: quiet hours",
        "    r-1 again, when process drifts at 1 machine or more, not within 60 s of the last",
        "    last: m-1 at 1970-01-01 00:00:00 UTC, proposal ab",
    ]
    assert (
        json.loads(RUN.invoke(app, ["triggers", "--fleet", "x", "--json"]).stdout)[1]["why"] == "quiet hours"
    )
    told.clear()
    assert "nothing begins runs by itself" in RUN.invoke(app, ["triggers", "--fleet", "x"]).stderr


def test_without_a_name_the_newest_run_that_the_cloud_began_is_fetched() -> None:
    class Cloud:
        def __init__(self, *runs: dict[str, Any]) -> None:
            self.runs = lambda: list(runs)

    person, nightly = {"run": "r-2"}, {"run": "n-1", "why": "schedule n"}
    assert begun_by_the_cloud(cast("Operator", Cloud(person, nightly))) == "n-1"
    with pytest.raises(RunNotFound, match="has begun no run by itself"):
        begun_by_the_cloud(cast("Operator", Cloud(person)))
