"""A first data contract from tables that are there: what they hold, with some room around it.

    seen = Seen()
    for table in tables:
        seen.take(columns, units)
    text = proposed(seen, version=1)       # the sections [contract], [signals], [label] of reuna.toml

A person reads it before it counts: data cannot say what is plausible, only what was.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reuna.core.conformity import instant, time_unit_s
from reuna.core.units import split_name

ROOM = 0.1  #: of the span between least and most, kept free on either side
LEAST = 1e-200  #: below it two numbers are one
MISSING = 0.01  #: fraction of empty cells that is proposed at least
GAPS = 2.0  #: longest gap that is proposed at least, in median steps
TIMES = re.compile(r"time|date|datetime|timestamp|seconds?|minutes?|hours?", re.IGNORECASE)
LABELS = re.compile(r"(?:^|[^a-z])(?:label|fault|failure|anomaly|rul|target)s?(?:$|[^a-z])", re.IGNORECASE)
_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass
class SeenColumn:
    """A column over all tables so far."""

    tables: int = 0
    rows: int = 0
    empty: int = 0
    low: float = math.inf
    high: float = -math.inf
    text: bool = False
    truth: bool = True  #: nothing but 0 and 1 so far
    units: set[str] = field(default_factory=set)
    steps: list[float] = field(default_factory=list)  #: median step of each table, s, read as time
    longest_s: float = 0.0
    forward: bool = True  #: read as time it never goes back


@dataclass
class Seen:
    """All columns, by their names without a unit in brackets."""

    tables: int = 0
    columns: dict[str, SeenColumn] = field(default_factory=dict)

    def take(self, values: Mapping[str, NDArray[Any]], units: Mapping[str, str]) -> None:
        """One table: columns as `reuna.core.conformity.Columns` has them, by their names in the file."""
        self.tables += 1
        stems = [split_name(name)[0] for name in values]
        for name, cells in values.items():
            stem, own = split_name(name)
            called = stem if stems.count(stem) == 1 else name
            column = self.columns.setdefault(called, SeenColumn())
            _take(column, called, cells, units.get(name, "") or own)


def _take(column: SeenColumn, name: str, cells: NDArray[Any], unit: str) -> None:
    column.tables += 1
    column.rows += len(cells)
    column.units |= {unit} - {""}
    if cells.dtype.kind == "U":
        column.text, column.truth = True, False
        column.empty += int(np.count_nonzero(cells == ""))
    else:
        numbers = cells[np.isfinite(cells)]
        column.empty += int(np.count_nonzero(np.isnan(cells)))
        if len(numbers):
            column.low = min(column.low, float(numbers.min()))
            column.high = max(column.high, float(numbers.max()))
            column.truth &= bool(np.isin(numbers, (0, 1)).all())
    if TIMES.fullmatch(name):
        _take_time(column, _as_time(name, cells, unit))


def _as_time(name: str, cells: NDArray[Any], unit: str) -> NDArray[np.float64]:
    if cells.dtype.kind == "U":
        return np.array([instant(str(cell)) for cell in cells], np.float64)
    return cells.astype(np.float64) * time_unit_s(name, unit)


def _take_time(column: SeenColumn, times: NDArray[np.float64]) -> None:
    steps = np.diff(times)
    column.forward &= bool(np.isfinite(times).all() and (steps >= 0).all())
    if len(steps) and column.forward:
        column.steps.append(float(np.median(steps)))
        column.longest_s = max(column.longest_s, float(steps.max()))


def proposed(seen: Seen, version: int = 1, units: Mapping[str, str] | None = None) -> str:
    """The sections as text; what some tables lack is named in a comment and left out.

    ``units``: of columns for which no table says one.
    """
    return "\n".join(_sections(seen, version, units or {})) + "\n"


def _sections(seen: Seen, version: int, units: Mapping[str, str]) -> Iterator[str]:
    everywhere = {name: each for name, each in seen.columns.items() if each.tables == seen.tables}
    time, label = _time(everywhere), _label(everywhere)
    yield from ("[contract]", f"version = {version}")
    if time:
        yield from _timing(time, everywhere[time])
    yield from (f"max_missing = {MISSING}", "")
    lost = sorted(seen.columns.keys() - everywhere.keys())
    if lost:
        yield f"# not in every table, so left out: {', '.join(map(json.dumps, lost))}"
    yield "[signals]"
    for name, column in sorted(everywhere.items()):
        if name not in (time, label):
            said = ", ".join(_signal(column, units.get(name, "")))
            yield f"{_key(name)} = {{ {said} }}" if said else f"{_key(name)} = {{}}"
    if label:
        yield from ("", "[label]", f"column = {json.dumps(label)}")


def _timing(name: str, column: SeenColumn) -> Iterator[str]:
    yield f"time = {json.dumps(name)}"
    step = float(np.median(column.steps)) if column.steps else 0.0
    if step > 0:
        yield f"every_s = {step:.6g}"
        yield f"max_gap_s = {max(GAPS * step, column.longest_s):.6g}"


def _signal(column: SeenColumn, known: str) -> Iterator[str]:
    if column.text:
        yield 'type = "text"'
    elif column.truth and column.low < column.high:
        yield 'type = "boolean"'
    units = column.units or {known}
    if len(units) == 1 and "" not in units and not column.text:
        yield f"unit = {json.dumps(next(iter(units)))}"
    if not column.text and not (column.truth and column.low < column.high) and column.low <= column.high:
        low, high = roomy(column.low, column.high)
        yield f"min = {low:.6g}"
        yield f"max = {high:.6g}"
    if column.empty > MISSING * column.rows:
        yield f"max_missing = {min(1.0, math.ceil(120 * column.empty / column.rows) / 100):g}"


def roomy(low: float, high: float) -> tuple[float, float]:
    """A range around what was seen, in round numbers; what was never below 0 is not expected there.

    >>> roomy(20.3, 71.9), roomy(0.0, 3.0), roomy(5.0, 5.0)
    ((15.0, 78.0), (0.0, 3.3), (4.5, 5.5))
    """
    span = high - low if high - low > LEAST else max(abs(high), 1.0)
    digit = 10.0 ** (math.floor(math.log10(span)) - 1)
    room = ROOM * span
    least = math.floor((low - room) / digit + 1e-9) * digit
    most = math.ceil((high + room) / digit - 1e-9) * digit
    digits = max(0, 1 - math.floor(math.log10(span)))
    return (max(0.0, round(least, digits)) if low >= 0 else round(least, digits)), round(most, digits)


def _time(columns: Mapping[str, SeenColumn]) -> str:
    """The one column that is called a time and never goes back."""
    found = [name for name, each in columns.items() if TIMES.fullmatch(name) and each.forward and each.steps]
    return found[0] if len(found) == 1 else ""


def _label(columns: Mapping[str, SeenColumn]) -> str:
    found = [name for name in columns if LABELS.search(name)]
    return found[0] if len(found) == 1 else ""


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name)


# --- into a file ---------------------------------------------------------------------------------

_HEADER = re.compile(r"\s*\[\s*(?P<name>[^\[\]]+?)\s*\]\s*(#.*)?")
REPLACED = ("contract", "signals", "label")


def with_sections(text: str, sections: str) -> str:
    """A settings file with these sections instead of its own; the rest stays as it is, comments too.

    >>> with_sections("[project]\\n# old\\n[signals]\\nt = {}\\n[train]\\n", "[signals]\\n")
    '[project]\\n\\n[signals]\\n\\n[train]\\n'
    """
    before, after = list[str](), list[str]()
    found, dropping = False, False
    for block in _blocks(text):
        header = next((match for line in block if (match := _HEADER.fullmatch(line))), None)
        if header is not None:
            dropping = header["name"].split(".")[0].strip().strip("\"'") in REPLACED
        found |= dropping
        if not dropping:
            (after if found else before).extend(block)
    parts = ["\n".join(part).strip("\n") for part in (before, sections.splitlines(), after)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _blocks(text: str) -> list[list[str]]:
    """Lines by section, each with the comments right above its header."""
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        if _HEADER.fullmatch(line):
            above: list[str] = []
            while blocks[-1] and blocks[-1][-1].lstrip().startswith("#"):
                above.insert(0, blocks[-1].pop())
            blocks.append(above)
        blocks[-1].append(line)
    return blocks
