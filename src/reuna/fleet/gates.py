"""What gates say of a finished run, in words and as a grid. Judged by `reuna.loop.release`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reuna.loop.release import Outcome

SIGNS: Mapping[str, str] = {"pass": "✓", "fail": "✗", "open": "?", "silent": "…"}
WORDS: Mapping[Outcome, str] = {
    "pass": "every gate holds at every site",
    "fail": "not to be released",
    "open": "not to be released: not everything could be judged",
}


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
    away = sorted({place(each) for each in judged.get("verdicts", ()) if each["outcome"] == "silent"})
    if away and judged["decision"] == "pass":
        said = f"{said} that was heard, and {', '.join(away)} was not"
    if not found:
        return said
    return f"{said}; {'closest' if judged['decision'] == 'pass' else 'worst'} {_reason(found)}"


def _reason(verdict: Mapping[str, Any]) -> str:
    where = f"{verdict['gate']} {verdict['bound']:g} at {place(verdict)}"
    return (
        f"{where}, which has {verdict['value']:.4g}" if "value" in verdict else f"{where}: {verdict['why']}"
    )
