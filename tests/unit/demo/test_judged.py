"""What edges answered, held against what the plants did."""

from __future__ import annotations

from pathlib import Path

import pytest

from reuna.adapters.answer_store import LIVE, SHADOW, AnswerStore
from reuna.core.live import Mark
from reuna.core.outcomes import Outcome
from reuna.demo.judged import CLASSES, between, judged, share
from reuna.edge.answering import ANSWERS

SECOND = 10**9
SPEED = 180.0  # a row a second


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Of an edge whose plant was normal for 10 rows and then had fault 2 for 10."""
    (tmp_path / "truth.csv").write_text(
        "".join(f"{at * SECOND},{0 if at < 10 else 1},{0 if at < 10 else 2}\n" for at in range(20))
    )
    two = CLASSES.index(2)
    answers = [
        (LIVE, outcome(1, 0, 4, 0)),
        (LIVE, outcome(1, 8, 12, 0)),  # over the change: neither
        (LIVE, outcome(1, 12, 16, 0)),
        (SHADOW, outcome(2, 12, 16, two)),
        (LIVE, outcome(2, 13, 17, two)),
        (LIVE, outcome(2, 14, 18, None)),
        (LIVE, outcome(2, 40, 44, two)),  # of which nothing is known
    ]
    store = AnswerStore(tmp_path / ANSWERS, 1.0, 16)
    store.keep("plants", Mark(0, SECOND, 5, 1), answers, SECOND)
    store.close()
    return tmp_path


def outcome(version: int, first: int, last: int, answer: int | None) -> Outcome:
    said = None if answer is None else float(answer)
    state = "safe" if answer is None else "answered"
    return Outcome("plants", version, "0" * 64, first * SECOND, last * SECOND, state, said)  # type: ignore[arg-type]


def test_windows_of_one_state_are_judged_and_others_left_out(state: Path) -> None:
    found = judged(state, state / "truth.csv", SPEED)
    assert [(each.version, each.fault, each.right) for each in found] == [
        (1, 0, True),
        (1, 2, False),
        (2, 2, True),
        (2, 2, False),
    ]
    assert share(between(found, 0, 100, 1)) == 0.5
    assert share(between(found, 17, 18, 2)) == 1.0
    assert share([]) is None


def test_an_edge_that_has_not_answered_yet_has_no_windows(tmp_path: Path) -> None:
    assert judged(tmp_path, tmp_path / "truth.csv", SPEED) == []
