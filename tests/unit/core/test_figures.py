"""What a place may say of itself, and nothing else."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from reuna.core.errors import BadMessage
from reuna.core.figures import BOUNDS, LONGEST, MOST, SERIES, Answered, Figure, Worked, judged
from reuna.core.outcomes import STATES, Outcome

ONE = Outcome("pumps", 3, "0" * 64, 0, 10, "answered", 1.0, (0.2, 0.8), took_ms=4.0)
TIMES = (0,) * (len(BOUNDS) + 1)


def test_what_is_in_the_list_is_told() -> None:
    told = [
        Figure("reuna_store_bytes", 1.0),
        Figure("reuna_live_seconds", 0.5, ("pumps",), TIMES),
        Figure("reuna_source_up", 0.0, ("press",)),
    ]
    assert judged(told) == told


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (Figure("reuna_readings", 1.0), "no series 'reuna_readings'"),
        (Figure("reuna_store_bytes", 1.0, ("press",)), "told with 1"),
        (Figure("reuna_source_up", 1.0), "told with 0"),
        (Figure("reuna_source_up", 1.0, ("x" * (LONGEST + 1),)), "longer than 200"),
        (Figure("reuna_store_bytes", math.nan), "told as nan"),
        (Figure("reuna_left_total", -1.0, ("log",)), "told as -1"),
        (Figure("reuna_live_seconds", 0.5, ("pumps",), TIMES[1:]), "12 buckets"),
        (Figure("reuna_live_seconds", 0.5, ("pumps",), (*TIMES[1:], -1)), "13 buckets"),
        (Figure("reuna_store_bytes", 1.0, (), (1,)), "1 buckets"),
    ],
)
def test_what_is_not_in_the_list_is_refused(wrong: Figure, why: str) -> None:
    with pytest.raises(BadMessage, match=why):
        judged([Figure("reuna_edges", 1.0), wrong])


def test_no_process_tells_more_than_there_is_room_for() -> None:
    many = [Figure("reuna_source_up", 1.0, (str(number),)) for number in range(MOST + 1)]
    assert len(judged(many[1:])) == MOST
    with pytest.raises(BadMessage, match="more than 2000"):
        judged(many)


def test_of_a_series_that_is_told_twice_the_later_counts() -> None:
    told = [Figure("reuna_edges", 1.0), Figure("reuna_edges", 2.0)]
    assert judged(told) == told[1:]


def test_names_are_as_prometheus_asks_for() -> None:
    for each in SERIES.values():
        assert each.name.endswith("_total") == (each.kind == "counter")
        assert "node" not in each.labels
        assert not each.name.endswith("_ms")


def test_every_state_of_a_window_is_there_once_one_was_answered() -> None:
    answered = Answered()
    assert answered.figures() == []
    answered.count([ONE, ONE, msgspec.structs.replace(ONE, state="safe", took_ms=9000.0)])
    *states, times = answered.figures()
    assert {each.labels[1]: each.value for each in states} == {"answered": 2, "mended": 0, "safe": 1}
    assert times.value == pytest.approx(9.008)
    assert times.buckets[BOUNDS.index(0.005)] == 2
    assert times.buckets[-1] == 1


@given(some.lists(some.tuples(some.sampled_from(STATES), some.floats(0, 1e5)), max_size=30))
def test_buckets_and_states_count_the_same_windows(windows: list[tuple[str, float]]) -> None:
    answered = Answered()
    answered.count(msgspec.structs.replace(ONE, state=state, took_ms=took) for state, took in windows)
    figures = judged(answered.figures())
    assert sum(each.value for each in figures if each.name == "reuna_live_windows_total") == len(windows)
    assert sum(sum(each.buckets) for each in figures) == len(windows)


def test_rounds_are_counted_by_task() -> None:
    worked = Worked()
    for task, seconds in (("train", 2.0), ("train", 3.0), ("evaluate", 1.0)):
        worked.count(task, seconds)
    assert judged(worked.figures()) == [
        Figure("reuna_rounds_total", 2, ("train",)),
        Figure("reuna_rounds_total", 1, ("evaluate",)),
        Figure("reuna_round_seconds_total", 5.0, ("train",)),
        Figure("reuna_round_seconds_total", 1.0, ("evaluate",)),
    ]
