"""Rules for failing sensors: what is held, masked and refused, and that nothing doubtful gets an answer."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.conformity import Columns
from reuna.core.contract import Contract, Signal
from reuna.core.errors import SettingsError
from reuna.core.fallback import (
    CAUSES,
    GAP,
    GOOD,
    HELD,
    MASKED,
    MISSING,
    NO_NUMBER,
    QUALITY,
    RANGE,
    REFUSED,
    STALE,
    Decision,
    Fallback,
    Mended,
    Rule,
    Window,
    as_settings,
    causes,
    decide,
    fallback,
    gaps,
    judge_windows,
    mend,
)
from reuna.core.project import project_settings
from reuna.core.settings import Source
from reuna.learn.strategies import TAKES

NAN = math.nan
SIGNAL = Signal("t", min=0, max=10, quality="q", good=(192.0,))


def mended(values: list[float], rule: Rule, **more: Any) -> Mended:
    """With every NaN missing."""
    column = np.array(values, np.float64)
    return mend(column, np.where(np.isnan(column), MISSING, 0), rule, **more)


@pytest.mark.parametrize(
    ("value", "quality", "cause"),
    [
        (5.0, 192.0, 0),
        (NAN, 192.0, MISSING),
        (NAN, 0.0, MISSING),
        (math.inf, 192.0, NO_NUMBER),
        (-0.1, 192.0, RANGE),
        (10.1, 192.0, RANGE),
        (5.0, 0.0, QUALITY),
        (5.0, NAN, QUALITY),
    ],
)
def test_a_cell_is_good_or_has_a_cause(value: float, quality: float, cause: int) -> None:
    table = Columns(1, {"t": np.array([value]), "q": np.array([quality])})
    assert causes(SIGNAL, table).tolist() == [cause]


@pytest.mark.parametrize(
    ("values", "rule", "after", "states"),
    [
        ([1, NAN, 3], Rule("refuse"), [1, 1, 3], [GOOD, REFUSED, GOOD]),
        ([1, NAN, 3], Rule("mask", value=7), [1, 7, 3], [GOOD, MASKED, GOOD]),
        ([NAN, 3], Rule("mask", value=7), [7, 3], [MASKED, GOOD]),
        ([1, NAN, NAN, 3], Rule("hold", hold_rows=2), [1, 1, 1, 3], [GOOD, HELD, HELD, GOOD]),
        ([1, NAN, NAN, 3], Rule("hold", hold_rows=1), [1, 1, 1, 3], [GOOD, HELD, REFUSED, GOOD]),
        ([1, NAN], Rule("hold", hold_rows=0), [1, 1], [GOOD, REFUSED]),
        ([NAN, NAN, 3], Rule("hold", hold_rows=9), [0, 0, 3], [REFUSED, REFUSED, GOOD]),
        ([], Rule("hold"), [], []),
    ],
)
def test_each_rule_does_what_it_says(
    values: list[float], rule: Rule, after: list[float], states: list[int]
) -> None:
    found = mended(values, rule)
    assert found.values.tolist() == after
    assert found.states.tolist() == states


def test_a_held_value_goes_stale_with_time_and_the_refusal_says_so() -> None:
    times = np.array([0.0, 10.0, 20.0, 30.0])
    found = mended([1, NAN, NAN, NAN], Rule("hold", hold_rows=9), times=times, max_gap_s=15.0)
    assert found.states.tolist() == [GOOD, HELD, REFUSED, REFUSED]
    assert found.causes.tolist() == [0, MISSING, STALE, STALE]
    unknown = mended([1, NAN], Rule("hold"), times=np.array([0.0, NAN]), max_gap_s=15.0)
    assert unknown.states.tolist() == [GOOD, REFUSED]
    before = mended([NAN, 1], Rule("hold"))
    assert before.causes.tolist() == [MISSING, 0]


CELLS = st.lists(st.floats(-100, 100) | st.just(NAN), max_size=30)
ANY_RULE = st.builds(Rule, st.sampled_from(["hold", "mask", "refuse"]), st.integers(0, 5), st.floats(-5, 5))


@given(CELLS, ANY_RULE)
def test_good_cells_stay_as_they_are_and_no_row_is_left_without_a_number(
    values: list[float], rule: Rule
) -> None:
    column, found = np.array(values, np.float64), mended(values, rule)
    good = ~np.isnan(column)
    assert (found.values[good] == column[good]).all()
    assert (found.states[good] == GOOD).all()
    assert (found.states[~good] != GOOD).all()
    assert np.isfinite(found.values).all()


@given(CELLS, st.integers(0, 5), st.integers(0, 5))
def test_whoever_holds_longer_refuses_no_more(values: list[float], rows: int, more: int) -> None:
    short, long = (mended(values, Rule("hold", hold_rows=each)) for each in (rows, rows + more))
    assert (long.states <= short.states).all()
    assert (short.values == long.values).all()


@given(CELLS, ANY_RULE, st.integers(0, 30))
def test_what_comes_later_changes_nothing_before_it(values: list[float], rule: Rule, cut: int) -> None:
    whole, part = mended(values, rule), mended(values[:cut], rule)
    for name in ("values", "states", "causes"):
        assert getattr(whole, name)[:cut].tolist() == getattr(part, name).tolist()


TIMED = Contract(time="s", signals=(Signal("t", max_gap_s=10),))


@pytest.mark.parametrize(
    ("times", "found"),
    [
        ([0, 10, 20], [False, False, False]),
        ([0, 10, 21], [False, False, True]),
        ([0, 5, 4], [False, False, True]),
        ([0, NAN, 5], [False, True, True]),
        ([], []),
    ],
)
def test_a_row_after_a_gap_in_time_is_known(times: list[float], found: list[bool]) -> None:
    table = Columns(len(times), {"s": np.array(times, np.float64)})
    assert gaps(TIMED, table).tolist() == found
    assert not gaps(Contract(time="s"), table).any()
    assert not gaps(msgspec.structs.replace(TIMED, time=""), table).any()


def windows(states: list[int], jumps: list[bool], length: int, step: int) -> list[Window]:
    codes = np.array(states, np.int8)
    column = Mended(np.zeros(len(states)), codes, np.where(codes > 0, MISSING, 0).astype(np.int8))
    return judge_windows({"t": column}, np.array(jumps, bool), length, step)


def test_a_window_is_as_bad_as_its_worst_row() -> None:
    found = windows([0, 1, 0, 3, 0, 2], [False] * 6, 2, 2)
    assert found == [
        Window("mended", "t: missing"),
        Window("refused", "t: missing"),
        Window("mended", "t: missing"),
    ]
    assert windows([0] * 5, [False] * 5, 2, 2) == [Window("good")] * 2
    assert windows([0], [False], 2, 1) == []


def test_a_window_over_a_gap_is_refused_and_one_that_begins_after_it_is_not() -> None:
    found = windows([0] * 4, [False, False, True, False], 2, 1)
    assert [each.state for each in found] == ["good", "refused", "good"]
    assert found[1].why == CAUSES[GAP]


@given(CELLS.filter(bool), ANY_RULE, st.integers(1, 6), st.integers(1, 6))
def test_no_window_with_a_refused_row_is_let_through(
    values: list[float], rule: Rule, length: int, step: int
) -> None:
    column = mended(values, rule)
    found = judge_windows({"t": column}, np.zeros(len(values), bool), length, step)
    for place, each in enumerate(found):
        worst = column.states[place * step : place * step + length].max()
        expected = {GOOD: "good", HELD: "mended", MASKED: "mended", REFUSED: "refused"}[int(worst)]
        assert each.state == expected


@pytest.mark.parametrize(
    ("output", "refused", "least", "decision"),
    [
        ([0.2, 0.8], "", 0.0, Decision(1.0)),
        ([4.5], "", 0.9, Decision(4.5)),
        ([0.2, 0.8], "t: missing", 0.0, Decision(-1.0, "t: missing")),
        ([0.2, 0.8], "", 0.9, Decision(-1.0, "confidence 0.8 is below 0.9")),
        ([NAN, 0.8], "", 0.0, Decision(-1.0, "the model's output is no finite number")),
        ([], "", 0.0, Decision(-1.0, "the model's output is no finite number")),
        ([-3.0, 9.0], "", 0.0, Decision(1.0)),
        ([-3.0, 4.0], "", 0.5, Decision(-1.0, "the model's outputs are no probabilities")),
        ([1.0, 9.0], "", 0.5, Decision(-1.0, "the model's outputs are no probabilities")),
    ],
)
def test_in_doubt_the_safe_answer_is_given(
    output: list[float], refused: str, least: float, decision: Decision
) -> None:
    assert decide(Fallback(safe=-1.0, min_confidence=least), output, refused) == decision


@given(st.lists(st.floats(), max_size=4), st.floats(0, 1), st.sampled_from(["", "t: missing"]))
def test_an_answer_that_is_not_safe_is_a_number_and_without_one_there_is_none(
    output: list[float], least: float, refused: str
) -> None:
    found = decide(Fallback(min_confidence=least), output, refused)
    assert (found.answer is None) == bool(found.why)
    assert found.answer is None or math.isfinite(found.answer)
    assert not refused or found.why == refused


def declared(**said: Any) -> Fallback:
    values = {
        "project": {"name": "p"},
        "signals": {"t": {}, "mode": {"type": "text"}},
        "fallback": said,
    }
    return fallback(project_settings([Source("reuna.toml", values)], TAKES).settings)


def test_declared_rules_travel_among_the_settings() -> None:
    signals = {"t": {"rule": "mask", "value": 4.0}}
    found = declared(rule="hold", hold_rows=2, safe=0.0, min_confidence=0.5, signals=signals)
    assert found == Fallback("hold", 2, {"t": Rule("mask", value=4.0)}, 0.0, 0.5)
    assert found.of("t").rule == "mask"
    assert found.of("u") == Rule("hold", 2)
    assert declared() == Fallback()
    assert as_settings(Fallback()) == {}, "a project without rules has the settings that it had"


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"rule": "mask"}, "fallback.rule is 'mask', must be one of hold, refuse"),
        ({"safe": NAN}, "must be a finite number"),
        ({"signals": {"t": {}}}, "fallback.signals.t has no rule"),
        ({"signals": {"t": {"rule": "mask"}}}, 'needs both rule "mask" and value'),
        ({"signals": {"t": {"rule": "hold", "value": 1.0}}}, 'needs both rule "mask" and value'),
        ({"signals": {"t": {"rule": "refuse", "hold_rows": 1}}}, "has hold_rows, but its rule is refuse"),
        ({"signals": {"x": {"rule": "hold"}}}, "fallback.signals.x is no signal of the contract"),
        ({"signals": {"mode": {"rule": "hold"}}}, "fallback.signals.mode is text"),
    ],
)
def test_rules_that_mean_nothing_are_refused_by_name(said: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingsError) as raised:
        declared(**said)
    assert complaint in raised.value.message


def test_a_text_that_is_no_rules_of_ours_is_refused() -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        fallback({"fallback": '{"rule": "guess"}'})


@pytest.mark.parametrize("hold", [0, 1, 3])
def test_whether_a_value_is_stale_needs_no_more_of_the_past_than_the_rule_looks_back_on(hold: int) -> None:
    column = np.array([NAN] * 4 + [5.0] + [NAN] * 6 + [7.0, NAN])
    whole = mended(column.tolist(), Rule("hold", hold_rows=hold))
    for first in range(len(column)):
        cut = mended(column[max(0, first - hold) :].tolist(), Rule("hold", hold_rows=hold))
        before = min(first, hold)
        assert cut.states[before:].tolist() == whole.states[first:].tolist()
        assert cut.causes[before:].tolist() == whole.causes[first:].tolist()
        usable = whole.states[first:] != REFUSED
        assert cut.values[before:][usable].tolist() == whole.values[first:][usable].tolist()
