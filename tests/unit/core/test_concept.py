"""The test of Page and Hinkley: silent while errors stay, loud when they rise, and of one memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.concept import PageHinkley, PageHinkleyState, step

ERRORS = st.lists(st.floats(-10, 10), max_size=120)


def alarms(rule: PageHinkley, errors: list[float]) -> list[int]:
    state, found = PageHinkleyState(), []
    for number, error in enumerate(errors):
        state, alarm = step(rule, state, error)
        found += [number] if alarm else []
    return found


@given(st.floats(-1e6, 1e6), st.integers(0, 200))
def test_errors_that_never_change_raise_no_alarm(error: float, times: int) -> None:
    assert alarms(PageHinkley(threshold=1), [error] * times) == []


@given(ERRORS)
def test_errors_that_fall_raise_none_either(errors: list[float]) -> None:
    assert alarms(PageHinkley(threshold=1, delta=0), sorted(errors, reverse=True)) == []


@given(ERRORS, st.floats(0, 5), st.floats(0, 5))
def test_a_higher_threshold_never_speaks_first(errors: list[float], low: float, more: float) -> None:
    early = alarms(PageHinkley(threshold=low), errors)
    late = alarms(PageHinkley(threshold=low + more), errors)
    assert not late or early[0] <= late[0]


def test_a_rise_is_found_soon_and_counting_begins_anew_after_it() -> None:
    chance = np.random.default_rng(1)
    wrong = [*(chance.random(500) < 0.05), *(chance.random(500) < 0.5)]
    found = alarms(PageHinkley(threshold=10, delta=0.05), [float(each) for each in wrong])
    assert len(found) == 1
    assert 500 <= found[0] < 560
    state = PageHinkleyState()
    for _ in range(found[0] + 1):
        state, alarm = step(PageHinkley(threshold=10, delta=0.05), state, float(wrong[_]))
    assert alarm
    assert state == PageHinkleyState()


def test_no_alarm_comes_before_the_least_number_of_errors() -> None:
    errors = [0.0, 100.0, *[100.0] * 30]
    assert alarms(PageHinkley(threshold=1, least=2), errors)[0] == 1
    assert alarms(PageHinkley(threshold=1, least=10), errors)[0] == 9


@pytest.mark.parametrize("error", [math.nan, math.inf, -math.inf])
def test_an_error_that_is_no_number_is_refused(error: float) -> None:
    with pytest.raises(ValueError, match="expected a finite number"):
        step(PageHinkley(threshold=1), PageHinkleyState(), error)


@given(ERRORS, st.sampled_from([1.0, 0.999, 0.9]), st.sampled_from([0.5, 5.0]))
def test_river_raises_the_same_alarms(errors: list[float], memory: float, threshold: float) -> None:
    drift = pytest.importorskip("river.drift")
    theirs = drift.PageHinkley(min_instances=30, delta=0.005, threshold=threshold, alpha=memory, mode="up")
    found = []
    for number, error in enumerate(errors):
        theirs.update(error)
        found += [number] if theirs.drift_detected else []
    assert alarms(PageHinkley(threshold, memory=memory), errors) == found
