"""Whether a model may be released: every gate judged at every site, and the worst site decides.

Only metrics come in, as the nodes measured them. A gate that cannot be judged is *open*: nobody
knows whether the model is good there, so it is not released. A project may let some sites be away
(``release.offline``): their gates are *silent* and decide nothing, and a machine of such a site takes the
release only after it has run beside what is live there (`reuna.loop.operate`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from reuna.core.errors import SettingsError
from reuna.core.gates import CONTRACT, LOWER_IS_BETTER, Gate
from reuna.core.machines import Machines, groups
from reuna.core.records import AWAY, UNHEARD
from reuna.core.scores import mean

Outcome = Literal["pass", "fail", "open", "silent"]
Scores = Mapping[str, Mapping[str, float]]  #: site -> metric -> value
SILENT = "nothing was heard"
FIRST = "there is no champion to compare with"
NEW_SITE = "the champion was not measured here"
ROUNDING = 1e-9  #: a difference of two numbers that is a bound misses it by so much, no more
ORDER: tuple[Outcome, ...] = ("fail", "open", "pass", "silent")
NO_GATES = "Add [gates] to reuna.toml, as `all = { min = 0.9 }`."


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
    """``fail`` when one fails; else ``open`` when one is open or none was judged; else ``pass``."""
    found = {each.outcome for each in verdicts if each.outcome != "silent"} or {"open"}
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


# --- a run, as it stands in its result ---------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """What was decided of a run, and every verdict behind it."""

    run: str
    champion: str
    decision: Outcome
    verdicts: list[Verdict]

    def as_dict(self) -> dict[str, Any]:
        """As ``reuna gate --json`` prints it."""
        found: dict[str, Any] = {"run": self.run, "decision": self.decision}
        if self.champion:
            found["champion"] = self.champion
        decides = worst(self.verdicts)
        if decides is not None:
            found["worst"] = decides.as_dict()
        return {**found, "verdicts": [each.as_dict() for each in self.verdicts]}


def judge_run(
    gates: Sequence[Gate],
    result: Mapping[str, Any],
    champion: Mapping[str, Any] | None = None,
    machines: Machines | None = None,
    offline: float = 0.0,
) -> Judged:
    """Judge a run's federated model. ``result`` and ``champion`` as in result.json.

    Each gate is held at every site, and for all ``machines`` of every type. ``offline``: share of sites
    that may have been away.

    Raises `SettingsError` without gates, and for a champion of another project or task.
    """
    if not gates:
        raise SettingsError("the project declares no gates", NO_GATES)
    if champion is not None:
        _comparable(result, champion)
    verdicts = judge(gates, _sites(result), None if champion is None else _sites(champion))
    away = _away(result, offline)
    verdicts = [replace(each, outcome="silent") if each.site in away else each for each in verdicts]
    if machines:
        before = None if champion is None else _types(champion, machines)
        verdicts += judge_machines(gates, _types(result, machines), before)
    return Judged(result["run"], champion["run"] if champion else "", decision(verdicts), verdicts)


def _comparable(result: Mapping[str, Any], champion: Mapping[str, Any]) -> None:
    for what in ("project", "task"):
        if result[what] != champion[what]:
            said = f"{what} {champion[what]!r}, {result['run']} has {result[what]!r}"
            raise SettingsError(
                f"the champion {champion['run']} has {said}",
                "Name a run of the same project as champion; `reuna runs` lists them.",
            )


def _sites(result: Mapping[str, Any]) -> Scores:
    rates = _pass_rates(result)
    return {
        row["site"]: {**row.get("federated", {}), **_least(rates, row["nodes"])} for row in result["sites"]
    }


def _away(result: Mapping[str, Any], share: float) -> set[str]:
    """Sites of which no machine was heard; none when they are more than that share, and none are left.

    A machine that was heard and gave nothing, or whose site's policy said no, was not away.
    """
    away = {
        row["site"]
        for row in result["sites"]
        if not row.get("federated") and set(row.get("absent", {}).values()) <= {UNHEARD, AWAY}
    }
    return away if len(away) <= share * len(result["sites"]) + ROUNDING else set()


def _types(result: Mapping[str, Any], machines: Machines) -> Scores:
    """Type of machine -> the mean over its nodes, wherever they stand."""
    nodes, rates = dict[str, Mapping[str, float]](), _pass_rates(result)
    for row in result["sites"]:
        told = row.get("by_node") or dict.fromkeys(row["nodes"], row.get("federated", {}))
        nodes |= {node: scores for node, scores in told.items() if scores}
    found = groups(machines, {row["site"]: row["nodes"] for row in result["sites"]})
    return {
        name: {**mean([nodes[node] for node in members if node in nodes]), **_least(rates, members)}
        for name, members in found.items()
    }


def _pass_rates(result: Mapping[str, Any]) -> dict[str, float | None]:
    """Node -> fraction of rows that pass the rule which fails most; None when its policy withheld counts."""
    return {
        report["node"]: None
        if report.get("withheld")
        else min((_rate(line) for line in report["rules"]), default=None)
        for report in result.get("contract", ())
    }


def _rate(line: Mapping[str, Any]) -> float:
    whole: int = line["passed"] + line["failed"]
    return line["passed"] / whole if whole else 1.0


def _least(rates: Mapping[str, float | None], nodes: Iterable[str]) -> dict[str, float]:
    """The least rate of these nodes; nothing when that of one of them is not known."""
    found = [rates.get(node) for node in nodes]
    known = [rate for rate in found if rate is not None]
    return {CONTRACT: min(known)} if known and len(known) == len(found) else {}
