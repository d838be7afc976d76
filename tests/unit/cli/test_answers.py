"""``reuna answers``: what was answered, for people and for scripts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from reuna.adapters.answer_store import LIVE, SHADOW, AnswerStore
from reuna.cli import app
from reuna.core.errors import NotUsable
from reuna.core.live import Mark
from reuna.core.outcomes import Outcome, Second, State
from reuna.core.sources import NS

AT = 1_800_000_000 * NS


def outcome(number: int, state: State = "answered", why: str = "", took: float = 4.0) -> Outcome:
    safe = state == "safe"
    output = () if safe else (0.25, 0.75)
    return Outcome(
        "pumps",
        3,
        "d",
        AT,
        AT + number * NS,
        state,
        0.0 if safe else 1.0,
        output,
        why,
        took,
        2.0,
        0.5,
    )


@pytest.fixture
def store(tmp_path: Path) -> AnswerStore:
    made = AnswerStore(tmp_path / "answers", 30.0, 16, lambda: 1 << 40)
    some = [(LIVE, outcome(1)), (SHADOW, outcome(1)), (LIVE, outcome(2, "mended", "flow: missing", 6.0))]
    made.keep(
        "pumps",
        Mark(AT, NS, 1, 1, 3, passed=7),
        [*some, (LIVE, outcome(3, "safe", "\x1b[31mflow: stale"))],
        AT,
    )
    return made


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["answers", *words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_windows_states_and_latency_are_shown(store: AnswerStore, tmp_path: Path) -> None:
    said = run(str(tmp_path))
    assert "2027-01-15 08:00:02.000Z   pumps 3" in said
    assert "pumps 3 (shadow)" in said
    assert "0.750" in said
    assert "of the last 4: 1 answered, 1 mended, 1 safe" in said
    assert "took: p50 4.00 ms" in said
    assert "pumps: 7 windows had no reading and no answer" in said
    assert "\x1b" not in said
    assert run(str(tmp_path / "answers")) == said
    assert "of the last 1: 1 safe" in run(str(tmp_path), "--last", "1")
    store.close()


def test_scripts_get_json(store: AnswerStore, tmp_path: Path) -> None:
    found = json.loads(run(str(tmp_path), "--json"))
    assert [(each["role"], each["state"], each["confidence"]) for each in found["answers"]] == [
        ("live", "answered", 0.75),
        ("shadow", "answered", 0.75),
        ("live", "mended", 0.75),
        ("live", "safe", None),
    ]
    assert found["counts"]["states"] == {"answered": 1, "mended": 1, "safe": 1}
    assert found["counts"]["graph_ms"]["p99"] == 0.5
    assert found["projects"] == {"pumps": {"next_ns": AT + 3 * NS, "passed": 7}}
    store.close()


def test_answers_say_where_they_were_decided_and_what_the_fog_did(store: AnswerStore, tmp_path: Path) -> None:
    by_fog = msgspec.structs.replace(
        outcome(4, why="unsure: confidence 0.6 is below 0.8"),
        fog=Second("answered", "pumps-big", 7, "e", 0.0),
    )
    alone = msgspec.structs.replace(outcome(5), fog=Second("away", "pumps-big", own=1.0))
    store.keep("pumps", Mark(AT, NS, 1, 1, 6), [(LIVE, by_fog), (LIVE, alone)], AT)
    said = run(str(tmp_path))
    assert "pumps-big 7" in said
    assert "asked the fog: 1 answered, 1 away" in said
    found = json.loads(run(str(tmp_path), "--json"))
    assert [each["place"] for each in found["answers"]] == ["edge"] * 4 + ["fog", "edge"]
    assert found["answers"][4]["fog"] == {
        "word": "answered", "project": "pumps-big", "version": 7, "release": "e", "own": 0.0,
    }  # fmt: skip
    assert (found["counts"]["places"], found["counts"]["fog"]) == (
        {"edge": 4, "fog": 1},
        {"answered": 1, "away": 1},
    )
    store.close()


def test_new_answers_follow_a_line_each(store: AnswerStore, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "reuna.cli",
        "answers",
        str(tmp_path),
        "--last",
        "1",
        "--follow",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as following:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["number"] == 4
        store.keep("pumps", Mark(AT, NS, 1, 1, 4), [(LIVE, outcome(4)), (LIVE, outcome(5))], AT)
        assert [json.loads(following.stdout.readline())["number"] for _ in range(2)] == [5, 6]
        following.send_signal(signal.SIGINT)
        following.wait(20)
    store.close()


def test_a_folder_without_answers_is_said(tmp_path: Path) -> None:
    assert isinstance(CliRunner().invoke(app, ["answers", str(tmp_path)]).exception, NotUsable)
