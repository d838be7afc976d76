"""``reuna gate``: judged again by the reuna.toml of today; scripts read the exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reuna.cli import app
from reuna.core.errors import SettingsError
from reuna.fleet.gates import judge_run
from reuna.fleet.report import render
from tests.finished import finished

RUN = CliRunner()
PROJECT = '[project]\nname = "pumps"\n[gates]\nall = { min = 0.9, max_drop = 0.05 }\n'


def site(name: str, **scores: float) -> dict[str, Any]:
    return {"site": name, "nodes": [name], "federated": scores}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "reuna.toml").write_text(PROJECT)
    keep(tmp_path, "r-1", [site("north", all=0.99), site("south", all=0.99)])
    keep(tmp_path, "r-2", [site("north", all=0.98), site("south", all=0.91)])
    keep(tmp_path, "r-3", [site("north", all=0.98), site("south", all=0.71)])
    keep(tmp_path, "r-4", [site("north", all=0.98), site("south")])
    return tmp_path


def keep(folder: Path, run: str, sites: list[dict[str, Any]], **more: Any) -> None:
    file = folder / "runs" / run / "result.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(finished(run, sites=sites, **more)))


def gate(project: Path, *words: str) -> Any:
    return RUN.invoke(app, ["gate", *words, "--project", str(project), "--runs", str(project / "runs")])


@pytest.mark.parametrize(
    ("run", "status", "word"), [("r-2", 0, "pass"), ("r-3", 1, "fail"), ("r-4", 2, "open")]
)
def test_the_exit_status_is_the_decision(project: Path, run: str, status: int, word: str) -> None:
    done = gate(project, run, "--json")
    said = json.loads(done.stdout)
    assert (done.exit_code, said["run"], said["decision"]) == (status, run, word)
    assert said["worst"]["site"] == "south"
    assert len(said["verdicts"]) == 4


def test_a_champion_stops_what_alone_would_pass_and_the_site_is_named(project: Path) -> None:
    done = gate(project, "r-2", "--champion", "r-1")
    assert done.exit_code == 1
    assert "worst all max_drop 0.05 at south, which has 0.08" in done.stdout


def test_gates_of_today_judge_a_run_of_yesterday(project: Path) -> None:
    (project / "reuna.toml").write_text(PROJECT.replace("0.9", "0.5"))
    assert gate(project, "r-3").exit_code == 0


def test_without_gates_nothing_is_passed(project: Path) -> None:
    (project / "reuna.toml").write_text('[project]\nname = "pumps"\n')
    done = gate(project, "r-2")
    assert isinstance(done.exception, SettingsError)
    assert "declares no gates" in str(done.exception)
    assert done.exception.exit_status == 2


def test_a_champion_of_another_project_is_refused(project: Path) -> None:
    keep(project, "r-0", [site("north", all=0.9)], project="fans")
    done = gate(project, "r-2", "--champion", "r-0")
    assert isinstance(done.exception, SettingsError)
    assert "has project 'fans'" in str(done.exception)


def test_the_result_the_screen_and_the_page_show_the_grid(project: Path) -> None:
    from reuna.core.gates import Gate

    plain = finished("r-5", sites=[site("north", all=0.98), site("<south>", all=0.7)])
    judged = judge_run([Gate("all", "min", 0.9)], plain).as_dict()
    keep(project, "r-5", plain["sites"], gates=judged)
    shown = RUN.invoke(app, ["show", "r-5", "--runs", str(project / "runs")])
    assert "gates: not to be released; worst all min 0.9 at <south>, which has 0.7" in shown.stdout
    page = render(finished("r-5", sites=plain["sites"], gates=judged))
    assert "all min 0.9" in page
    assert '<td class="fail" title="">0.7 ✗</td>' in page
    assert "<south>" not in page
