"""What one rule of a policy asks, one check after the other, in the order in which a person would ask.

The check that refuses says how near the rule came: later checks are reached only when all
before them passed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from reuna.trust.policy import ANY, PROTECTIONS, FlowRule, Policy, day_number
from reuna.trust.requests import Request, State, numbers, round_key, today

DAY_S = 86_400
#: Why nobody knows among whom it hides, and what whoever runs the fleet does about it.
NO_ROSTER = "this node knows no signed roster of the fleet: reuna trust add FILE --kind roster"
ROUNDING = 1e-9  #: of sums of ε: twenty times 0.2 is 4.000000000000001


class Stop(NamedTuple):
    """Why one rule does not allow it; with ``until`` it may later."""

    reason: str
    why: str
    until: float | None = None


_Check = Callable[[Policy, State, FlowRule, Request], Stop | None]


def judge(policy: Policy, state: State, rule: FlowRule, request: Request) -> tuple[int, Stop | None]:
    """How many checks it passed, and what stopped it. A wait counts only when all others passed."""
    wait: Stop | None = None
    for passed, check in enumerate(_CHECKS):
        stop = check(policy, state, rule, request)
        if stop is not None and stop.until is None:
            return passed, stop
        wait = wait or stop
    return len(_CHECKS), wait


def _recipient(policy: Policy, state: State, rule: FlowRule, request: Request) -> Stop | None:
    if any(policy.recipients.get(name) == request.to for name in rule.to):
        return None
    known = next((name for name, identity in policy.recipients.items() if identity == request.to), request.to)
    return Stop(
        "recipient", f"{request.kind} may not go to {known}; it may go to {', '.join(rule.to) or 'nobody'}"
    )


def _protection(policy: Policy, state: State, rule: FlowRule, request: Request) -> Stop | None:
    if PROTECTIONS.index(request.protection) >= PROTECTIONS.index(rule.protection):
        return None
    return Stop(
        "protection", f"it is protected by {request.protection!r}, at least {rule.protection!r} is asked for"
    )


def _cohort(policy: Policy, state: State, rule: FlowRule, request: Request) -> Stop | None:
    """A plan's cohort is what the cloud says: only a signed roster makes it one to trust."""
    if rule.min_cohort > 1 and request.organisations is None:
        return Stop("roster", f"at least {rule.min_cohort} nodes are asked for, but {NO_ROSTER}")
    return _fewest("cohort", "nodes in the sum: {}", request.cohort, rule.min_cohort)


def _organisations(policy: Policy, state: State, rule: FlowRule, request: Request) -> Stop | None:
    if rule.min_organisations and request.organisations is None:
        return Stop(
            "roster", f"at least {rule.min_organisations} organisations are asked for, but {NO_ROSTER}"
        )
    found = request.organisations or 0
    return _fewest("organisations", "organisations in the sum: {}", found, rule.min_organisations)


def _samples(policy: Policy, state: State, rule: FlowRule, request: Request) -> Stop | None:
    return _fewest("samples", "{} rows are behind it", request.samples, rule.min_samples)


def _steps(policy: Policy, state: State, rule: FlowRule, request: Request) -> Stop | None:
    return _fewest("steps", "{} steps of training are behind it", request.local_steps, rule.min_local_steps)


def _cell(policy: Policy, state: State, rule: FlowRule, request: Request) -> Stop | None:
    if rule.min_cell and request.cell is None:
        return Stop("cell", "it does not say how many rows are behind its smallest count")
    return _fewest("cell", "{} rows are behind its smallest count", request.cell or 0, rule.min_cell)


def _fewest(reason: str, said: str, found: int, least: int) -> Stop | None:
    return None if found >= least else Stop(reason, f"{said.format(found)}, at least {least} are asked for")


def _schema(policy: Policy, state: State, rule: FlowRule, request: Request) -> Stop | None:
    if rule.tensors.schema in ("", request.schema):
        return None
    return Stop("schema", "the names and shapes of its tensors are not those of the rule")


def _dtype(policy: Policy, state: State, rule: FlowRule, request: Request) -> Stop | None:
    allowed = rule.tensors.dtypes
    if allowed is None or request.dtype in allowed:
        return None
    return Stop(
        "dtype", f"its numbers are {request.dtype or 'of no stated type'}, not {' or '.join(allowed)}"
    )


def _params(policy: Policy, state: State, rule: FlowRule, request: Request) -> Stop | None:
    return _most("params", "{} numbers are in it", request.params, rule.tensors.max_params)


def _norm(policy: Policy, state: State, rule: FlowRule, request: Request) -> Stop | None:
    return _most("norm", "its length (L2) is {}", request.norm, rule.tensors.max_norm)


def _most(reason: str, said: str, found: float | None, limit: float | None) -> Stop | None:
    if limit is None or (found is not None and found <= limit):
        return None
    return Stop(reason, f"{said.format('not known' if found is None else found)}, at most {limit} is allowed")


def _names(policy: Policy, state: State, rule: FlowRule, request: Request) -> Stop | None:
    if rule.names is None or ANY in rule.names:
        return None
    others = sorted(set(request.metrics) - set(rule.names))
    what = "signal" if request.kind == "window" else "metric"
    return Stop("names", f"the {what} {others[0]!r:.80} is not on the rule's list") if others else None


def _values(policy: Policy, state: State, rule: FlowRule, request: Request) -> Stop | None:
    count = state.values.get(round_key(request), 0) + numbers(request)
    return _most("values", "{} numbers would leave in this round", count, rule.max_values_per_round)


def _privacy(policy: Policy, state: State, rule: FlowRule, request: Request) -> Stop | None:
    budget = rule.dp
    if budget is None:
        return None
    if request.epsilon is None or request.epsilon_unit != budget.unit:
        return Stop("dp", f"it has no differential privacy that protects one {budget.unit}")
    if request.delta is None or request.delta > budget.delta:
        return Stop("dp", f"its δ is {request.delta}, at most {budget.delta} is allowed")
    return _most("epsilon", "it would spend ε {}", request.epsilon, budget.max_epsilon_round)


def _budget(policy: Policy, state: State, rule: FlowRule, request: Request) -> Stop | None:
    budget = rule.dp
    if budget is None or request.epsilon is None:
        return None
    spent = state.epsilon.get(budget.unit, 0.0)
    if spent + request.epsilon <= budget.max_epsilon_total + ROUNDING:
        return None
    end = (day_number(policy.valid.last) + 1) * DAY_S
    why = f"ε {spent:g} of {budget.max_epsilon_total:g} per {budget.unit} is spent"
    return Stop("budget", why, float(end) if budget.on_exhausted == "pause" else None)


def _rounds(policy: Policy, state: State, rule: FlowRule, request: Request) -> Stop | None:
    limit, day = rule.max_rounds_per_day, today(state, request)
    begun = state.rounds.get(request.kind, 0) if state.day == day else 0
    if limit == 0:
        return Stop("rounds", "the rule allows no round at all")
    if limit is None or begun < limit or (begun == limit and round_key(request) in state.values):
        return None
    return Stop(
        "rounds", f"{begun} of {limit} rounds of this day have begun already", float((day + 1) * DAY_S)
    )


#: In the order in which a person would ask; the one that refuses last was nearest to allowing.
_CHECKS: tuple[_Check, ...] = (
    _recipient,
    _protection,
    _cohort,
    _organisations,
    _samples,
    _steps,
    _schema,
    _dtype,
    _params,
    _norm,
    _names,
    _cell,
    _values,
    _privacy,
    _budget,
    _rounds,
)
