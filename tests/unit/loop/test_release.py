"""A model is released when every gate holds at every site; the worst site decides."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import SettingsError
from reuna.core.gates import LIMITS, Gate, gates
from reuna.core.project import project_settings
from reuna.core.settings import Source
from reuna.learn.strategies import TAKES
from reuna.loop.release import FIRST, NEW_SITE, SILENT, decision, judge, worst

GOOD = {"all": 0.95, "false_alarms": 0.01}
SITES = {"north": GOOD, "south": {"all": 0.80, "false_alarms": 0.02}}
METRICS = ("all", "false_alarms", "rmse")
values = st.floats(0, 1)
scores = st.dictionaries(st.sampled_from(METRICS), values)
sites = st.dictionaries(st.sampled_from(["a", "b", "c"]), scores)
gate = st.builds(Gate, st.sampled_from(METRICS), st.sampled_from(LIMITS), values)


def test_one_site_below_a_minimum_stops_the_model_and_is_named() -> None:
    verdicts = judge([Gate("all", "min", 0.9)], SITES)
    assert [(each.site, each.outcome) for each in verdicts] == [("north", "pass"), ("south", "fail")]
    assert decision(verdicts) == "fail"
    found = worst(verdicts)
    assert found is not None
    assert (found.site, found.value, found.margin) == ("south", 0.80, pytest.approx(-0.1))


def test_a_good_mean_does_not_hide_a_bad_site() -> None:
    many = {f"site-{number}": GOOD for number in range(99)} | {"bad": {"all": 0.2}}
    assert decision(judge([Gate("all", "min", 0.9)], many)) == "fail"


def test_a_maximum_holds_for_what_is_better_when_it_is_less() -> None:
    assert decision(judge([Gate("false_alarms", "max", 0.02)], SITES)) == "pass"
    assert decision(judge([Gate("false_alarms", "max", 0.015)], SITES)) == "fail"


@pytest.mark.parametrize(("metric", "before", "after"), [("all", 0.9, 0.88), ("rmse", 0.88, 0.9)])
def test_a_drop_is_counted_in_the_direction_that_is_worse(metric: str, before: float, after: float) -> None:
    new, old = {"north": {metric: after}}, {"north": {metric: before}}
    assert decision(judge([Gate(metric, "max_drop", 0.02)], new, old)) == "pass"
    assert decision(judge([Gate(metric, "max_drop", 0.019)], new, old)) == "fail"
    assert decision(judge([Gate(metric, "max_drop", 0.0)], old, new)) == "pass", "better is no drop"


def test_a_drop_is_held_against_the_same_site() -> None:
    champion = {"north": {"all": 0.95}, "south": {"all": 0.95}}
    (north, south) = judge([Gate("all", "max_drop", 0.02)], SITES, champion)
    assert (north.outcome, south.outcome, south.value) == ("pass", "fail", pytest.approx(0.15))


def test_without_a_champion_or_at_a_new_site_nothing_can_have_dropped() -> None:
    drop = Gate("all", "max_drop", 0.02)
    assert {each.why for each in judge([drop], SITES)} == {FIRST}
    found = judge([drop], SITES, {"north": GOOD})
    assert [(each.outcome, each.why) for each in found] == [("pass", ""), ("pass", NEW_SITE)]


def test_a_spread_names_the_site_that_is_far_behind_the_best() -> None:
    verdicts = judge([Gate("all", "max_spread", 0.1)], SITES)
    assert [(each.site, each.outcome) for each in verdicts] == [("north", "pass"), ("south", "fail")]
    assert judge([Gate("false_alarms", "max_spread", 0.01)], SITES)[1].value == pytest.approx(0.01)


@pytest.mark.parametrize("limit", LIMITS)
def test_a_site_that_gave_nothing_leaves_the_gate_open(limit: str) -> None:
    (found,) = judge(gates({"all": {limit: 0.1}}), {"north": {}}, {"north": GOOD})
    assert (found.outcome, found.why) == ("open", SILENT)
    assert decision([found]) == "open"


def test_a_metric_that_is_not_reported_is_open_and_said() -> None:
    (found,) = judge([Gate("ece", "max", 0.1)], {"north": GOOD})
    assert (found.outcome, found.why) == ("open", "no ece was reported")


def test_nothing_judged_is_not_passed() -> None:
    assert decision([]) == "open"
    assert worst([]) is None


def test_a_failure_weighs_more_than_what_is_open() -> None:
    verdicts = judge([Gate("all", "min", 0.9)], {**SITES, "east": {}})
    found = worst(verdicts)
    assert (decision(verdicts), found and found.site) == ("fail", "south")


@given(st.lists(gate), sites, st.none() | sites)
def test_the_decision_is_that_of_the_worst_verdict(
    found: list[Gate], at: dict[str, Any], champion: dict[str, Any] | None
) -> None:
    verdicts = judge(found, at, champion)
    last = worst(verdicts)
    assert decision(verdicts) == (last.outcome if last else "open")
    assert len(verdicts) == len(found) * len(at)


@given(gate, sites, st.none() | sites, st.floats(0, 1))
def test_a_wider_bound_never_fails_what_passed(
    one: Gate, at: dict[str, Any], champion: dict[str, Any] | None, more: float
) -> None:
    wider = Gate(one.metric, one.limit, one.bound - more if one.limit == "min" else one.bound + more)
    before, after = decision(judge([one], at, champion)), decision(judge([wider], at, champion))
    assert before != "pass" or after == "pass"


@given(st.lists(gate), sites, st.none() | sites, gate)
def test_one_gate_more_never_releases_what_was_stopped(
    found: list[Gate], at: dict[str, Any], champion: dict[str, Any] | None, more: Gate
) -> None:
    if found and decision(judge(found, at, champion)) != "pass":
        assert decision(judge([*found, more], at, champion)) != "pass"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"all": 0.9}, "expected a table"),
        ({"all": {}}, "gates.all is empty, expected some of min"),
        ({"all": {"mim": 0.9}}, "gates.all.mim is not a setting; did you mean min?"),
        ({"all": {"min": "0.9"}}, "expected a number"),
        ({"all": {"min": True}}, "expected a number"),
        ({"all": {"min": float("nan")}}, "must be a finite number"),
        ({"all": {"max_drop": -0.1}}, "must be 0 or more"),
        ({"all": {"max_spread": -0.1}}, "must be 0 or more"),
        ({"all": {"min": 0.9, "max": 0.8}}, "above max"),
    ],
)
def test_a_mistake_in_the_table_is_named(table: dict[str, Any], said: str) -> None:
    def read(gates: dict[str, Any]) -> Any:
        return project_settings([Source("reuna.toml", {"project": {"name": "p"}, "gates": gates})], TAKES)

    with pytest.raises(SettingsError) as told:
        read(table)
    assert said in told.value.message
    read({"all": {"min": 0.8, "max": 0.9, "max_drop": 0, "max_spread": 1}})
