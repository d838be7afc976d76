"""Laws of the policy: it agrees with a second opinion, and a stricter policy never allows more."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from reuna.trust import flow_checks
from reuna.trust.compare import compare
from reuna.trust.decide import decide, decide_code, decide_moment, decide_reading
from reuna.trust.explain import explain
from reuna.trust.policy import FlowRule, Policy, Source, canonical
from reuna.trust.requests import REASONS, Allow, State, Wait, spend
from tests.property.policy_cases import (
    PURPOSES,
    budget,
    case,
    fitting,
    make_policy,
    make_reading,
    make_request,
    make_rule,
    make_state,
    replace,
    seeds,
    some,
    window,
)
from tests.property.policy_reference import may_read, may_run, reference

MANY = settings(max_examples=3000)


@MANY
@given(seeds)
def test_the_decision_is_that_of_the_reference(random: Random) -> None:
    policy, state, request = case(random)
    verdict, expected = decide(policy, state, request), reference(policy, state, request)
    if isinstance(verdict, Wait):
        assert verdict.until == expected
    else:
        assert isinstance(verdict, Allow) is expected


@MANY
@given(seeds)
def test_whatever_is_refused_has_a_known_reason_and_a_sentence(random: Random) -> None:
    verdict = decide(*case(random))
    if not isinstance(verdict, Allow):
        assert verdict.reason in REASONS
        assert verdict.why


def test_the_cases_are_of_every_kind() -> None:
    """Laws over cases that are all refused would say nothing."""
    verdicts = [decide(*case(Random(seed))) for seed in range(18_000)]
    seen = Counter("allowed" if isinstance(each, Allow) else each.reason for each in verdicts)
    rare = {"no-policy", "source", "columns", "purpose", "code-unsigned"}  # asked at other moments
    assert seen["allowed"] > 1000
    assert {word for word in REASONS if seen[word] < 3} <= rare


@pytest.mark.parametrize("check", flow_checks._CHECKS, ids=lambda check: check.__name__)
def test_the_reference_notices_a_check_that_is_gone(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tuple(each for each in flow_checks._CHECKS if each is not check)
    monkeypatch.setattr(flow_checks, "_CHECKS", left)
    found = (case(Random(seed)) for seed in range(20_000))
    assert any(isinstance(decide(*each), Allow) and reference(*each) is not True for each in found)


def shorter(random: Random, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The tuple without one of its parts."""
    gone = random.randrange(len(values))
    return values[:gone] + values[gone + 1 :]


def lower(value: float | None) -> float:
    return 1 if value is None else value / 2 if isinstance(value, float) else max(0, value - 1)


def stricter_rule(random: Random, rule: FlowRule) -> FlowRule:
    """The rule with one of its guards tightened."""
    tensors, dp = rule.tensors, rule.dp
    choices: list[dict[str, Any]] = [
        {"protection": "secagg"},
        {"min_cohort": rule.min_cohort + 1},
        {"min_organisations": rule.min_organisations + 1},
        {"min_samples": rule.min_samples + 1},
        {"min_local_steps": rule.min_local_steps + 1},
        {"min_cell": rule.min_cell + 1},
        {"max_rounds_per_day": lower(rule.max_rounds_per_day)},
        {"max_values_per_round": lower(rule.max_values_per_round)},
        {"tensors": replace(tensors, max_params=lower(tensors.max_params))},
        {"tensors": replace(tensors, max_norm=lower(tensors.max_norm))},
        {"tensors": replace(tensors, schema=tensors.schema or "aa" * 32)},
    ]
    if rule.names is None:
        choices.append({"names": some(random, ("loss", "mae"))})
    elif "*" in rule.names:
        choices.append({"names": tuple(name for name in rule.names if name != "*")})
    if tensors.dtypes is None:
        choices.append({"tensors": replace(tensors, dtypes=some(random, ("float32", "int8")))})
    if dp is None:
        choices.append({"dp": budget(random)})
    if dp:
        choices += [
            {"dp": replace(dp, **{name: getattr(dp, name) / 2})}
            for name in ("max_epsilon_total", "max_epsilon_round", "delta")
        ]
    if rule.to:
        choices += 3 * [{"to": shorter(random, rule.to)}]
    if rule.names:
        choices.append({"names": shorter(random, rule.names)})
    if tensors.dtypes:
        choices.append({"tensors": replace(tensors, dtypes=shorter(random, tensors.dtypes))})
    return replace(rule, **random.choice(choices))


def fewer_sources(random: Random, sources: dict[str, Source]) -> list[dict[str, Source]]:
    """Sources without one of them, one column or purpose; or with a list of purposes where none was."""
    if not sources:
        return []
    name = random.choice(sorted(sources))
    source = sources[name]
    found = [{each: kept for each, kept in sources.items() if each != name}]
    tighter = [replace(source, columns=shorter(random, source.columns))]
    if len(source.purpose) != 1:
        tighter.append(replace(source, purpose=shorter(random, source.purpose or PURPOSES)))
    return found + [{**sources, name: each} for each in tighter]


def stricter(random: Random, policy: Policy) -> Policy:
    """The policy with one thing taken away or tightened."""
    limits, code, valid = policy.limits, policy.code, policy.valid
    choices = [
        replace(policy, limits=replace(limits, bytes_per_day=lower(limits.bytes_per_day))),
        replace(policy, code=replace(code, min_sandbox_level=code.min_sandbox_level + 1)),
        replace(policy, valid=replace(valid, last=valid.last - timedelta(1))),
        replace(policy, valid=replace(valid, first=valid.first + timedelta(1))),
    ]
    if policy.flows:
        number = random.randrange(len(policy.flows))
        rule = stricter_rule(random, policy.flows[number])
        choices += 2 * [replace(policy, flows=shorter(random, policy.flows))]
        choices += 6 * [replace(policy, flows=(*policy.flows[:number], rule, *policy.flows[number + 1 :]))]
    if policy.recipients:
        gone = random.choice(sorted(policy.recipients))
        left = {name: identity for name, identity in policy.recipients.items() if name != gone}
        choices.append(replace(policy, recipients=left))
    if code.allow:
        choices.append(replace(policy, code=replace(code, allow=shorter(random, code.allow))))
    if limits.windows:
        choices.append(replace(policy, limits=replace(limits, windows=shorter(random, limits.windows))))
    if limits.windows is None:
        some_hours = tuple(window(random) for _ in range(random.randint(0, 2)))
        choices.append(replace(policy, limits=replace(limits, windows=some_hours)))
    if code.new_code == "ask":
        choices.append(replace(policy, code=replace(code, new_code="deny")))
    choices += [replace(policy, sources=each) for each in fewer_sources(random, policy.sources)]
    return random.choice(choices)


@MANY
@given(seeds)
def test_a_stricter_policy_never_allows_more(random: Random) -> None:
    policy, state, request = case(random)
    if isinstance(decide(stricter(random, policy), state, request), Allow):
        assert isinstance(decide(policy, state, request), Allow)


@MANY
@given(seeds)
def test_what_code_may_read_is_as_the_reference_says_and_no_more_under_a_stricter_policy(
    random: Random,
) -> None:
    policy, state, reading = make_policy(random), make_state(random), make_reading(random)
    allowed = isinstance(decide_reading(policy, state, reading), Allow)
    assert allowed is may_read(policy, state, reading)
    if isinstance(decide_reading(stricter(random, policy), state, reading), Allow):
        assert allowed


@MANY
@given(seeds)
def test_which_code_may_run_is_as_the_reference_says_and_no_more_under_a_stricter_policy(
    random: Random,
) -> None:
    policy, state, request = make_policy(random), make_state(random), make_request(random)
    asked = request.code, request.now, random.choice(("", "", "waits for the fleet's code role"))
    allowed = isinstance(decide_code(policy, state, *asked), Allow)
    assert allowed is may_run(policy, state, *asked)
    if isinstance(decide_code(stricter(random, policy), state, *asked), Allow):
        assert allowed


def test_what_is_asked_of_sources_and_code_is_of_every_kind() -> None:
    seen: Counter[str] = Counter()
    for seed in range(6000):
        random = Random(seed)
        policy, state, request = make_policy(random), make_state(random), make_request(random)
        for verdict in (
            decide_reading(policy, state, make_reading(random)),
            decide_code(policy, state, request.code, request.now, random.choice(("", "waits"))),
        ):
            seen["allowed" if isinstance(verdict, Allow) else verdict.reason] += 1
    wanted = {"allowed", "source", "columns", "purpose", "code", "code-ask", "code-expired", "code-unsigned"}
    assert {word for word in wanted if seen[word] > 50} == wanted


@MANY
@given(seeds)
def test_an_hour_that_lets_nothing_of_a_size_leave_lets_no_request_of_it_leave(random: Random) -> None:
    policy, state, request = case(random)
    if isinstance(decide(policy, state, request), Allow):
        assert isinstance(decide_moment(policy, state, request), Allow)


@MANY
@given(seeds)
def test_nothing_becomes_allowed_that_the_difference_does_not_say(random: Random) -> None:
    new, state, request = case(random)
    old = stricter(random, new) if random.random() < 0.7 else make_policy(random)
    if isinstance(decide(new, state, request), Allow) and not isinstance(decide(old, state, request), Allow):
        assert compare(old, new).now
        assert compare(new, old).no_longer


@given(seeds)
def test_the_order_of_rules_and_names_of_recipients_are_no_difference(random: Random) -> None:
    policy = make_policy(random)
    moved = random.sample(policy.flows, len(policy.flows))
    renamed = tuple(replace(rule, to=tuple(f"the-{name}" for name in rule.to)) for rule in moved)
    names = {f"the-{name}": identity for name, identity in policy.recipients.items()}
    found = compare(policy, replace(policy, flows=renamed, recipients=names, serial=2))
    assert (found.now, found.no_longer, found.other) == ((), (), ())


@given(seeds)
def test_every_policy_can_be_explained_and_comes_back_from_its_signed_bytes(random: Random) -> None:
    policy = make_policy(random)
    assert all(isinstance(line, str) for line in explain(policy))
    assert msgspec.json.decode(canonical(policy), type=Policy) == policy


@settings(max_examples=500)
@given(seeds)
def test_what_is_spent_never_exceeds_a_quota(random: Random) -> None:
    rule = make_rule(random)
    policy = replace(make_policy(random), flows=(rule,))
    state = State(valid=True)
    for number in range(12):
        request = replace(fitting(policy, rule, make_request(random)), round=number)
        if isinstance(decide(policy, state, request), Allow):
            state = spend(state, request)
        check_quotas(policy, rule, state)


def check_quotas(policy: Policy, rule: FlowRule, state: State) -> None:
    cap = policy.limits.bytes_per_day
    assert cap is None or sum(state.bytes.values()) <= cap
    if rule.dp:
        assert state.epsilon.get(rule.dp.unit, 0.0) <= rule.dp.max_epsilon_total + 1e-6
    if rule.max_rounds_per_day is not None:
        assert state.rounds.get(rule.kind, 0) <= rule.max_rounds_per_day
    if rule.max_values_per_round is not None:
        assert all(count <= rule.max_values_per_round for count in state.values.values())
