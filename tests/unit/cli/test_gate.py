"""``reuna gate``: judged again by the reuna.toml of today; scripts read the exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reuna.cli import app
from reuna.core.errors import SettingsError
from reuna.core.gates import Gate
from reuna.core.records import AWAY, UNHEARD
from reuna.fleet.gates import grid, sentence
from reuna.fleet.report import render
from reuna.loop.release import judge_run
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


def pumps(**scores: dict[str, float]) -> dict[str, Any]:
    """Two halls with two pumps each; their sites' means hide what is wrong with the large ones."""
    rows = []
    for hall in ("hall-1", "hall-2"):
        nodes = {f"{hall}-{size}": scores[size] for size in ("large", "small")}
        mean = {name: sum(each[name] for each in nodes.values()) / 2 for name in scores["small"]}
        rows.append({"site": hall, "nodes": sorted(nodes), "federated": mean, "by_node": nodes})
    return finished("r-5", sites=rows)


MACHINES = {"large": ("*-large",), "small": ("hall-?-small",)}


def test_a_type_of_machine_that_is_bad_everywhere_is_named_though_every_site_is_good() -> None:
    result = pumps(large={"all": 0.85}, small={"all": 0.99})
    gates = [Gate("all", "min", 0.9)]
    assert judge_run(gates, result).decision == "pass"
    judged = judge_run(gates, result, machines=MACHINES).as_dict()
    assert judged["decision"] == "fail"
    assert judged["worst"]["machines"] == "large"
    assert "site" not in judged["worst"]
    assert [name for name, _ in grid(judged["verdicts"])] == ["hall-1", "hall-2", "all large", "all small"]
    assert sentence(judged).endswith("worst all min 0.9 at all large, which has 0.85")


def test_a_type_is_held_against_the_same_machines_of_the_champion() -> None:
    before = pumps(large={"all": 0.99}, small={"all": 0.80})
    after = pumps(large={"all": 0.90}, small={"all": 0.90})
    judged = judge_run([Gate("all", "max_drop", 0.05)], after, before, MACHINES)
    assert {each.machines: each.outcome for each in judged.verdicts if each.machines} == {
        "large": "fail",
        "small": "pass",
    }


def test_a_type_that_no_machine_is_of_stays_open() -> None:
    result = pumps(large={"all": 0.95}, small={"all": 0.99})
    judged = judge_run([Gate("all", "min", 0.9)], result, machines={"tiny": ("*-tiny",)})
    assert (judged.decision, judged.verdicts[-1].why) == ("open", "nothing was heard")


def told(node: str, failed: int, withheld: int = 0) -> dict[str, Any]:
    rules = [
        {"rule": "range", "passed": 100 - failed, "failed": failed, "signal": "", "broken": False},
        {"rule": "present", "passed": 100, "failed": 0, "signal": "", "broken": False},
        {"rule": "missing", "passed": 0, "failed": 0, "signal": "", "broken": False},
    ]
    return {"node": node, "version": 1, "rules": rules, "withheld": withheld}


@pytest.mark.parametrize(
    ("reports", "outcomes"),
    [
        ([told("north", 2), told("south", 1)], ["pass", "pass"]),
        ([told("north", 2), told("south", 3)], ["pass", "fail"]),
        ([told("north", 2)], ["pass", "open"]),
        ([told("north", 2), told("south", 1, withheld=2)], ["pass", "open"]),
    ],
)
def test_the_rule_that_fails_most_is_the_contract_pass_rate_and_what_was_withheld_leaves_it_open(
    reports: list[dict[str, Any]], outcomes: list[str]
) -> None:
    result = finished("r-6", sites=[site("north", all=0.9), site("south", all=0.9)], contract=reports)
    judged = judge_run([Gate("contract_pass_rate", "min", 0.98)], result)
    assert [each.outcome for each in judged.verdicts] == outcomes


def test_one_machine_with_bad_data_decides_for_its_site() -> None:
    row = {"site": "hall", "nodes": ["a", "b"], "federated": {"all": 0.9}}
    result = finished("r-7", sites=[row], contract=[told("a", 0), told("b", 9)])
    (verdict,) = judge_run([Gate("contract_pass_rate", "min", 0.98)], result).verdicts
    assert (verdict.outcome, verdict.value) == ("fail", pytest.approx(0.91))


# --- sites that were away ------------------------------------------------------------------------------

ALL = [Gate("all", "min", 0.9)]


def away(name: str, why: str = UNHEARD) -> dict[str, Any]:
    return {"site": name, "nodes": [name], "federated": {}, "absent": {name: why}}


FOUR = [site("north", all=0.95), site("south", all=0.94), site("west", all=0.93)]


@pytest.mark.parametrize("why", [UNHEARD, AWAY])
def test_a_site_that_was_away_leaves_its_gates_open_unless_the_project_lets_so_many_be(why: str) -> None:
    result = finished("r-8", sites=[*FOUR, away("east", why)])
    assert judge_run(ALL, result).decision == "open"
    assert judge_run(ALL, result, offline=0.2).decision == "open", "one of four is more"
    judged = judge_run(ALL, result, offline=0.25)
    assert judged.decision == "pass"
    assert {each.site: each.outcome for each in judged.verdicts}["east"] == "silent"
    said = "every gate holds at every site that was heard, and east was not; closest all min 0.9 at west"
    assert sentence(judged.as_dict()).startswith(said)


def test_who_was_heard_is_held_to_every_gate_whoever_is_away() -> None:
    result = finished("r-8", sites=[*FOUR[:2], site("west", all=0.5), away("east")])
    judged = judge_run(ALL, result, offline=0.5)
    assert (judged.decision, judged.as_dict()["worst"]["site"]) == ("fail", "west")


def test_a_site_that_gave_nothing_though_it_was_there_stays_open() -> None:
    for row in (
        away("east", "R012 the data cannot be used"),
        {"site": "east", "nodes": ["east"], "federated": {"other": 1.0}},
    ):
        assert judge_run(ALL, finished("r-8", sites=[*FOUR, row]), offline=1.0).decision == "open"


def test_a_run_that_nobody_was_heard_of_in_is_open_whatever_is_let() -> None:
    result = finished("r-8", sites=[away("east"), away("west")])
    assert judge_run(ALL, result, offline=1.0).decision == "open"


def test_a_type_of_machine_of_which_none_was_heard_stays_open() -> None:
    result = finished("r-8", sites=[*FOUR, away("east")])
    assert judge_run(ALL, result, machines={"odd": ("east",)}, offline=0.25).decision == "open"
