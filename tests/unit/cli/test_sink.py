"""`reuna sink show`: who a sink is for the policy, and what became of answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reuna.adapters.answer_store import LIVE, AnswerStore
from reuna.cli import app
from reuna.core.errors import SettingsError
from reuna.core.live import Mark
from reuna.core.outcomes import Outcome
from reuna.core.sinks import Progress
from reuna.core.sources import NS
from reuna.edge.sinks import progress_file


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "sinks.toml"
    file.write_text('[sinks.alarms]\nkind = "webhook"\nurl = "https://alarms.plant/in?key=secret"\n')
    return file


def shown(*words: str) -> str:
    done = CliRunner().invoke(app, ["sink", "show", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_sink_is_shown_as_the_policy_has_to_name_it(settings: Path) -> None:
    assert shown(str(settings)) == "alarms  webhook  every  recipient https://alarms.plant/in\n"


def test_with_the_state_it_says_what_became_of_answers(settings: Path, tmp_path: Path) -> None:
    said = Outcome("p", 1, "d", 1, 3, "answered", 1.0, (0.25, 0.75))
    store = AnswerStore(tmp_path / "answers", 30, 16, lambda: 1 << 40)
    store.keep("p", Mark(0, NS, 3, 1), [(LIVE, said)] * 9, 0)
    store.close()
    assert "has not begun" in shown(str(settings), "--state", str(tmp_path))
    (tmp_path / "sinks").mkdir()
    progress_file(tmp_path, "alarms").write(Progress(7, sent=3, refused=1, dropped=2, why="R304 away"))
    text = shown(str(settings), "--state", str(tmp_path))
    assert "3 sent, 2 waiting, 2 dropped, 1 refused\n  R304 away" in text
    (each,) = json.loads(shown(str(settings), "--state", str(tmp_path), "--json"))["sinks"]
    assert (each["recipient"], each["waiting"], each["why"]) == ("https://alarms.plant/in", 2, "R304 away")


def test_a_mistake_is_an_error_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "sinks.toml").write_text('[sinks.a]\nkind = "fax"\n')
    found = CliRunner().invoke(app, ["sink", "show", str(tmp_path / "sinks.toml")])
    assert isinstance(found.exception, SettingsError)
    assert "sinks.toml:2:1: sinks.a.kind is 'fax'" in str(found.exception)
