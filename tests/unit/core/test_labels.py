"""Errors by labels that came later: counted, an alarm when they have risen, and few false ones."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.labels import FIRST, LEAST, RECENT, RISE, Errors, Rising, judged

RULE = Rising(10_000)
PAIRS = st.lists(st.tuples(st.integers(0, 2).map(float), st.integers(0, 2).map(float)), max_size=200)


def after(pairs: list[tuple[float, float]], classes: bool = True, errors: Errors | None = None) -> Errors:
    found = errors or Errors()
    for answer, label in pairs:
        found = judged(RULE, found, answer, label, classes)
    return found


def classes(count: int, wrong: float, seed: int = 1) -> list[tuple[float, float]]:
    drawn = random.Random(seed)
    return [(1.0, float(drawn.random() >= wrong)) for _ in range(count)]


def numbers(count: int, spread: float, seed: int = 1) -> list[tuple[float, float]]:
    drawn = random.Random(seed)
    return [(5.0, drawn.gauss(5.0, spread)) for _ in range(count)]


@given(PAIRS, st.randoms())
def test_labels_and_wrong_ones_are_counted_in_any_order(
    pairs: list[tuple[float, float]], random_: random.Random
) -> None:
    mixed = list(pairs)
    random_.shuffle(mixed)
    found, other = after(pairs), after(mixed)
    assert (found.labels, found.wrong) == (other.labels, other.wrong)
    assert (found.labels, found.wrong) == (len(pairs), sum(answer != label for answer, label in pairs))
    newest = [float(answer != label) for answer, label in pairs[-RECENT:]]
    assert found.mean == pytest.approx(sum(newest) / max(1, len(newest)))


@given(PAIRS, st.integers(0, 200), st.booleans())
def test_it_goes_on_after_a_restart_as_if_there_had_been_none(
    pairs: list[tuple[float, float]], cut: int, is_class: bool
) -> None:
    first = after(pairs[:cut], is_class)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(first), type=Errors)
    assert after(pairs[cut:], is_class, again) == after(pairs, is_class)


@pytest.mark.parametrize(("before", "later"), [(0.02, 0.4), (0.1, 0.5), (0.0, 1.0)])
def test_a_classifier_that_is_wrong_more_often_is_found(before: float, later: float) -> None:
    calm = after(classes(300, before))
    assert not calm.alarm
    assert calm.level < 1
    risen = after(classes(100, later, seed=2), errors=calm)
    assert risen.alarm
    assert risen.level == 1


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_numbers_that_are_further_off_are_found_in_any_unit(unit: float) -> None:
    calm = after([(a * unit, b * unit) for a, b in numbers(300, 0.1)], classes=False)
    assert (calm.alarm, calm.wrong) == (False, 0)
    risen = after([(a * unit, b * unit) for a, b in numbers(100, 0.3, seed=2)], False, calm)
    assert risen.alarm
    assert risen.mean > 2 * calm.mean


def test_an_alarm_goes_on_until_the_newest_errors_are_what_they_were() -> None:
    risen = after(classes(100, 0.6, seed=2), errors=after(classes(300, 0.05)))
    assert risen.alarm
    assert after(classes(60, 0.6, seed=3), errors=risen).alarm, "also when that has become usual"
    well = after(classes(RECENT, 0.0), errors=risen)
    assert not well.alarm
    assert well.level < 1


def test_the_first_labels_raise_no_alarm() -> None:
    assert not after([(1.0, 1.0)] * 15 + [(1.0, 0.0)] * (LEAST - 16)).alarm
    assert not after(numbers(FIRST, 1.0), classes=False).alarm
    assert after(numbers(FIRST, 1.0), classes=False).state.seen == 0


def test_the_threshold_is_what_hoeffdings_bound_asks_for() -> None:
    test = Rising(10_000).test
    assert (test.delta, test.least, test.memory) == (RISE, LEAST, 1.0)
    assert math.exp(8 * test.delta * test.threshold) == pytest.approx(10_000)


@pytest.mark.parametrize("wrong", [0.02, 0.3, 0.5])
def test_false_alarms_are_rarer_than_is_promised(wrong: float) -> None:
    rule, times = Rising(100), []
    for seed in range(30):
        drawn, errors, count = random.Random(seed), Errors(), 0
        while count < 1000 and not errors.alarm:
            errors, count = judged(rule, errors, 1.0, float(drawn.random() >= wrong), classes=True), count + 1
        times.append(count)
    assert sum(times) / len(times) > 100
