"""What a policy would say to a run before it begins, in words of closed lists.

`foretell` asks `reuna.trust.decide` what a run would ask, and spends nothing. What nobody knows before, as
the length of an update, is taken to be such that the policy would not mind.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from reuna.core.records import Rehearsal, Said, Terms, Word, Work
from reuna.core.units import split_name
from reuna.trust.decide import decide, decide_code, decide_reading
from reuna.trust.policy import ANY, Policy
from reuna.trust.requests import Allow, Deny, Reading, Request, State, Verdict

FINAL = ("code", "stopped", "no-policy", "expired")  #: why code that is refused waits for nobody


class Ahead(msgspec.Struct, frozen=True):
    """What a run would ask of one node.

    ``unsigned``: why the fleet's code role does not vouch for the bundle. ``columns``: of the node's data
    that the project's contract names. ``requests``: one for each kind that would leave; of no code, which
    is judged apart.
    """

    work: Work
    unsigned: str
    columns: tuple[str, ...]
    requests: tuple[Request, ...]


def foretell(policy: Policy, state: State, dataset: str, ahead: Ahead, now: float) -> Rehearsal:
    """The verdicts. Never raises."""
    code = decide_code(policy, state, ahead.work.bundle, now, ahead.unsigned)
    data, columns = _reading(policy, state, dataset, ahead, now)
    flows = (Said(each.kind, *_word(decide(policy, state, each))) for each in ahead.requests)
    waits = isinstance(code, Deny) and code.reason not in FINAL
    said = Said("code", "wait", _why(code)) if waits else Said("code", *_word(code))
    return Rehearsal((said, data, *flows), Terms(policy.code.min_sandbox_level, columns))


def nothing(ahead: Ahead) -> Rehearsal:
    """Without a policy."""
    kinds = ("code", "data", *(each.kind for each in ahead.requests))
    return Rehearsal(tuple(Said(each, "no", "no-policy") for each in kinds), Terms(columns=()))


def _word(verdict: Verdict) -> tuple[Word, str]:
    if isinstance(verdict, Allow):
        return "yes", ""
    return ("no" if isinstance(verdict, Deny) else "wait"), verdict.reason


def _why(verdict: Verdict) -> str:
    return _word(verdict)[1]


def _reading(
    policy: Policy, state: State, dataset: str, ahead: Ahead, now: float
) -> tuple[Said, tuple[str, ...] | None]:
    """Whether code may read what it needs, and the columns that it may read at all (None: every one)."""
    whole = Reading(dataset, (ANY,), ahead.work.purpose, now)
    if isinstance(decide_reading(policy, state, whole), Allow):
        return Said("data"), None
    source = policy.sources.get(dataset)
    listed = source.columns if source else ()
    verdict = decide_reading(policy, state, msgspec.structs.replace(whole, columns=listed))
    if isinstance(verdict, Deny):
        return Said("data", "no", verdict.reason), ()
    lacking = _lacking(ahead.columns, listed)
    return (Said("data", "no", "columns") if lacking else Said("data")), listed


def _lacking(wanted: Iterable[str], listed: Iterable[str]) -> list[str]:
    """Columns that are on no list, by their whole name or by that before a unit in brackets."""
    names = {name for each in listed for name in (each, split_name(each)[0])}
    return [each for each in wanted if not {each, split_name(each)[0]} & names]
