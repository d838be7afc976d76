"""Gates held against finished runs, as they stand in ``result.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reuna.core.errors import SettingsError
from reuna.core.gates import Gate
from reuna.loop.release import Outcome, Scores, Verdict, decision, judge, worst

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
    gates: Sequence[Gate], result: Mapping[str, Any], champion: Mapping[str, Any] | None = None
) -> Judged:
    """Judge a run's federated model. ``result`` and ``champion`` as in result.json.

    Raises `SettingsError` without gates, and for a champion of another project or task.
    """
    if not gates:
        raise SettingsError("the project declares no gates", NO_GATES)
    if champion is not None:
        _comparable(result, champion)
    verdicts = judge(gates, _scores(result), None if champion is None else _scores(champion))
    return Judged(result["run"], champion["run"] if champion else "", decision(verdicts), verdicts)


def _comparable(result: Mapping[str, Any], champion: Mapping[str, Any]) -> None:
    for what in ("project", "task"):
        if result[what] != champion[what]:
            said = f"{what} {champion[what]!r}, {result['run']} has {result[what]!r}"
            raise SettingsError(
                f"the champion {champion['run']} has {said}",
                "Name a run of the same project as champion; `reuna runs` lists them.",
            )


def _scores(result: Mapping[str, Any]) -> Scores:
    return {row["site"]: row.get("federated", {}) for row in result["sites"]}


def grid(verdicts: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Each site with its verdicts in the order of the gates, sorted."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for each in verdicts:
        rows.setdefault(each["site"], []).append(each)
    return sorted(rows.items())


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
    where = f"{verdict['gate']} {verdict['bound']:g} at {verdict['site']}"
    return (
        f"{where}, which has {verdict['value']:.4g}" if "value" in verdict else f"{where}: {verdict['why']}"
    )
