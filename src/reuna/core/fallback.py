"""What a model does with sensors that fail: declared rules, and a safe answer when in doubt.

    [fallback]
    rule = "refuse"          # of each signal that says nothing else
    safe = 0                 # the answer where there is none; without it, none
    min_confidence = 0.6

    [fallback.signals.flow_m3_h]
    rule = "hold"            # the last good value goes on, for at most hold_rows and contract's max_gap_s
    hold_rows = 3

``hold`` carries the last good value on, ``mask`` puts ``value`` there, ``refuse`` gives no answer for any
window with such a row. A cell is not good when it is empty, no number, outside of the contract's range or of
bad quality (`causes`). Whatever a rule cannot mend is refused: a hold that lasts too long has gone stale, and
before the first good value there is none to hold. A window that goes over a gap in time is refused too.

The rules travel among the settings of a run, so they are in the lineage of its release.

>>> held = mend(np.array([5.0, np.nan, np.nan, 7.0]), np.array([0, 1, 1, 0]), Rule("hold", hold_rows=1))
>>> held.values.tolist(), held.states.tolist()
([5.0, 5.0, 5.0, 7.0], [0, 1, 3, 0])
>>> decide(Fallback(safe=0.0), [0.2, 0.8], "").answer, decide(Fallback(safe=0.0), [0.2, 0.8], "flow: missing")
(1.0, Decision(answer=0.0, why='flow: missing'))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from reuna.core.conformity import Columns, good_quality, seconds_of
from reuna.core.contract import Contract, Signal
from reuna.core.errors import SettingsError
from reuna.core.foreign import UNREADABLE, shown
from reuna.core.outcomes import Window
from reuna.core.records import Setting
from reuna.core.settings import Option, between, one_of

KEY = "fallback"  #: of the rules among the settings
RULES = ("hold", "mask", "refuse")
HOLD_ROWS = 3
#: What became of a cell.
GOOD, HELD, MASKED, REFUSED = range(4)
#: Why a cell is not good, by its number; 0: it is. ``stale`` is what a hold becomes, ``gap`` is of time.
CAUSES = ("", "missing", "not a number", "out of range", "bad quality", "stale", "gap")
MISSING, NO_NUMBER, RANGE, QUALITY, STALE, GAP = range(1, len(CAUSES))

SLACK_S = 1e-6  #: by which a time may be longer than it may be: it is a float64 since 1970

Floats = NDArray[np.float64]
States = NDArray[np.int8]


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is done with a signal's cells that are not good; ``value`` is put there by ``mask``."""

    rule: Literal["hold", "mask", "refuse"] = "refuse"
    hold_rows: int = HOLD_ROWS
    value: float = 0.0


class Fallback(msgspec.Struct, frozen=True, omit_defaults=True):
    """The rules of a project. ``rule`` and ``hold_rows`` hold for signals that are not in ``signals``.

    ``safe``: the answer given in doubt, None for none; ``min_confidence``: of the most likely class.
    """

    rule: Literal["hold", "refuse"] = "refuse"
    hold_rows: int = HOLD_ROWS
    signals: dict[str, Rule] = {}
    safe: float | None = None
    min_confidence: float = 0.0

    def of(self, signal: str) -> Rule:
        """The rule of one signal."""
        return self.signals.get(signal) or Rule(self.rule, self.hold_rows)

    def look_back(self, signals: Iterable[str]) -> int:
        """Rows before a window without which its cells might be mended otherwise."""
        rules = map(self.of, signals)
        return max((rule.hold_rows for rule in rules if rule.rule == "hold"), default=0)


@dataclass(frozen=True)
class Mended:
    """A column after its rule: a finite value in every row, what became of each cell, and why."""

    values: Floats
    states: States
    causes: States


class Decision(msgspec.Struct, frozen=True):
    """An answer: a class, or the model's number; None where there is none. ``why``: it is the safe one."""

    answer: float | None
    why: str = ""


# --- cells ---------------------------------------------------------------------------------------


def causes(signal: Signal, table: Columns) -> States:
    """Why each cell of a signal is not good (rows,), see `CAUSES`."""
    numbers = table.values[signal.name].astype(np.float64)
    return causes_of(signal, numbers, good_quality(signal, table) if signal.quality else None)


def causes_of(signal: Signal, numbers: Floats, good: NDArray[np.bool_] | None) -> States:
    """The same for values (rows,), and which of them are of good quality, where that is known."""
    found = np.zeros(len(numbers), np.int8)
    if good is not None:
        found[~good] = QUALITY
    found[(numbers < signal.low) | (numbers > signal.high)] = RANGE
    found[np.isinf(numbers)] = NO_NUMBER
    found[np.isnan(numbers)] = MISSING
    return found


def gaps(agreed: Contract, table: Columns) -> NDArray[np.bool_]:
    """Rows (rows,) that came too long after the one before, or before it, or where one has no known time.

    Too long is over the largest ``max_gap_s`` of the contract's signals; without one, or without a column
    of time, no row is.
    """
    times = seconds_of(agreed, table)
    longest = max((each.max_gap_s for each in agreed.signals if each.max_gap_s is not None), default=None)
    found = np.zeros(table.rows, bool)
    if times is not None and longest is not None and table.rows:
        steps = np.diff(times)
        found[1:] = ~((steps >= 0) & (steps <= longest + SLACK_S))
    return found


def mend(
    values: Floats,
    why: NDArray[np.integer[Any]],
    rule: Rule,
    times: Floats | None = None,
    max_gap_s: float | None = None,
) -> Mended:
    """A column (rows,) by its rule; ``why`` from `causes`. A value is held for at most ``max_gap_s``.

    Where a cell is refused the last good value stands in its place, before the first one 0.
    """
    good, reasons = why == 0, why.astype(np.int8)
    rows = np.arange(len(values))
    last = np.maximum.accumulate(np.where(good, rows, -1)) if len(rows) else rows
    held = np.where(last >= 0, np.where(good, values, values[np.maximum(last, 0)]), 0.0)
    if rule.rule == "mask":
        return Mended(
            np.where(good, values, rule.value), np.where(good, GOOD, MASKED).astype(np.int8), reasons
        )
    if rule.rule == "refuse":
        return Mended(held, np.where(good, GOOD, REFUSED).astype(np.int8), reasons)
    fresh = (last >= 0) & (rows - last <= rule.hold_rows)
    if times is not None and max_gap_s is not None:
        fresh &= times - times[np.maximum(last, 0)] <= max_gap_s + SLACK_S  # an unknown time is not fresh
    states = np.where(good, GOOD, np.where(fresh, HELD, REFUSED)).astype(np.int8)
    reasons[(states == REFUSED) & ((last >= 0) | (rows >= rule.hold_rows))] = STALE
    return Mended(held, states, reasons)


# --- windows -------------------------------------------------------------------------------------


def window_starts(rows: int, length: int, step: int) -> range:
    """First rows of the windows of a table, as `Contract.window_rows` has them; shorter tables have none."""
    return range(0, rows - length + 1, step)


def judge_windows(
    columns: Mapping[str, Mended], jumps: NDArray[np.bool_], length: int, step: int, first: int = 0
) -> list[Window]:
    """What the rules say of each window of a table from row ``first`` on; ``jumps`` (rows,) as of `gaps`."""
    worst = np.zeros(len(jumps), np.int8)
    for column in columns.values():
        worst = np.maximum(worst, column.states)
    return [
        _window(columns, worst, jumps, slice(first + start, first + start + length))
        for start in window_starts(len(jumps) - first, length, step)
    ]


def _window(columns: Mapping[str, Mended], worst: States, jumps: NDArray[np.bool_], rows: slice) -> Window:
    if jumps[rows][1:].any():
        return Window("refused", CAUSES[GAP])
    state = int(worst[rows].max(initial=GOOD))
    if state == GOOD:
        return Window("good")
    at = rows.start + int(np.argmax(worst[rows] == state))
    name, column = next((n, c) for n, c in columns.items() if c.states[at] == state)
    return Window("refused" if state == REFUSED else "mended", f"{name}: {CAUSES[column.causes[at]]}")


def decide(rules: Fallback, output: Sequence[float], refused: str) -> Decision:
    """The answer of a window. ``output`` is the model's: the score of each class, or one number.

    ``refused``: why the rules refuse the window, '' when they do not. In doubt the safe answer.
    """
    doubt = refused or _doubt(rules, output)
    if doubt:
        return Decision(rules.safe, doubt)
    return Decision(float(np.argmax(output)) if len(output) > 1 else float(output[0]))


def _doubt(rules: Fallback, output: Sequence[float]) -> str:
    if not len(output) or not all(map(math.isfinite, output)):
        return "the model's output is no finite number"
    if not rules.min_confidence or len(output) == 1:
        return ""
    if min(output) < 0 or abs(sum(output) - 1) > 1e-3:  # a sum of float32
        return "the model's outputs are no probabilities"
    if max(output) < rules.min_confidence:
        return f"confidence {max(output):.3g} is below {rules.min_confidence:g}"
    return ""


# --- reading [fallback] --------------------------------------------------------------------------


def _finite(value: float) -> str:
    return "" if math.isfinite(value) else "must be a finite number"


_ROWS = between(0, 1e6)
KEYS = (
    Option("rule", str, "refuse", "what is done with its cells that are not good", check=one_of(*RULES)),
    Option("hold_rows", int, HOLD_ROWS, "rows that a value is held at most", "rows", _ROWS),
    Option("value", float, 0.0, "what `mask` puts there, in the signal's unit", check=_finite),
)


def mistake(said: Mapping[str, Any]) -> str:
    """What is wrong with the rule of one signal whose values are right of themselves, or ''."""
    rule = said.get("rule")
    if rule is None:
        return f"has no rule, expected one of {', '.join(RULES)}"
    if (rule == "mask") != ("value" in said):
        return 'needs both rule "mask" and value, or neither'
    return "" if rule == "hold" or "hold_rows" not in said else f"has hold_rows, but its rule is {rule}"


OPTIONS = (
    Option(
        "fallback.rule",
        str,
        "refuse",
        "what a model does with cells that are empty or bad: `hold` the last good value, or `refuse`",
        check=one_of("hold", "refuse"),
    ),
    Option("fallback.hold_rows", int, HOLD_ROWS, "rows that a value is held at most", "rows", _ROWS),
    Option(
        "fallback.signals",
        dict,
        {},
        "the same by signal, where `mask` is possible too",
        check=mistake,
        each=KEYS,
    ),
    Option(
        "fallback.safe", float, None, "the answer given in doubt; without it there is none", check=_finite
    ),
    Option(
        "fallback.min_confidence",
        float,
        0.0,
        "probability of the likeliest class below which there is doubt",
        check=between(0, 1),
    ),
)


def odd(values: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with rules that are right of themselves: lines that name a setting."""
    signals = values["signals"]
    for name in values["fallback.signals"]:
        if name not in signals:
            yield f"fallback.signals.{name} is no signal of the contract; say it under [signals] first"
        elif signals[name].get("type") == "text":
            yield f"fallback.signals.{name} is text, and rules are for numbers"


def fallback_of(values: Mapping[str, Any]) -> Fallback:
    """The rules that the checked values of `reuna.toml` say."""
    signals = {name: Rule(**said) for name, said in values["fallback.signals"].items()}
    return Fallback(
        values["fallback.rule"],
        values["fallback.hold_rows"],
        signals,
        values["fallback.safe"],
        values["fallback.min_confidence"],
    )


def as_settings(rules: Fallback) -> dict[str, Setting]:
    """The rules as they stand among a run's settings; nothing when none were declared."""
    return {} if rules == Fallback() else {KEY: msgspec.json.encode(rules).decode()}


def fallback(settings: Mapping[str, Setting]) -> Fallback:
    """The rules among a run's settings. Raises `SettingsError` for a text that is none of ours."""
    text = settings.get(KEY)
    if text is None:
        return Fallback()
    try:
        return msgspec.json.decode(str(text), type=Fallback)
    except (*UNREADABLE, UnicodeEncodeError) as error:
        raise SettingsError(f"the rules for failing sensors cannot be read: {shown(str(error))}") from error
