"""What a policy would say to a run before it begins."""

from __future__ import annotations

from datetime import date
from typing import Any

import msgspec
import pytest

from reuna.core.records import Said, Terms, Work
from reuna.trust.foretell import Ahead, foretell, nothing
from reuna.trust.policy import (
    FORMAT,
    Code,
    CodeEntry,
    FlowRule,
    Limits,
    Policy,
    Signers,
    Source,
    Tensors,
    Validity,
    Window,
)
from reuna.trust.requests import Request, State

NOW = 1_760_000_000.0  # a day of 2025
BUNDLE, TO = "ab" * 32, "spiffe://fleet/gateway/fog"
POLICY = Policy(
    FORMAT,
    "mill",
    1,
    Validity(date(2025, 1, 1), date(2030, 1, 1)),
    Signers(1, {"officer": "cd" * 32}),
    recipients={"fog": TO},
    sources={"data": Source(("*",))},
    flows=(FlowRule("model_update", ("fog",)), FlowRule("metric", ("fog",), names=("all",))),
    code=Code((CodeEntry(BUNDLE, ("officer",), date(2029, 1, 1)),), "ask", 2),
)
UPDATE = Request("model_update", TO, 400, NOW, samples=90, params=100, dtype="float32", norm=0.0)
METRIC = Request("metric", TO, 0, NOW, metrics=("all",))
AHEAD = Ahead(Work("c-1", BUNDLE, "training"), "", ("t", "fault"), (UPDATE, METRIC))


def said(policy: Policy = POLICY, ahead: Ahead = AHEAD, **state: Any) -> dict[str, tuple[str, str]]:
    found = foretell(policy, State(valid=True, **state), "data", ahead, NOW)
    return {each.about: (each.word, each.why) for each in found.said}


def changed(**changes: Any) -> Policy:
    return msgspec.structs.replace(POLICY, **changes)


def test_what_a_policy_lets_is_a_yes_without_a_word_more() -> None:
    found = foretell(POLICY, State(valid=True), "data", AHEAD, NOW)
    assert found.said == (Said("code"), Said("data"), Said("model_update"), Said("metric"))
    assert found.terms == Terms(2, None)


@pytest.mark.parametrize(
    ("code", "unsigned", "word"),
    [
        (Code((), "ask"), "", ("wait", "code-ask")),
        (Code((), "deny"), "", ("no", "code")),
        (Code((CodeEntry(BUNDLE, (), date(2025, 2, 1)),), "deny"), "", ("wait", "code-expired")),
        (POLICY.code, "is signed by nobody", ("wait", "code-unsigned")),
    ],
)
def test_code_that_may_not_run_waits_where_somebody_can_still_let_it(
    code: Code, unsigned: str, word: tuple[str, str]
) -> None:
    found = said(changed(code=code), msgspec.structs.replace(AHEAD, unsigned=unsigned))
    assert found["code"] == word
    assert found["model_update"] == ("yes", ""), "flows are judged apart from the code"


def test_columns_that_the_contract_names_and_code_may_not_read_are_told() -> None:
    some = changed(sources={"data": Source(("t [degC]", "fault", "flow"))})
    found = foretell(some, State(valid=True), "data", AHEAD, NOW)
    assert found.said[1] == Said("data")
    assert found.terms.columns == ("t [degC]", "fault", "flow")
    assert said(changed(sources={"data": Source(("t",))}))["data"] == ("no", "columns")
    assert said(changed(sources={}))["data"] == ("no", "source")
    assert said(changed(sources={"data": Source(("*",), ("evaluation",))}))["data"] == ("no", "purpose")


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        (FlowRule("model_update", ("fog",), tensors=Tensors(max_params=99)), ("no", "params")),
        (FlowRule("model_update", ("fog",), min_samples=91), ("no", "samples")),
        (FlowRule("model_update", ("fog",), "secagg"), ("no", "protection")),
        (FlowRule("model_update", ("fog",), tensors=Tensors(schema="ee" * 32)), ("no", "schema")),
        (FlowRule("log", ("fog",)), ("no", "kind")),
    ],
)
def test_an_update_is_judged_by_its_size_samples_and_tensors(rule: FlowRule, word: tuple[str, str]) -> None:
    assert said(changed(flows=(rule, POLICY.flows[1])))["model_update"] == word


def test_a_metric_that_no_rule_lists_and_hours_that_are_not_now() -> None:
    other = msgspec.structs.replace(METRIC, metrics=("all", "secret"))
    assert said(ahead=msgspec.structs.replace(AHEAD, requests=(other,)))["metric"] == ("no", "names")
    closed = changed(limits=Limits(bytes_per_day=300))
    assert said(closed)["model_update"] == ("no", "size")
    day = int(NOW // 86_400)
    full = changed(limits=Limits(bytes_per_day=500))
    assert said(full, day=day, bytes={"metric": 200})["model_update"] == ("wait", "bytes")
    never = changed(limits=Limits(windows=(Window((int((NOW // 86_400 + 3) % 7 + 1) % 7,), 0, 60),)))
    assert said(never)["model_update"] == ("wait", "window")


def test_under_the_kill_switch_or_without_a_policy_all_is_no() -> None:
    assert set(said(stopped=True).values()) == {("no", "stopped")}
    assert {(each.word, each.why) for each in nothing(AHEAD).said} == {("no", "no-policy")}
    assert nothing(AHEAD).terms.columns == ()
