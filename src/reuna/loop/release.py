"""Whether a model may be released: every gate judged at every site, and the worst site decides.

Only metrics come in, as the nodes measured them. A gate that cannot be judged is *open*: nobody
knows whether the model is good there, so it is not released.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from reuna.core.gates import LOWER_IS_BETTER, Gate

Outcome = Literal["pass", "fail", "open"]
Scores = Mapping[str, Mapping[str, float]]  #: site -> metric -> value
SILENT = "nothing was heard"
FIRST = "there is no champion to compare with"
NEW_SITE = "the champion was not measured here"
ROUNDING = 1e-9  #: a difference of two numbers that is a bound misses it by so much, no more
ORDER: tuple[Outcome, ...] = ("fail", "open", "pass")


@dataclass(frozen=True)
class Verdict:
    """One gate at one site, or at all ``machines`` of one type, whose ``site`` is ''.

    ``value`` is what was held against ``bound``, in the metric's unit.

    ``margin``: how far inside the bound, negative outside; None when there is no value.
    """

    gate: str
    metric: str
    limit: str
    bound: float
    site: str
    outcome: Outcome
    value: float | None = None
    margin: float | None = None
    why: str = ""
    machines: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As ``reuna gate --json`` prints it."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}


def judge(gates: Iterable[Gate], sites: Scores, champion: Scores | None = None) -> list[Verdict]:
    """Every gate at every site, in the order of gates, then of sites."""
    return [verdict for gate in gates for verdict in _judged(gate, sites, champion)]


def judge_machines(gates: Iterable[Gate], types: Scores, champion: Scores | None = None) -> list[Verdict]:
    """Every gate for every type of machine, as if each type were a site of its own."""
    found = judge(gates, types, champion)
    return [replace(each, site="", machines=each.site) for each in found]


def decision(verdicts: Iterable[Verdict]) -> Outcome:
    """``fail`` when one fails; else ``open`` when one is open or there is none; else ``pass``."""
    found = {each.outcome for each in verdicts} or {"open"}
    return next(each for each in ORDER if each in found)


def worst(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The verdict that decides: a failed one before an open one, then the least margin for its bound."""
    return min(verdicts, key=lambda each: (ORDER.index(each.outcome), _relative(each)), default=None)


def _relative(verdict: Verdict) -> float:
    return math.inf if verdict.margin is None else verdict.margin / (abs(verdict.bound) or 1.0)


def _judged(gate: Gate, sites: Scores, champion: Scores | None) -> list[Verdict]:
    if gate.limit == "max_spread":
        return _spread(gate, sites)
    return [_at(gate, site, sites[site], champion) for site in sorted(sites)]


def _at(gate: Gate, site: str, scores: Mapping[str, float], champion: Scores | None) -> Verdict:
    if gate.metric not in scores:
        return _open(gate, site, _missing(gate, scores))
    value = scores[gate.metric]
    if gate.limit != "max_drop":
        return _held(gate, site, value)
    if champion is None:
        return _verdict(gate, site, "pass", why=FIRST)
    before = champion.get(site, {})
    if gate.metric not in before:
        return _verdict(gate, site, "pass", why=NEW_SITE)
    return _held(gate, site, _loss(gate, before[gate.metric], value))


def _spread(gate: Gate, sites: Scores) -> list[Verdict]:
    """One verdict for each site: how much worse it is than the best."""
    known = {site: scores[gate.metric] for site, scores in sites.items() if gate.metric in scores}
    best = (min if gate.metric in LOWER_IS_BETTER else max)(known.values(), default=0.0)
    return [
        _held(gate, site, _loss(gate, best, known[site]))
        if site in known
        else _open(gate, site, _missing(gate, sites[site]))
        for site in sorted(sites)
    ]


def _loss(gate: Gate, before: float, after: float) -> float:
    """How much worse ``after`` is; negative when it is better."""
    return after - before if gate.metric in LOWER_IS_BETTER else before - after


def _missing(gate: Gate, scores: Mapping[str, float]) -> str:
    return f"no {gate.metric} was reported" if scores else SILENT


def _held(gate: Gate, site: str, value: float) -> Verdict:
    margin = value - gate.bound if gate.limit == "min" else gate.bound - value
    return _verdict(gate, site, "pass" if margin >= -ROUNDING else "fail", value, margin)


def _open(gate: Gate, site: str, why: str) -> Verdict:
    return _verdict(gate, site, "open", why=why)


def _verdict(
    gate: Gate,
    site: str,
    outcome: Outcome,
    value: float | None = None,
    margin: float | None = None,
    why: str = "",
) -> Verdict:
    name = f"{gate.metric} {gate.limit}"
    return Verdict(name, gate.metric, gate.limit, gate.bound, site, outcome, value, margin, why)
