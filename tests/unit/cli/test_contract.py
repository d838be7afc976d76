"""``reuna contract``: check, infer and diff, as scripts and people use them."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from reuna.cli import app
from reuna.core.errors import ContractBroken, DataError, SettingsError
from reuna.core.project import project_settings
from reuna.core.settings import Source
from reuna.fleet.baseline import compute
from reuna.fleet.open_project import open_settings
from reuna.learn.strategies import TAKES
from reuna.template import make_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh project with its sample data; we stand in it."""
    make_project(tmp_path / "pumps", sample=True)
    monkeypatch.chdir(tmp_path / "pumps")
    return tmp_path / "pumps"


def reuna(*words: str) -> Result:
    return CliRunner().invoke(app, ["contract", *words])


def said(result: Result, kind: type[Exception]) -> str:
    assert isinstance(result.exception, kind), result.output
    return str(result.exception)


def edit(path: Path, *pairs: tuple[str, str]) -> None:
    text = path.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def too_strict(project: Path) -> None:
    edit(project / "reuna.toml", ("max = 150", "max = 47"))


def test_nodes_that_keep_the_contract_are_told_with_status_0(project: Path) -> None:
    result = reuna("check")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        f"pump-{pump}: keeps version 1 (32 rules, 0 failures)" for pump in (1, 2, 3, 4)
    ]


def test_a_node_that_breaks_the_contract_is_told_with_the_place_and_status_1(project: Path) -> None:
    too_strict(project)
    result = reuna("check", "data/pump-4")
    assert result.exit_code == 1
    first, *broken = result.output.splitlines()
    assert first.startswith("pump-4: BREAKS version 1 (32 rules, ")
    assert any(
        line.startswith("  unit of 'temperature_c': 4800 of 4800 fail, none may; data/pump-4/")
        for line in broken
    )


def test_a_script_reads_counts_by_node_and_rule(project: Path) -> None:
    too_strict(project)
    result = reuna("check", "--json")
    assert result.exit_code == 1
    report = json.loads(result.output)
    assert (report["version"], report["kept"], set(report["nodes"])) == (
        1, False, {"pump-1", "pump-2", "pump-3", "pump-4"},
    )  # fmt: skip
    rules = report["nodes"]["pump-4"]["rules"]
    (found,) = [each for each in rules if (each["rule"], each["signal"]) == ("range", "temperature_c")]
    assert found["passed"] + found["failed"] == 4800
    assert found["allowed"] == 0.05


def test_a_table_that_cannot_be_read_is_told_beside_the_other_nodes(project: Path) -> None:
    (project / "data" / "pump-1" / "train" / "fault-0-0.csv").write_text("t,t\n1,2\n")
    result = reuna("check")
    assert result.exit_code == 1
    assert "pump-1: BREAKS" in result.output
    assert "stands twice in the header" in result.output
    assert "pump-2: keeps" in result.output


def test_units_that_are_compared_as_text_are_named(project: Path) -> None:
    edit(project / "reuna.toml", ('"m3/h"', '"kscmh"'))
    assert "units compared as text: kscmh" in reuna("check").output


def test_a_project_without_a_contract_is_told_how_to_come_by_one(project: Path) -> None:
    text = (project / "reuna.toml").read_text()
    start, end = text.index("# What the nodes' tables"), text.index("[strategy]")
    (project / "reuna.toml").write_text(text[:start] + text[end:])
    assert "has no contract" in said(reuna("check"), SettingsError)


def test_what_is_proposed_is_kept_by_the_data_it_came_from(project: Path) -> None:
    result = reuna("infer")
    assert result.exit_code == 0, result.output
    proposed = tomllib.loads(result.output)
    assert proposed["contract"] == {
        "version": 1, "time": "second", "every_s": 10, "max_gap_s": 20, "max_missing": 0.01,
    }  # fmt: skip
    assert proposed["label"] == {"column": "fault"}
    assert set(proposed["signals"]) == {"current_a", "flow_m3_h", "temperature_c", "vibration_mm_s"}
    project_settings([Source("proposed", {"project": {"name": "p"}, **proposed})], TAKES)


def test_a_proposal_is_written_in_place_of_the_old_sections_and_of_nothing_else(project: Path) -> None:
    before = tomllib.loads((project / "reuna.toml").read_text())
    result = reuna("infer", "--write")
    assert result.exit_code == 0, result.output
    assert "breaking: vibration_mm_s: max 50 -> " in result.output
    text = (project / "reuna.toml").read_text()
    after = tomllib.loads(text)
    for section in ("project", "learner", "windows", "strategy", "train"):
        assert after[section] == before[section]
    assert after["contract"]["version"] == 2
    assert after["signals"]["temperature_c"]["unit"] == "degC", "what the data do not say is kept"
    assert text.startswith("#:schema ./.reuna.schema.json\n# What is learnt and how.")
    assert reuna("check").exit_code == 0


def test_a_file_whose_sections_cannot_be_told_apart_by_lines_is_left_alone(project: Path) -> None:
    edit(project / "reuna.toml", ('name = "pumps"', 'name = "pumps"\ntask = """fault-classification"""'),
         ('task = "fault-classification"\n', ""),
         ("[train]", '[data]\nnote = """\n[signals]\n"""\n\n[train]'))  # fmt: skip
    before = (project / "reuna.toml").read_text()
    assert "without touching others" in said(reuna("infer", "--write"), SettingsError)
    assert (project / "reuna.toml").read_text() == before


def test_a_proposal_needs_data(project: Path) -> None:
    assert "there is no folder nowhere" in said(reuna("infer", "nowhere"), DataError)


def git(*words: str) -> None:
    subprocess.run(
        ["git", "-c", "user.email=a@b", "-c", "user.name=a", *words], check=True, capture_output=True
    )


def test_two_revisions_are_compared_with_the_file_at_hand(project: Path) -> None:
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    edit(project / "reuna.toml", ("max = 150", "max = 200"))
    wider = reuna("diff", "HEAD", "reuna.toml")
    assert wider.exit_code == 0, wider.output
    assert wider.output.splitlines()[:2] == ["compatible: temperature_c: max 150 -> 200", "compatible"]
    assert "[contract] version is 1; raise it to 2" in wider.output
    narrower = reuna("diff", ".", "HEAD", "--json")
    assert narrower.exit_code == 1
    assert json.loads(narrower.output) == {
        "breaking": True,
        "versions": [1, 1],
        "changes": [{"signal": "temperature_c", "what": "max 200 -> 150", "breaking": True}],
        "advice": "[contract] version is 1; raise it to 2",
    }
    assert reuna("diff", "HEAD", "HEAD").output == "no change\n"


@pytest.mark.parametrize("name", ["nowhere", "--output=/tmp/x", "HEAD\0"])
def test_what_is_neither_file_nor_revision_is_said(project: Path, name: str) -> None:
    git("init", "-q")
    result = reuna("diff", "--", name, "reuna.toml")
    assert repr(name) in said(result, SettingsError)


def test_the_centralised_baseline_goes_on_without_data_that_break_the_contract(project: Path) -> None:
    (project / "data" / "pump-2" / "train" / "fault-0-0.csv").write_text("second,fault\n0,0\n")
    settings = open_settings(project, [])
    request = {
        "project": str(project),
        "entry": settings.entry,
        "settings": dict(settings.settings),
        "rounds": 1,
        "seed": 1,
        "nodes": {name: str(project / "data" / name) for name in ("pump-1", "pump-2")},
    }
    assert set(compute(request).scores) == {"pump-1"}
    with pytest.raises(DataError, match="pump-2: present of"):
        compute({**request, "nodes": {"pump-2": request["nodes"]["pump-2"]}})
    assert issubclass(ContractBroken, DataError)
