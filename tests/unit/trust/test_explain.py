"""What a policy says of rules that nothing in this version can meet, against what is really asked."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reuna.core.records import Grid, Member, Plan
from reuna.exchange.payloads import contribution, made_for
from reuna.loop import train
from reuna.trust.decide import decide
from reuna.trust.explain import explain, unmet
from reuna.trust.policy import Budget, FlowRule, Source, Tensors
from reuna.trust.requests import Allow, Hidden, Request
from tests.unit.trust.site import FOG, IN_FORCE, NOW, policy


def asked() -> tuple[Request, ...]:
    """Manifest and update of an honest edge, as its egress asks about them."""
    settings: dict[str, Any] = {"epochs": 5}
    plan = Plan(
        "r-1", 1, 1, "train", "a" * 64, 8, 2, ("a", "b"), 1, 9.0, Grid(16, -9), 9, 4, 7, "", 5, settings
    )
    made = made_for(plan, "a", lambda _names: Hidden(2, 2), 3, 0.5, "c" * 64)
    manifest = train.answer(plan, "d" * 64, Member("a", 9, metrics={"loss": 1.0}), "e" * 64, 2)
    found = contribution(manifest, FOG, NOW, made, lambda _names: Hidden(2, 2))
    return tuple(each.request for each in found)


def rules(**changes: Any) -> tuple[FlowRule, ...]:
    """One rule for each kind that an edge sends in a round, all with these conditions."""
    name = next(name for name, identity in policy().recipients.items() if identity == FOG)
    kinds = (FlowRule("metric", (name,), names=("loss",)), FlowRule("model_update", (name,)))
    return tuple(msgspec.structs.replace(rule, **changes) for rule in kinds)


DP = Budget("asset-day", 4.0, 0.2, 1e-6)


@pytest.mark.parametrize(
    "change", [{"min_cell": 1}, {"dp": DP}, {"protection": "split"}, {"protection": "secagg"}]
)
def test_what_the_explanation_calls_always_refused_is(change: dict[str, Any]) -> None:
    for rule, request in zip(rules(**change), asked(), strict=True):
        assert unmet(rule)
        assert not isinstance(decide(policy(flows=(rule,)), IN_FORCE, request), Allow)
        assert any("! always refused by this version" in line for line in explain(policy(flows=(rule,))))


@pytest.mark.parametrize(
    "change", [{}, {"min_cohort": 2, "min_organisations": 2, "min_samples": 9}, {"min_local_steps": 5},
               {"tensors": Tensors("c" * 64, ("float32",), 2, 0.5)}]
)  # fmt: skip
def test_what_it_does_not_call_so_an_honest_edge_can_meet(change: dict[str, Any]) -> None:
    update = asked()[1]
    rule = rules(**change)[1]
    assert not unmet(rule)
    assert isinstance(decide(policy(flows=(rule,)), IN_FORCE, update), Allow)


def test_a_policy_without_sources_says_that_nothing_is_trained() -> None:
    said = "\n".join(explain(policy(sources={})))
    assert "code may read nothing" in said
    assert "code may read flow of data" in "\n".join(explain(policy(sources={"data": Source(("flow",))})))
