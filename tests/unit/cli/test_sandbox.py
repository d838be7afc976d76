"""`reuna sandbox`: the level, what is missing, and what to do about it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from reuna.adapters import sandbox
from reuna.adapters.sandbox import REMEDIES, Level
from reuna.cli import app

LEVEL = Level(
    1, ("environment", "limits"), {"seccomp": "there is no filter for riscv64"}, "threads run already"
)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "probe", lambda: LEVEL)


def test_the_level_is_shown_with_what_is_missing_and_how_to_get_it() -> None:
    lines = CliRunner().invoke(app, ["sandbox"]).stdout.splitlines()
    assert lines[0] == "level 1 of 3"
    assert lines[1] == "agent: keeps the network: threads run already"
    assert "  has      limits" in lines
    assert lines[-2] == "  missing  seccomp: there is no filter for riscv64"
    assert lines[-1].strip() == REMEDIES["seccomp"]


def test_the_same_for_scripts() -> None:
    told = json.loads(CliRunner().invoke(app, ["sandbox", "--json"]).stdout)
    assert told == {
        "level": 1,
        "highest": 3,
        "layers": ["environment", "limits"],
        "missing": [
            {"layer": "seccomp", "reason": "there is no filter for riscv64", "remedy": REMEDIES["seccomp"]}
        ],
        "agent": {"own_network_namespace": False, "reason": "threads run already"},
    }
