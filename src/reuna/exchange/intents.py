"""What wants to leave, the policy that judges it, and what the ledger then says of both."""

from __future__ import annotations

import msgspec

from reuna.trust.ledger import Entry
from reuna.trust.policy import Policy, rule_name
from reuna.trust.requests import Request, State, numbers

LARGEST = 1e300  #: length that a record holds
MAX_NAME = 64  #: characters of a metric's name in a record
ROOM = 4096  #: bytes of all names in a record


class Leaving(msgspec.Struct, frozen=True):
    """A payload that wants to leave: what the policy is asked, SHA-256 of its bytes, its plan's digest."""

    request: Request
    payload: str
    plan: str = ""


class Standing(msgspec.Struct, frozen=True):
    """The policy in force, its digest and whether its kill switch is on; without one, why there is none."""

    policy: Policy | None
    digest: str = ""
    why: str = ""
    stopped: bool = False


def intent_of(leaving: Leaving, standing: Standing, rule: str, now_ms: int) -> Entry:
    """What the ledger says before a payload leaves, allowed by that rule of the policy in force."""
    request = leaving.request
    return Entry(
        time_ms=now_ms,
        kind="intent",
        flow=request.kind,
        to=request.to,
        payload_bytes=request.bytes,
        payload=leaving.payload,
        run=request.run,
        round=request.round,
        plan=leaving.plan,
        code=request.code,
        policy_serial=standing.policy.serial if standing.policy else 0,
        policy=standing.digest,
        rule=rule,
        epsilon=request.epsilon or 0.0,
        unit=request.epsilon_unit,
        samples=request.samples,
        cohort=request.cohort,
        organisations=request.organisations,
        values=numbers(request),
        level=request.sandbox or None,
        decision="allow",
        params=request.params,
        norm=request.norm if request.norm is not None and 0 <= request.norm < LARGEST else None,
        steps=request.local_steps,
        schema=request.schema,
        metrics=_names(request.metrics),
    )


def _names(metrics: tuple[str, ...]) -> tuple[str, ...]:
    """Names as a record has room for them: code chooses them, and may choose monsters."""
    cut = tuple(name[:MAX_NAME] for name in metrics)
    return cut if sum(len(name.encode()) for name in cut) <= ROOM else ()


def many(request: Request, count: int) -> Request:
    """So many messages of its size in one."""
    return msgspec.structs.replace(request, bytes=count * request.bytes)


def free(request: Request) -> Request:
    """The same, when its bytes were reserved before."""
    return msgspec.structs.replace(request, bytes=0)


def epsilon_left(standing: Standing, state: State, rule: str, request: Request) -> float | None:
    """Of the budget of the rule that allowed a request, afterwards; None without one."""
    if standing.policy is None or request.epsilon is None:
        return None
    named = (
        each
        for number, each in enumerate(standing.policy.flows)
        if rule_name(standing.policy, number) == rule
    )
    budget = next((each.dp for each in named), None)
    if budget is None:
        return None
    return max(0.0, budget.max_epsilon_total - state.epsilon.get(budget.unit, 0.0))
