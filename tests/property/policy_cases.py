"""Policies, states and requests that lie close to each other, so that both answers are common.

All is made from a seed: a policy of hypothesis' own small draws would cost ten times as much and be
refused nearly always.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from random import Random
from typing import Any, TypeVar

import msgspec
from hypothesis import strategies as st

from reuna.trust.policy import (
    FORMAT,
    KINDS,
    PROTECTIONS,
    Budget,
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
from reuna.trust.requests import Reading, Request, State

FIRST = date(2026, 11, 23)  #: a Monday
FIRST_S = (FIRST - date(1970, 1, 1)).days * 86_400
IDENTITIES = ("spiffe://f/gateway/a", "spiffe://f/cloud/b", "spiffe://f/fog/c")
NAMES = ("a", "b", "c")
CODES = ("aa" * 32, "bb" * 32)
UNITS = ("row", "day")
DATASETS = ("data", "staff")
COLUMNS = ("flow", "heat", "leader")
PURPOSES = ("training", "evaluation")

T = TypeVar("T")
replace = msgspec.structs.replace
#: What a law is tried on: the same seed gives the same case.
seeds = st.integers(0, 2**64 - 1).map(Random)


def some(random: Random, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Some of the values, often all of them."""
    return values if random.random() < 0.5 else tuple(each for each in values if random.random() < 0.5)


def maybe(random: Random, make: Callable[[], T]) -> T | None:
    return make() if random.random() < 0.3 else None


def few(random: Random) -> int:
    return random.choice((0, 0, 0, 1, 2, 3))


def day(random: Random) -> date:
    return FIRST + timedelta(random.randint(-2, 3))


def make_rule(random: Random) -> FlowRule:
    return FlowRule(
        kind=random.choice(("model_update", "metric", "metric", "raw", "presence")),
        to=some(random, NAMES),
        protection=random.choice(("clear", *PROTECTIONS)),  # type: ignore[arg-type]
        min_cohort=few(random),
        min_organisations=few(random),
        min_samples=few(random),
        min_local_steps=few(random),
        tensors=Tensors(
            maybe(random, lambda: random.choice(CODES)) or "",
            maybe(random, lambda: some(random, ("float32", "int8"))),
            maybe(random, lambda: few(random)),
            maybe(random, lambda: random.choice((0.5, 1.0, 2.0))),
        ),
        dp=maybe(random, lambda: budget(random)),
        max_rounds_per_day=maybe(random, lambda: few(random)),
        names=maybe(random, lambda: some(random, random.choice((("loss", "mae"), ("loss", "mae", "*"))))),
        max_values_per_round=maybe(random, lambda: few(random)),
        min_cell=few(random),
    )


def budget(random: Random) -> Budget:
    return Budget(
        random.choice(UNITS),
        random.choice((0.5, 1.0, 2.0)),
        random.choice((0.5, 1.0)),
        random.choice((1e-6, 1e-5)),
        random.choice(("block", "pause")),  # type: ignore[arg-type]
    )


def make_source(random: Random) -> Source:
    return Source(
        some(random, COLUMNS) or ("flow",) if random.random() < 0.7 else ("*", *some(random, COLUMNS)),
        some(random, PURPOSES) if random.random() < 0.5 else (),
    )


def make_reading(random: Random) -> Reading:
    now = float(FIRST_S + 3600 * random.randint(-30, 60))
    columns = some(random, random.choice((COLUMNS, (*COLUMNS, "*"), ("*",))))
    return Reading(random.choice(DATASETS), columns, random.choice(PURPOSES), now)


def window(random: Random) -> Window:
    return Window(
        tuple(each for each in range(7) if random.random() < 0.6) or (0,),
        random.choice((0, 360, 1320)),
        random.choice((300, 720, 1440)),
    )


def make_policy(random: Random) -> Policy:
    entries = tuple(
        CodeEntry(random.choice(CODES), ("dpo",), day(random)) for _ in range(random.randint(0, 2))
    )
    return Policy(
        format=FORMAT,
        site="mill-3",
        serial=1,
        valid=Validity(*random.choice(((day(random), day(random)), (date(2020, 1, 1), date(2030, 1, 1))))),
        signers=Signers(1, {"dpo": "cc" * 32}),
        recipients={name: random.choice(IDENTITIES) for name in NAMES if random.random() < 0.9},
        flows=tuple(make_rule(random) for _ in range(random.randint(0, 4))),
        sources={name: make_source(random) for name in DATASETS if random.random() < 0.6},
        code=Code(entries, random.choice(("ask", "deny")), few(random)),  # type: ignore[arg-type]
        limits=Limits(
            maybe(random, lambda: random.randint(0, 12)),
            maybe(random, lambda: tuple(window(random) for _ in range(random.randint(0, 2)))),
        ),
    )


def make_state(random: Random) -> State:
    kinds = ("model_update", "metric", "log")
    return State(
        valid=random.random() < 0.95,
        stopped=random.random() < 0.05,
        day=FIRST_S // 86_400 + random.randint(-1, 1),
        bytes={kind: few(random) for kind in some(random, kinds)},
        rounds={kind: few(random) for kind in some(random, kinds)},
        values={f"{kind} r-1 1": few(random) for kind in kinds if random.random() < 0.3},
        epsilon={unit: random.choice((0.0, 0.5, 1.5)) for unit in UNITS if random.random() < 0.5},
    )


def make_request(random: Random) -> Request:
    return Request(
        kind=random.choice(("model_update", "metric", "metric", *KINDS)),
        to=random.choice(IDENTITIES),
        bytes=random.randint(-1, 8),
        now=float(FIRST_S + 3600 * random.randint(-30, 60)),
        run=random.choice(("r-1", "r-2")),
        round=random.randint(1, 2),
        protection=random.choice(PROTECTIONS),  # type: ignore[arg-type]
        cohort=few(random),
        organisations=few(random) or None,
        samples=few(random),
        local_steps=few(random),
        params=random.choice((None, 0, 3)),
        dtype=random.choice(("float32", "int8", "")),
        norm=random.choice((None, 0.5, 2.0, float("nan"))),
        schema=random.choice(("", *CODES)),
        metrics=some(random, ("loss", "mae", "row")),
        values=few(random),
        cell=random.choice((None, 0, 3)),
        epsilon=random.choice((None, 0.25, 0.5, 1.0, 2.0)),
        epsilon_unit=random.choice(UNITS),
        delta=random.choice((None, 1e-6, 1e-5)),
        code=random.choice(("", *CODES, "dd" * 32)),
        sandbox=few(random),
    )


def fitting(policy: Policy, rule: FlowRule, request: Request) -> Request:
    """The request as a rule would have it, but for its time and for what was spent before."""
    return replace(
        request,
        kind=rule.kind,
        to=next((policy.recipients[name] for name in rule.to if name in policy.recipients), request.to),
        bytes=max(0, request.bytes),
        protection="secagg",
        cohort=3,
        samples=3,
        local_steps=3,
        params=0,
        norm=0.5,
        cell=3,
        schema=rule.tensors.schema,
        dtype=(rule.tensors.dtypes or ("float32",))[0],
        metrics=(),
        values=min(request.values, 1),
        epsilon=0.5 if rule.dp else None,
        epsilon_unit=rule.dp.unit if rule.dp else "",
        delta=1e-6,
        code=policy.code.allow[0].digest if policy.code.allow else "",
        sandbox=3,
    )


def case(random: Random) -> tuple[Policy, State, Request]:
    """Most requests are as one of the rules asks for, many of these spoilt in one or two things."""
    policy, state, request = make_policy(random), make_state(random), make_request(random)
    if not policy.flows or random.random() < 0.2:
        return policy, state, request
    good = fitting(policy, random.choice(policy.flows), request)
    names = [each for each in Request.__struct_fields__ if each not in ("kind", "to")]
    spoilt = random.sample(names, random.choice((0, 0, 1, 1, 2)))
    return policy, state, replace(good, **{name: getattr(request, name) for name in spoilt})
