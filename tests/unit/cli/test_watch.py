"""`reuna watch show`: each project has a table, and an alarm that nobody has seen is status 1."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from reuna.cli import app, run

NODE = {"site": "oulu", "at": 1.0, "reference": 9, "level": 0.125, "windows": 412, "p99_ms": 6.06}
ALARM = {"id": "1", "project": "pumps", "since": 2.0, "ended": 0.0, "by": "", "sentence": "oil moved at e1"}


class Fleet:
    """An operator of a fleet of which this is told."""

    def __init__(self, projects: dict[str, Any], *alarms: dict[str, Any]) -> None:
        self.told = {"fleet": "demo", "projects": projects, "alarms": list(alarms)}

    def watch(self) -> dict[str, Any]:
        return self.told


def shown(monkeypatch: pytest.MonkeyPatch, fleet: Fleet, *more: str) -> tuple[int, str]:
    monkeypatch.setattr(run, "open_at", lambda _: (None, fleet))
    monkeypatch.setenv("COLUMNS", "150")
    done = CliRunner().invoke(app, ["watch", "show", "--fleet", "f", *more], catch_exceptions=False)
    return done.exit_code, done.stdout


def test_nodes_are_grouped_by_project_and_alarms_name_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    errs = {"labels": 60, "wrong": 2, "error": 0.25, "errors_alarm": True}
    fleet = Fleet({"pumps": {"e1": {**NODE, **errs}}, "presses": {"e1": NODE}, "": {"old": NODE}}, ALARM)
    status, text = shown(monkeypatch, fleet)
    assert status == 1
    heads = [line.strip() for line in text.splitlines() if line.strip() in ("pumps", "presses")]
    assert heads == ["presses", "pumps"]
    assert "projects that are not named" in text
    (pumps,) = (line for line in text.splitlines() if "ALARM" in line)
    assert (
        pumps.replace("│", " ").split()
        == "e1 oulu 12% 0% 412 0 6.1 ms ALARM 25% of 60 1970-01-01 00:00:01".split()
    )
    assert "alarm 1 of pumps since 1970-01-01 00:00:02: oil moved at e1" in text


def test_what_a_site_keeps_is_said_to_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {**NODE, "windows": 0, "windows_withheld": 1, "labels_withheld": 1}
    status, text = shown(monkeypatch, Fleet({"pumps": {"e1": few}}))
    assert (status, text.count("few, stay")) == (0, 3)


def test_scripts_get_what_the_cloud_says(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet({"pumps": {"e1": NODE}}, {**ALARM, "by": "anna"})
    status, text = shown(monkeypatch, fleet, "--json")
    assert (status, json.loads(text)) == (0, fleet.told)
