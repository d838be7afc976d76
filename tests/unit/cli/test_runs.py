"""Finished runs as a person lists and shows them, also when a result is no result any more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reuna.cli import app
from reuna.core.errors import Corrupted, RunNotFound

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


def result(run: str) -> dict[str, Any]:
    site = {"site": "pump-1", "nodes": ["pump-1"], "federated": {"all": 0.9}}
    return {
        "run": run, "project": "pumps", "task": "fault-classification", "metric": "all", "sites": [site],
        "worst_site": {"site": "pump-1", "metric": "all", "value": 0.9}, "bytes_by_kind": {},
        "bytes_by_link": {}, "flows": [], "raw_rows_sent": 0, "wall_s": 1.0, "rounds": 2,
        "strategy": "fedavg", "timeline": [], "centralised_s": None, "processes": [], "model_digest": "0" * 64,
    }  # fmt: skip


@pytest.fixture(params=BROKEN)
def runs(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Two good runs, and a newer one whose result is broken."""
    for name in ("r-1", "r-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(result(name)))
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
