"""Gates held against finished runs, as they stand in ``result.json``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reuna.core.errors import SettingsError
from reuna.core.gates import CONTRACT, Gate
from reuna.core.machines import Machines, groups
from reuna.loop.release import Outcome, Scores, Verdict, decision, judge, judge_machines, worst
from reuna.loop.validate import mean

NO_GATES = "Add [gates] to reuna.toml, as `all = { min = 0.9 }`."
SIGNS: Mapping[str, str] = {"pass": "✓", "fail": "✗", "open": "?"}
WORDS: Mapping[Outcome, str] = {
    "pass": "every gate holds at every site",
    "fail": "not to be released",
    "open": "not to be released: not everything could be judged",
}


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
) -> Judged:
    """Judge a run's federated model. ``result`` and ``champion`` as in result.json.

    Each gate is held at every site, and for all ``machines`` of every type.

    Raises `SettingsError` without gates, and for a champion of another project or task.
    """
    if not gates:
        raise SettingsError("the project declares no gates", NO_GATES)
    if champion is not None:
        _comparable(result, champion)
    verdicts = judge(gates, _sites(result), None if champion is None else _sites(champion))
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


def place(verdict: Mapping[str, Any]) -> str:
    """Where a verdict holds, for people: a site, or all machines of a type."""
    return verdict.get("site") or f"all {verdict['machines']}"


def grid(verdicts: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Each site with its verdicts in the order of the gates, sorted; types of machines after the sites."""
    rows: dict[tuple[bool, str], list[Mapping[str, Any]]] = {}
    for each in verdicts:
        rows.setdefault((not each.get("site"), place(each)), []).append(each)
    return [(name, row) for (_, name), row in sorted(rows.items())]


def held(verdict: Mapping[str, Any]) -> str:
    """What was held against the bound, or a dash."""
    return f"{verdict['value']:.4g}" if "value" in verdict else "–"


def sentence(judged: Mapping[str, Any]) -> str:
    """What a person reads first of a judgement as it stands in ``result.json``."""
    said, found = WORDS[judged["decision"]], judged.get("worst")
    if not found:
        return said
    return f"{said}; {'closest' if judged['decision'] == 'pass' else 'worst'} {_reason(found)}"


def _reason(verdict: Mapping[str, Any]) -> str:
    where = f"{verdict['gate']} {verdict['bound']:g} at {place(verdict)}"
    return (
        f"{where}, which has {verdict['value']:.4g}" if "value" in verdict else f"{where}: {verdict['why']}"
    )
