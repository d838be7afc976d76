"""What may leave: each guard refuses what it is for, and what is allowed is allowed."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime

import msgspec
import pytest

from reuna.trust.decide import decide, decide_reading
from reuna.trust.policy import Budget, Code, CodeEntry, FlowRule, Limits, Policy, Validity, Window
from reuna.trust.requests import (
    REASONS,
    ROUNDS_KEPT,
    Allow,
    Deny,
    Reading,
    Request,
    State,
    Verdict,
    Wait,
    spend,
)
from tests.unit.trust.site import CLOUD, CODE, FOG, IN_FORCE, NOW, metric, policy
from tests.unit.trust.site import update as asked

DAY = 86_400


def update(**other: object) -> Request:
    """A model update that the policy allows, where the fleet has a signed roster."""
    return asked(**{"organisations": 5, **other})


MIDNIGHT = NOW + DAY / 2


def without(field: str, value: object, rule: int = 0) -> Policy:
    """The policy whose rule has no guard in one field."""
    flows = list(policy().flows)
    flows[rule] = msgspec.structs.replace(flows[rule], **{field: value})
    return policy(flows=tuple(flows))


def tensors(**other: object) -> Policy:
    return without("tensors", msgspec.structs.replace(policy().flows[0].tensors, **other))


def reason(verdict: Verdict) -> str:
    assert isinstance(verdict, Deny)
    return verdict.reason


def test_what_the_policy_allows_may_leave_under_the_rule_that_is_named() -> None:
    assert decide(policy(), IN_FORCE, update()) == Allow("flows[1] model_update")
    assert decide(policy(), IN_FORCE, metric()) == Allow("flows[2] metric")
    assert decide(policy(), IN_FORCE, metric(to=FOG)) == Allow("flows[2] metric")


#: A request that is refused, why, and the policy without the guard, which lets it leave.
GUARDS = [
    (update(to=CLOUD), "recipient", without("to", ("fog", "cloud"))),
    (update(protection="split"), "protection", without("protection", "clear")),
    (update(cohort=4), "cohort", without("min_cohort", 0)),
    (update(organisations=None), "roster", without("min_cohort", 0)),
    (update(samples=1999), "samples", without("min_samples", 0)),
    (update(local_steps=9), "steps", without("min_local_steps", 0)),
    (update(schema="cd" * 32), "schema", tensors(schema="")),
    (update(schema=""), "schema", tensors(schema="")),
    (update(dtype="float16"), "dtype", tensors(dtypes=None)),
    (update(params=2_000_001), "params", tensors(max_params=None)),
    (update(params=None), "params", tensors(max_params=None)),
    (update(norm=1.01), "norm", tensors(max_norm=None)),
    (update(norm=None), "norm", tensors(max_norm=None)),
    (update(epsilon=None), "dp", without("dp", None)),
    (update(epsilon_unit="row"), "dp", without("dp", None)),
    (update(delta=1e-5), "dp", without("dp", None)),
    (update(delta=None), "dp", without("dp", None)),
    (update(epsilon=0.21), "epsilon", without("dp", Budget("asset-day", 4.0, 1.0, 1e-6))),
    (metric(metrics=("loss", "row_17")), "names", without("names", ("*",), 1)),
    (metric(values=33), "values", without("max_values_per_round", None, 1)),
    (metric(cell=9), "cell", without("min_cell", 0, 1)),
    (metric(cell=None), "cell", without("min_cell", 0, 1)),
    (Request("log", FOG, 10, NOW), "recipient", without("to", ("fog",), 2)),
    (Request("statistic", FOG, 10, NOW), "kind", policy(flows=(FlowRule("statistic", ("fog",)),))),
    (update(code="cd" * 32), "code-ask", policy(code=Code((CodeEntry("cd" * 32, (), date(2026, 11, 25)),)))),
    (update(sandbox=2), "sandbox", policy(code=Code(policy().code.allow))),
    (metric(bytes=1_000_001), "size", policy(limits=Limits())),
]


@pytest.mark.parametrize(("request_", "why", "unguarded"), GUARDS)
def test_each_guard_refuses_what_would_leave_without_it(
    request_: Request, why: str, unguarded: Policy
) -> None:
    verdict = decide(policy(), IN_FORCE, request_)
    assert reason(verdict) == why
    assert isinstance(decide(unguarded, IN_FORCE, request_), Allow)


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (State(), "no-policy"),
        (State(valid=True, stopped=True), "stopped"),
        (State(valid=True, epsilon={"asset-day": 3.9}), "budget"),
    ],
)
def test_each_condition_of_the_site_stops_an_update(state: State, why: str) -> None:
    assert reason(decide(policy(), state, update())) == why


def test_why_no_policy_is_in_force_is_passed_on() -> None:
    verdict = decide(policy(), State(why="signed by 1 of 2"), update())
    assert isinstance(verdict, Deny)
    assert verdict.why == "signed by 1 of 2"


@pytest.mark.parametrize(
    ("now", "why"), [(NOW - 30 * DAY, "early"), (NOW + 90 * DAY, "expired"), (float("nan"), "malformed")]
)
def test_outside_of_its_days_a_policy_allows_nothing(now: float, why: str) -> None:
    assert reason(decide(policy(limits=Limits()), IN_FORCE, metric(now=now))) == why


def test_a_policy_holds_to_the_last_second_of_its_last_day() -> None:
    today = policy(valid=Validity(date(2026, 11, 25), date(2026, 11, 25)), limits=Limits())
    assert isinstance(decide(today, IN_FORCE, metric(now=MIDNIGHT - 0.001)), Allow)
    assert reason(decide(today, IN_FORCE, metric(now=MIDNIGHT))) == "expired"
    assert reason(decide(today, IN_FORCE, metric(now=MIDNIGHT - DAY - 0.001))) == "early"


def test_rows_never_leave_even_where_a_policy_says_so() -> None:
    evil = policy(flows=(FlowRule("raw", ("fog",)),))
    assert reason(decide(evil, IN_FORCE, Request("raw", FOG, 1, NOW))) == "raw"


@pytest.mark.parametrize(
    "request_",
    [
        metric(bytes=-1),
        metric(values=-1),
        metric(cell=-5),
        update(norm=float("nan")),
        update(norm=float("inf")),
        update(epsilon=-1.0),
        update(params=10**400),
        update(protection="none"),
    ],
)
def test_a_number_that_cannot_be_is_refused(request_: Request) -> None:
    assert reason(decide(policy(), IN_FORCE, request_)) == "malformed"


def test_an_unknown_kind_is_refused() -> None:
    assert reason(decide(policy(), IN_FORCE, Request("rows", FOG, 1, NOW))) == "kind"


def test_code_is_refused_after_the_last_day_of_its_approval() -> None:
    late = policy(limits=Limits())
    assert isinstance(decide(late, IN_FORCE, update(now=NOW + 36 * DAY)), Allow)
    verdict = decide(late, IN_FORCE, update(now=NOW + 37 * DAY))
    assert verdict == Deny(
        "code-expired", f"the code {CODE[:12]}… was approved to the end of 2026-12-31 UTC", "code.allow[1]"
    )


def test_unknown_code_is_refused_or_asked_for_as_the_policy_says() -> None:
    assert reason(decide(policy(), IN_FORCE, update(code="ef" * 32))) == "code-ask"
    assert reason(decide(policy(code=Code()), IN_FORCE, update())) == "code"


def test_the_answer_is_of_the_rule_that_came_nearest() -> None:
    flows = (
        FlowRule("metric", ("fog",)),
        FlowRule("metric", ("cloud",), names=("mae",)),
        FlowRule("metric", ("cloud",), min_samples=5, names=("loss",)),
    )
    verdict = decide(policy(flows=flows), IN_FORCE, metric())
    assert verdict == Deny("names", "the metric 'loss' is not on the rule's list", "flows[2] metric")


def test_any_rule_that_allows_is_enough() -> None:
    flows = (FlowRule("metric", ("cloud",), names=()), FlowRule("metric", ("cloud",), names=("loss",)))
    assert decide(policy(flows=flows), IN_FORCE, metric()) == Allow("flows[2] metric")


# --- quotas and hours ----------------------------------------------------------------------------


def test_the_bytes_of_a_day_end_and_come_back_at_midnight() -> None:
    state = spend(IN_FORCE, metric(bytes=999_900))
    verdict = decide(policy(), state, metric())
    assert isinstance(verdict, Wait)
    assert (verdict.until, verdict.reason, verdict.rule) == (MIDNIGHT, "bytes", "limits.bytes_per_day")
    assert isinstance(decide(policy(), state, metric(now=NOW + DAY)), Allow)


def test_the_rounds_of_a_day_end_but_one_that_has_begun_goes_on() -> None:
    state = IN_FORCE
    free = without("dp", None)
    for number in range(24):
        assert isinstance(decide(free, state, update(round=number)), Allow)
        state = spend(state, update(round=number, bytes=1))
    assert isinstance(decide(free, state, update(round=23)), Allow)
    verdict = decide(free, state, update(round=24))
    assert isinstance(verdict, Wait)
    assert (verdict.until, verdict.rule) == (MIDNIGHT, "flows[1] model_update")
    assert isinstance(decide(free, state, update(round=24, now=NOW + DAY)), Allow)


def test_a_rule_of_no_rounds_allows_none_not_even_one_that_has_begun() -> None:
    state = spend(IN_FORCE, update(now=NOW - DAY))
    assert reason(decide(without("max_rounds_per_day", 0), state, update())) == "rounds"


def test_a_clock_that_goes_back_opens_no_quota_again() -> None:
    state = spend(IN_FORCE, metric(bytes=999_900))
    assert isinstance(decide(policy(), state, metric(now=NOW - DAY)), Wait)


def test_numbers_of_one_round_add_up() -> None:
    state = spend(IN_FORCE, metric(values=30))
    assert reason(decide(policy(), state, metric(values=3))) == "values"
    assert isinstance(decide(policy(), state, metric(values=2)), Allow)
    assert isinstance(decide(policy(), state, metric(values=30, round=2)), Allow)


def test_a_request_carries_at_least_as_many_numbers_as_it_names() -> None:
    two = without("max_values_per_round", 1, 1)
    assert reason(decide(two, IN_FORCE, metric(metrics=("loss", "mae"), values=0))) == "values"


def test_twenty_times_a_twentieth_of_the_budget_may_be_spent_and_no_more() -> None:
    state = IN_FORCE
    for number in range(20):
        assert isinstance(decide(policy(), state, update(round=number)), Allow)
        state = spend(state, update(round=number))
    assert reason(decide(policy(), state, update(round=20))) == "budget"


def test_a_spent_budget_may_pause_until_the_policy_ends() -> None:
    patient = without("dp", Budget("asset-day", 4.0, 0.2, 1e-6, "pause"))
    verdict = decide(patient, State(valid=True, epsilon={"asset-day": 4.0}), update())
    assert isinstance(verdict, Wait)
    assert verdict.until == datetime(2027, 2, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("hours", "window", "opens"),
    [
        (0, Window((2,), 12 * 60, 13 * 60), None),
        (1, Window((2,), 12 * 60, 13 * 60), 7 * 24),
        (-1, Window((2,), 12 * 60, 13 * 60), 0),
        (11, Window((2,), 22 * 60, 5 * 60), None),
        (16, Window((2,), 22 * 60, 5 * 60), None),
        (17, Window((2,), 22 * 60, 5 * 60), 7 * 24 + 10),
        (0, Window((6,), 22 * 60, 5 * 60), 4 * 24 + 10),
        (4.5 * 24 + 1, Window((6,), 22 * 60, 5 * 60), None),  # Monday 01:00
        (0, Window((0, 2), 0, 24 * 60), None),
    ],
)
def test_hours_open_and_close(hours: float, window: Window, opens: float | None) -> None:
    verdict = decide(policy(limits=Limits(None, (window,))), IN_FORCE, metric(now=NOW + hours * 3600))
    if opens is None:
        assert isinstance(verdict, Allow)
    else:
        assert isinstance(verdict, Wait)
        assert verdict.until == NOW + opens * 3600


def test_a_policy_with_no_hours_is_shut() -> None:
    assert reason(decide(policy(limits=Limits(None, ())), IN_FORCE, metric())) == "window"


def test_a_refusal_goes_before_a_wait() -> None:
    night = policy(limits=Limits(None, (Window((2,), 0, 60),)))
    assert reason(decide(night, IN_FORCE, update(code="ef" * 32))) == "code-ask"


def test_only_the_newest_rounds_are_remembered() -> None:
    state = IN_FORCE
    for number in range(3 * ROUNDS_KEPT):
        state = spend(state, metric(round=number))
    assert len(state.values) == ROUNDS_KEPT
    assert state.rounds == {"metric": 3 * ROUNDS_KEPT}


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reading", "why"),
    [
        (Reading("press", ("rms",), "maintenance", NOW), ""),
        (Reading("staff", ("name",), "maintenance", NOW), "source"),
        (Reading("press", ("rms", "shift_leader"), "maintenance", NOW), "columns"),
        (Reading("press", ("rms",), "payroll", NOW), "purpose"),
        (Reading("press", ("rms",), "maintenance", NOW + 90 * DAY), "expired"),
    ],
)
def test_code_reads_only_what_the_sources_name(reading: Reading, why: str) -> None:
    verdict = decide_reading(policy(), IN_FORCE, reading)
    assert verdict == Allow("sources.press") if not why else reason(verdict) == why


def test_nothing_is_read_while_the_kill_switch_is_on() -> None:
    reading = Reading("press", ("rms",), "maintenance", NOW)
    assert reason(decide_reading(policy(), State(valid=True, stopped=True), reading)) == "stopped"


def test_every_reason_is_a_word_with_a_meaning() -> None:
    for word, meaning in REASONS.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", word)
        assert meaning
