"""The model card of a release, generated: what it is, where it was trained and judged, what it is not for.

After Mitchell et al., Model Cards for Model Reporting, 2019, as far as it can be said without a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reuna.core.foreign import readable
from reuna.fleet.gates import SIGNS, grid, held, sentence
from reuna.wire.release import About

#: what a node tells of its data; the fingerprint says nothing to who has not the node's key
TOLD = ("samples", "files", "rows", "fingerprint")


def card(
    about: About,
    history: Mapping[str, Any],
    contract: Mapping[str, Mapping[str, Any]],
    gates: Mapping[str, Any],
    difference: float | None,
) -> str:
    """Markdown. ``difference``: the largest between the ONNX graph and the learner, None if not compared."""
    said = _text(sentence(gates))
    parts = [
        f"# {_text(about.project)} {about.version}",
        _what(about, history, difference),
        "## Sites",
        _sites(history),
        "## Data",
        _data(history),
        "## Gates",
        f"{said[:1].upper()}{said[1:]}.",
        _gates(gates),
        "## Inputs",
        _inputs(contract),
        "## Limits",
        _limits(history, contract),
        "## Where it comes from",
        _origin(about, history),
    ]
    return "\n\n".join(parts) + "\n"


def _what(about: About, history: Mapping[str, Any], difference: float | None) -> str:
    compared = (
        f"The ONNX graph answers what the learner answers, to within {difference:.1e}."
        if difference is not None
        else "The ONNX graph was not compared: the learner has no `predict`."
    )
    sites, rounds = len(history["sites"]), f"{history['rounds']} rounds ({history['strategy']})"
    trained = f"trained by the run {about.run} at {sites} sites, in {rounds}"
    return f"A model for {_text(history['task'])}, {trained}. No row left a site. {compared}"


def _sites(history: Mapping[str, Any]) -> str:
    names = sorted({name for site in history["sites"] for name in site.get("federated", {})})
    rows = [
        [_text(site["site"]), *(_number(site.get("federated", {}).get(name)) for name in names)]
        for site in history["sites"]
    ]
    return _table(["site", *map(_text, names)], rows)


def _data(history: Mapping[str, Any]) -> str:
    told = {each["node"]: each for each in history.get("data", [])}
    rows = [
        [_text(node), *(_text(str(told.get(node, {}).get(name) or "unknown")) for name in TOLD)]
        for site in history["sites"]
        for node in site["nodes"]
    ]
    return _table(["node", *TOLD], rows)


def _gates(gates: Mapping[str, Any]) -> str:
    names = {each["gate"]: f"{_text(each['gate'])} {each['bound']:g}" for each in gates["verdicts"]}
    rows = [
        [_text(site), *(f"{held(each)} {SIGNS[each['outcome']]}" for each in row)]
        for site, row in grid(gates["verdicts"])
    ]
    return _table(["site", *names.values()], rows)


def _inputs(contract: Mapping[str, Any]) -> str:
    if not contract.get("signals"):
        return "The project declares no signals."
    rows = [
        [_text(said["name"]), _text(said.get("unit", "")), _number(said.get("min")), _number(said.get("max"))]
        for said in contract["signals"]
    ]
    return _table(["signal", "unit", "min", "max"], rows)


def _limits(history: Mapping[str, Any], contract: Mapping[str, Any]) -> str:
    absent = [node for site in history["sites"] for node in site.get("absent", {})]
    lines = [
        "- Good where it was measured: at the sites above, on their test data. Nothing is known of others."
    ]
    if contract.get("signals"):
        lines.append("- A node whose tables broke the contract took no part.")
    if absent:
        lines.append(f"- Gave nothing to it: {', '.join(map(_text, absent))}.")
    return "\n".join(lines)


def _origin(about: About, history: Mapping[str, Any]) -> str:
    source = history["source"]
    commit = source.get("commit") or "not from a commit"
    dirty = ", with changes that are not in it" if source.get("dirty") else ""
    lines = [
        f"- commit: {_text(commit)}{dirty}",
        f"- code: {source['code']}",
        *([f"- build: {source['build']}"] if source.get("build") else []),
        f"- model: {about.model}",
        f"- replaces: {about.replaces or 'nothing, no release was champion'}",
    ]
    return "\n".join(lines)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _text(value: str) -> str:
    """Foreign text on one line of a table, steering nothing."""
    return readable(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
