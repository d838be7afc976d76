"""What a node tells of how its data keep the contract: whole numbers by rule, and never a row.

An event ``contract`` has the contract's ``version``, under ``passed/RULE`` and ``failed/RULE`` a rule's
counts over all columns, and under ``passed/RULE/COLUMN`` and ``failed/RULE/COLUMN`` those of each column
that failed it at all. A site's policy lets such counts leave, or not, as a statistic; of few rows it may
forbid them, and ``withheld`` then says how many counts stayed.

>>> fields = as_fields(2, [Line("range", "t", 90, 10), Line("range", "u", 100, 0)])
>>> fields
{'version': 2, 'passed/range': 190, 'failed/range': 10, 'passed/range/t': 90, 'failed/range/t': 10}
>>> without_small(fields, 20)
{'version': 2, 'withheld': 2}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from reuna.core.contract import RULES, Contract, Line, breaches
from reuna.core.records import Event, Setting

WHAT = "contract"  #: of the event
MAX_COLUMN = 200  #: characters of a column's name that is told
MAX_FIELDS = 10_000
_COUNTS = ("passed", "failed")


def as_fields(version: int, lines: Iterable[Line]) -> dict[str, int]:
    """Each rule over all columns, and the columns that failed it."""
    fields, every = {"version": version}, list(lines)
    for rule in RULES:
        of_rule = [line for line in every if line.rule == rule]
        if of_rule:
            whole = Line(rule, "", sum(x.passed for x in of_rule), sum(x.failed for x in of_rule))
            for line in (whole, *(line for line in of_rule if line.failed)):
                fields.update(_named(line))
    return fields


def _named(line: Line) -> dict[str, int]:
    rule = f"{line.rule}/{line.signal}" if line.signal else line.rule
    return {f"passed/{rule}": line.passed, f"failed/{rule}": line.failed}


def of_contract(agreed: Contract, lines: Iterable[Line]) -> list[Line]:
    """Lines of rules that there are and of columns that the contract names; no others are told."""
    names = set(agreed.names)
    return [x for x in lines if x.rule in RULES and x.signal in names and len(x.signal) <= MAX_COLUMN]


def told(fields: Mapping[str, Setting]) -> list[Line]:
    """The counts in an event's fields; ``signal`` is '' for those over all columns."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for key, value in fields.items():
        what, _, rest = key.partition("/")
        if what in _COUNTS and isinstance(value, int):
            rule, _, signal = rest.partition("/")
            found.setdefault((rule, signal), {})[what] = value
    return [Line(*key, counts.get("passed", 0), counts.get("failed", 0)) for key, counts in found.items()]


def is_report(event: Event) -> bool:
    """Whether an event says nothing but counts; any other is of the kind that may quote data."""
    few = len(event.fields) <= MAX_FIELDS
    return event.what == WHAT and few and all(map(_is_count, event.fields, event.fields.values()))


def _is_count(key: str, value: Setting) -> bool:
    what, _, rest = key.partition("/")
    rule, _, signal = rest.partition("/")
    named = key in ("version", "withheld") or (what in _COUNTS and rule in RULES)
    return named and len(signal) <= MAX_COLUMN and type(value) is int and value >= 0


def smallest(fields: Mapping[str, Setting]) -> int | None:
    """The smallest count of rows, those of none aside; None when there is no count."""
    counts = [n for line in told(fields) for n in (line.passed, line.failed) if n]
    return min(counts, default=None)


def without_small(fields: Mapping[str, Setting], least: int) -> dict[str, Setting]:
    """Without counts of fewer rows than ``least``, and what would tell them by subtraction.

    A rule of which one column's counts are small is left out as a whole.
    """
    small = {line.rule for line in told(fields) if any(0 < n < least for n in (line.passed, line.failed))}
    if not small:
        return dict(fields)
    kept = {key: value for key, value in fields.items() if [*key.split("/"), ""][1] not in small}
    before = fields.get("withheld", 0)
    gone = sum(1 for line in told(fields) if line.rule in small)
    return {**kept, "withheld": gone + (before if isinstance(before, int) else 0)}


def contract_reports(timeline: Sequence[Mapping[str, Any]], agreed: Contract) -> list[dict[str, Any]]:
    """What each node told last in a run of how its data keep the contract."""
    return [
        {
            "node": node,
            "version": fields.get("version", 0),
            "rules": [_as_line(agreed, line) for line in told(fields)],
            "withheld": fields.get("withheld", 0),
        }
        for node, fields in sorted(told_last(timeline, WHAT).items())
    ]


def told_last(timeline: Sequence[Mapping[str, Any]], what: str) -> dict[str, dict[str, Any]]:
    """Node -> the fields of its newest event of that kind."""
    return {event["node"]: event["fields"] for event in timeline if event["what"] == what}


def _as_line(agreed: Contract, line: Line) -> dict[str, Any]:
    return {**msgspec.structs.asdict(line), "broken": bool(breaches(agreed, (line,)))}
