"""`reuna labels`: what labels that came later say of each release."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reuna.adapters.label_store import LabelStore
from reuna.cli import app
from reuna.core.errors import NotUsable
from reuna.core.labels import Errors, Label


@pytest.fixture
def state(tmp_path: Path) -> Path:
    store = LabelStore(tmp_path / "labels", free=lambda: 1 << 40)
    old = Errors(labels=200, wrong=90, recent=(1.0, 0.0), level=1.0, alarm=True)
    store.take("lab", "pumps", [Label(1, 1, 0.0), Label(2, 2, 1.0)], 1, {"a" * 64: old})
    store.take("lab", "pumps", [], 0, {"b" * 64: Errors(labels=12, recent=(0.25, 0.5), level=0.125)})
    store.close()
    return tmp_path


def test_each_source_and_each_release_has_a_line(state: Path) -> None:
    done = CliRunner().invoke(app, ["labels", str(state)], catch_exceptions=False)
    assert done.stdout.splitlines() == [
        "lab: 2 labels, 1 of them of no answer",
        "pumps aaaaaaaaaaaa: 200 labels, 90 of another class; error of the newest 0.5; ALARM, errors have risen",
        "pumps bbbbbbbbbbbb: 12 labels; error of the newest 0.375; 12% of an alarm",
    ]
    assert done.exit_code == 0, "the newest release is well"


def test_scripts_get_json_and_status_one_while_the_errors_of_the_newest_release_have_risen(
    state: Path,
) -> None:
    store = LabelStore(state / "labels", free=lambda: 1 << 40)
    store.take("lab", "presses", [], 0, {"c" * 64: Errors(labels=60, wrong=30, alarm=True, level=1.0)})
    store.close()
    done = CliRunner().invoke(app, ["labels", str(state / "labels"), "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert found["sources"] == {"lab": {"taken": 2, "of_no_answer": 1}}
    assert found["projects"]["presses"]["c" * 64] == {
        "labels": 60, "wrong": 30, "error": 0.0, "level": 1.0, "alarm": True,
    }  # fmt: skip
    assert done.exit_code == 1


def test_a_folder_without_labels_is_an_error_that_says_where_to_read(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["labels", str(tmp_path)])
    assert isinstance(found.exception, NotUsable)
    assert "monitor.md" in found.exception.next_step
