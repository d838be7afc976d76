"""Tables held against a data contract: how often each rule was passed and failed, and no row of them.

    lines = judge(agreed, columns)             # of one table
    lines = together([lines, …])               # of all tables of a node
    broken = breaches(agreed, lines)           # see reuna.core.contract

Pure: numpy arrays in, counts out. Widening a rule never makes more cells fail it; the order of rows
matters for gaps alone. Training asks here today; whatever feeds a model may ask the same.

>>> agreed = Contract(signals=(Signal("t", min=0, max=100),))
>>> found = judge(agreed, Columns(3, {"t": np.array([20.0, 120.0, np.nan])}))
>>> [(line.rule, line.passed, line.failed) for line in found]
[('present', 3, 0), ('type', 2, 0), ('unit', 3, 0), ('range', 1, 1)]
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reuna.core.contract import Contract, Line, Signal
from reuna.core.units import apart, same_unit, seconds_in

SAME_STEP = 0.1  #: fraction by which the median step of a table may differ from the declared one

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Columns:
    """The columns of one table that a contract names, by its names; those that are missing are left out.

    Numbers are float64 (rows,) with NaN where a cell is empty, anything else is text, '' where empty.
    ``units``: those that the table says.
    """

    rows: int
    values: Mapping[str, NDArray[Any]]
    units: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Column:
    """A column as numbers: NaN where there is none; which cells are filled, which of the wrong type."""

    numbers: Floats
    filled: Mask
    wrong: Mask


def judge(agreed: Contract, table: Columns) -> tuple[Line, ...]:
    """A line for each rule of each column that the contract has; the same lines for any table."""
    return tuple(_lines(agreed, table))


def together(parts: Iterable[Iterable[Line]]) -> tuple[Line, ...]:
    """Counts of several tables in one, in the order in which lines first came."""
    passed, failed = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for part in parts:
        for line in part:
            passed[line.rule, line.signal] += line.passed
            failed[line.rule, line.signal] += line.failed
    return tuple(Line(*key, passed[key], failed[key]) for key in passed)


def _lines(agreed: Contract, table: Columns) -> Iterator[Line]:
    for name in agreed.names:
        there = name in table.values
        yield _split("present", name, table.rows if there else 0, table.rows)
    times = seconds_of(agreed, table)
    if agreed.time:
        known = np.zeros(0, bool) if times is None else np.isfinite(times)
        yield _of("type", agreed.time, known)
    if agreed.label and not any(x.name == agreed.label and x.max_missing is not None for x in agreed.signals):
        yield _of("missing", agreed.label, _filled(table.values.get(agreed.label)))
    for signal in agreed.signals:
        yield from _of_signal(signal, table, times, bool(agreed.time))


def _of_signal(signal: Signal, table: Columns, times: Floats | None, timed: bool) -> Iterator[Line]:
    name, values = signal.name, table.values.get(signal.name)
    column = _read(signal, np.empty(0) if values is None else values)
    unit = table.units.get(name, "")
    yield _of("type", name, ~column.wrong[column.filled])
    if signal.type != "text":
        good = not odd_unit(signal, unit, column.numbers)
        yield _split("unit", name, len(column.filled) if good else 0, len(column.filled))
    if signal.max_missing is not None:
        yield _of("missing", name, column.filled)
    if signal.min is not None or signal.max is not None:
        numbers = column.numbers[np.isfinite(column.numbers)]
        yield _of("range", name, (signal.low <= numbers) & (numbers <= signal.high))
    if signal.quality:
        yield _of("quality", name, good_quality(signal, table))
    if timed:
        steps = _steps(times, column.filled)
        yield from _in_time(signal, steps)


def _in_time(signal: Signal, steps: Floats) -> Iterator[Line]:
    """``steps``: seconds from each reading to the next, in the order of the rows."""
    if signal.every_s is not None:
        known = np.abs(steps[np.isfinite(steps)])
        good = not len(known) or abs(float(np.median(known)) - signal.every_s) <= SAME_STEP * signal.every_s
        yield _split("sampling", signal.name, len(steps) if good else 0, len(steps))
    if signal.max_gap_s is not None:
        yield _of("gap", signal.name, (steps >= 0) & (steps <= signal.max_gap_s))


def odd_unit(signal: Signal, unit: str, numbers: Floats) -> str:
    """How a table's unit ('': it says none) or its median contradicts a signal, or ''.

    >>> odd_unit(Signal("t", "degC", min=-20, max=150), "K", np.array([300.0]))
    "its unit is 'K', the contract says 'degC' (0 K is -273.15 degC)"
    """
    if unit and signal.unit and not same_unit(unit, signal.unit):
        hint = apart(unit, signal.unit)
        return f"its unit is {unit!r}, the contract says {signal.unit!r}" + (f" ({hint})" if hint else "")
    known = numbers[np.isfinite(numbers)]
    median = float(np.median(known)) if len(known) else math.nan
    if len(known) and not signal.low <= median <= signal.high:
        return f"its median is {median:g}, the contract says {range_of(signal)}"
    return ""


def range_of(signal: Signal) -> str:
    """The range for people: ``-20 to 150 degC``."""
    return f"{signal.low:g} to {signal.high:g} {signal.unit}".rstrip()


# --- cells ---------------------------------------------------------------------------------------


def _of(rule: str, name: str, good: Mask) -> Line:
    return _split(rule, name, int(np.count_nonzero(good)), len(good))


def _split(rule: str, name: str, passed: int, whole: int) -> Line:
    return Line(rule, name, passed, whole - passed)


def _filled(values: NDArray[Any] | None) -> Mask:
    if values is None:
        return np.zeros(0, bool)
    filled: Mask = values != "" if values.dtype.kind == "U" else ~np.isnan(values.astype(np.float64))
    return filled


def _read(signal: Signal, values: NDArray[Any]) -> _Column:
    """The cells by the type that the signal has."""
    filled = _filled(values)
    if signal.type == "text":
        return _Column(np.full(len(values), np.nan), filled, np.zeros(len(values), bool))
    numbers = _each(values, _number) if values.dtype.kind == "U" else values.astype(np.float64)
    right = np.isfinite(numbers)
    if signal.type == "boolean":
        right &= (numbers == 0) | (numbers == 1)
    elif signal.type == "integer":
        right &= numbers == np.floor(numbers)
    return _Column(numbers, filled, filled & ~right)


def _each(texts: NDArray[Any], read: Callable[[str], float]) -> Floats:
    """Each text as a number, different ones once."""
    words, places = np.unique(texts, return_inverse=True)
    found: Floats = np.array([read(str(word)) for word in words], np.float64)[places]
    return found


def _number(text: str) -> float:
    """NaN for what is no number. Python would read "1_000" as one."""
    try:
        return math.nan if "_" in text else float(text or "nan")
    except ValueError:
        return math.nan


def good_quality(signal: Signal, table: Columns) -> Mask:
    """Cells of the signal's column of quality that are among its good values; none without that column."""
    quality = table.values.get(signal.quality)
    return np.zeros(0, bool) if quality is None else _among(quality, signal.good)


def _among(values: NDArray[Any], good: tuple[float | str, ...]) -> Mask:
    if values.dtype.kind == "U":
        return np.isin(values, [each if isinstance(each, str) else f"{each:g}" for each in good])
    return np.isin(values, [each for each in good if not isinstance(each, str)])


# --- time ----------------------------------------------------------------------------------------


def seconds_of(agreed: Contract, table: Columns) -> Floats | None:
    """Seconds (rows,), NaN where a cell is no time; None without a column of time.

    Numbers are in the unit that the table says, else in that which the column is called (``minute``),
    else in seconds.
    """
    values = table.values.get(agreed.time) if agreed.time else None
    if values is None:
        return None
    if values.dtype.kind == "U":
        return _each(values, instant)
    times: Floats = values.astype(np.float64) * time_unit_s(agreed.time, table.units.get(agreed.time, ""))
    return np.where(np.isfinite(times), times, np.nan)


def time_unit_s(name: str, unit: str) -> float:
    """Seconds of one in a column of time."""
    return seconds_in(unit) or seconds_in(name.lower().removesuffix("s")) or 1.0


def instant(text: str) -> float:
    """ISO 8601 as seconds since the epoch, UTC where it says no zone; NaN for anything else."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _steps(times: Floats | None, filled: Mask) -> Floats:
    if times is None or len(filled) != len(times):
        return np.empty(0)
    return np.diff(times if filled.all() else times[filled])
