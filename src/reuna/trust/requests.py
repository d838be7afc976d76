"""What an egress asks before it sends, what it remembers, and the answers there are.

All are records without a decision in them; `reuna.trust.decide` decides.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from reuna.trust.policy import Protection, day_of

ROUNDS_KEPT = 64  #: rounds whose number of values is remembered

#: Why something may not leave, or not now, and what the officer reads.
REASONS: dict[str, str] = {
    "stopped": "the kill switch is on",
    "no-policy": "no signed policy is in force",
    "early": "the policy's first day has not come",
    "expired": "the policy's last day is over",
    "malformed": "the request has a number that cannot be",
    "raw": "rows of data never leave",
    "kind": "no rule is for this kind",
    "recipient": "no rule of this kind is for this recipient",
    "protection": "it is less protected than the rule asks for",
    "cohort": "too few nodes in the sum",
    "organisations": "too few organisations in the sum",
    "roster": "nodes or organisations are to be counted, and no signed roster of the fleet says who they are",
    "samples": "too few rows are behind it",
    "steps": "too few steps of training are behind it",
    "schema": "the tensors are not those of the rule",
    "dtype": "the number type is not on the rule's list",
    "params": "it has more numbers than the rule allows",
    "norm": "its length (L2) is above the rule's or not known",
    "names": "a metric is not on the rule's list",
    "cell": "too few rows are behind its smallest count, or nobody says how many",
    "values": "more numbers in this round than the rule allows",
    "dp": "it lacks the differential privacy that the rule asks for",
    "epsilon": "one update would spend more ε than the rule allows",
    "budget": "the ε budget is spent",
    "rounds": "the rounds of this day are used up",
    "code": "the code that made it is not allowed at this site",
    "code-ask": "the code that made it waits for an officer's approval",
    "code-unsigned": "the fleet's code role does not vouch for the code that made it",
    "code-expired": "the approval of the code that made it is over",
    "sandbox": "the code that made it ran in a weaker sandbox than the policy asks for",
    "size": "it is larger than everything that may leave on one day",
    "bytes": "the bytes of this day are used up",
    "window": "this is outside of the policy's hours",
    "source": "no source of the policy has this dataset",
    "columns": "a column is not on the source's list",
    "purpose": "the purpose is not on the source's list",
}


class Hidden(msgspec.Struct, frozen=True):
    """Among whom a payload hides: how many nodes, of how many organisations (None: no roster says)."""

    nodes: int
    organisations: int | None = None


def without_roster(names: Iterable[str]) -> Hidden:
    """Every different name counts; of organisations nothing is known."""
    return Hidden(len(set(names)))


class Request(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What an egress is about to send; as JSON one line of what `reuna policy simulate` reads.

    ``to``: identity of the recipient as its certificate says; ``bytes``: payload; ``now``: seconds
    since the epoch. ``cohort``: nodes in the sum, and their
    ``organisations``, as the fleet's roster knows them; ``dtype``, ``params``,
    ``norm`` (L2) and ``schema`` describe the clear tensors; ``cell``: rows behind the smallest count;
    ``epsilon`` and ``delta`` of ``epsilon_unit``; ``code``: digest of the pushed bundle that made
    it, empty without one; ``sandbox``: level it ran in. None: not known, which no bound accepts.
    """

    kind: str
    to: str
    bytes: int
    now: float
    run: str = ""
    round: int = 0
    protection: Protection = "clear"
    cohort: int = 1
    organisations: int | None = None
    samples: int = 0
    local_steps: int = 0
    params: int | None = None
    dtype: str = ""
    norm: float | None = None
    schema: str = ""
    metrics: tuple[str, ...] = ()
    values: int = 0
    cell: int | None = None
    epsilon: float | None = None
    epsilon_unit: str = ""
    delta: float | None = None
    code: str = ""
    sandbox: int = 0


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """What left before, and whether anything may leave at all.

    ``bytes`` and ``rounds``: kind -> how many on ``day`` (days since the epoch, UTC); ``values``:
    "kind run round" -> numbers sent, newest last; ``epsilon``: unit -> spent in all. ``valid``: a
    signed policy is in force, else ``why`` not; ``stopped``: the kill switch is on.
    """

    valid: bool = False
    why: str = ""
    stopped: bool = False
    day: int = 0
    bytes: dict[str, int] = {}
    rounds: dict[str, int] = {}
    values: dict[str, int] = {}
    epsilon: dict[str, float] = {}


class Reading(msgspec.Struct, frozen=True):
    """What code wants to read: a dataset of the policy's sources, columns, what for."""

    source: str
    columns: tuple[str, ...]
    purpose: str
    now: float


class Allow(msgspec.Struct, frozen=True):
    """It may leave, under this rule."""

    rule: str


class Deny(msgspec.Struct, frozen=True):
    """It may not. ``reason`` is a word of `REASONS`, ``why`` a sentence; ``rule`` is what says so."""

    reason: str
    why: str
    rule: str


class Wait(msgspec.Struct, frozen=True):
    """Not before ``until``, seconds since the epoch; ask again then."""

    until: float
    reason: str
    why: str
    rule: str


Verdict = Allow | Deny | Wait


def spend(state: State, request: Request) -> State:
    """The state after an allowed request: its bytes, round, numbers and ε count as spent."""
    day = today(state, request)
    fresh = day > state.day
    sent = {} if fresh else state.bytes
    rounds = {} if fresh else state.rounds
    key = round_key(request)
    begun = 0 if key in state.values else 1
    values = {name: count for name, count in state.values.items() if name != key}
    values[key] = state.values.get(key, 0) + numbers(request)
    for oldest in list(values)[: max(0, len(values) - ROUNDS_KEPT)]:
        del values[oldest]
    epsilon = state.epsilon
    if request.epsilon is not None:
        unit = request.epsilon_unit
        epsilon = {**epsilon, unit: epsilon.get(unit, 0.0) + request.epsilon}
    return msgspec.structs.replace(
        state,
        day=day,
        bytes={**sent, request.kind: sent.get(request.kind, 0) + request.bytes},
        rounds={**rounds, request.kind: rounds.get(request.kind, 0) + begun},
        values=values,
        epsilon=epsilon,
    )


def numbers(request: Request) -> int:
    """How many numbers a request says it carries, at least one for each metric that it names."""
    return max(request.values, len(request.metrics))


def today(state: State, request: Request) -> int:
    """Days since the epoch by which a request is counted.

    A clock that went back does not open yesterday's quota again.
    """
    return max(day_of(request.now), state.day)


def round_key(request: Request) -> str:
    """Under which `State.values` counts a request."""
    return f"{request.kind} {request.run} {request.round}"


async def vouched(bundle: str) -> str:
    """Any bundle is signed by the code role: where there is no metadata, as in the simulator."""
    return ""
