"""`reuna sink show`: who a sink is for the policy, and what became of answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reuna.adapters.answer_store import LIVE, AnswerStore
from reuna.cli import app
from reuna.core.errors import NotUsable, SettingsError
from reuna.core.live import Mark
from reuna.core.notices import Book, Found, begun_anew, noticed
from reuna.core.outcomes import Outcome
from reuna.core.sinks import Progress
from reuna.core.sources import NS
from reuna.edge.notices import notices_file
from reuna.edge.sinks import progress_file

DRIFT = Found("inputs", "p", "d", alarm=True, regime="2", signals=("oil",), rows=600)


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


def test_of_a_sink_of_alarms_those_that_wait_are_counted(settings: Path, tmp_path: Path) -> None:
    settings.write_text(settings.read_text() + 'what = "alarms"\n')
    (tmp_path / "sinks").mkdir()
    progress_file(tmp_path, "alarms").write(Progress(0))
    assert "0 waiting" in shown(str(settings), "--state", str(tmp_path))
    notices_file(tmp_path).write(noticed(Book(), DRIFT, 5))
    assert "1 waiting" in shown(str(settings), "--state", str(tmp_path))


def test_at_the_edge_its_own_alarms_are_shown_while_they_go_on(tmp_path: Path) -> None:
    def local(*more: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["watch", "local", str(tmp_path), *more], catch_exceptions=False)
        return done.exit_code, done.stdout

    assert local() == (0, "alarms that go on: 0\n")
    book = noticed(Book(), DRIFT, 1_800_000_000 * NS)
    notices_file(tmp_path).write(book)
    assert local() == (
        1,
        "since 2027-01-15 08:00:00 p: inputs are not what they were in regime 2: oil\nalarms that go on: 1\n",
    )
    notices_file(tmp_path).write(begun_anew(book, "p", 1_800_000_001 * NS))
    status, text = local("--json")
    assert status == 0
    assert [each["state"] for each in json.loads(text)["notices"]] == ["raised", "ended"]


def test_a_folder_that_is_not_there_is_no_quiet_edge(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["watch", "local", str(tmp_path / "none")])
    assert isinstance(found.exception, NotUsable)


def test_a_mistake_is_an_error_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "sinks.toml").write_text('[sinks.a]\nkind = "fax"\n')
    found = CliRunner().invoke(app, ["sink", "show", str(tmp_path / "sinks.toml")])
    assert isinstance(found.exception, SettingsError)
    assert "sinks.toml:2:1: sinks.a.kind is 'fax'" in str(found.exception)
