"""The data contract of a project: what its nodes' tables hold, as `reuna.toml` says it.

    [contract]
    version = 3
    time = "minute"         # column; numbers in its unit, or ISO 8601
    max_gap_s = 120         # of every signal that says nothing else, as are every_s, max_missing, max_bad

    [signals]
    temperature = { unit = "degC", min = -20, max = 150, quality = "status", good = [0] }

    [windows]
    seconds = 3600
    step_s = 900

    [label]
    column = "fault"

What lives here: the records, their reading, and what may be wrong with them. Tables are held
against a contract in `reuna.core.conformity`; two contracts against each other in
`reuna.core.contract_changes`. A contract travels with the settings of the signed plan, as one text.

>>> agreed = contract({"contract": '{"signals":[{"name":"t","unit":"degC","min":-20}]}'})
>>> agreed.signals[0].unit, agreed.signals[0].min, agreed.version
('degC', -20.0, 1)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from reuna.core.errors import SettingsError
from reuna.core.foreign import UNREADABLE, shown
from reuna.core.records import Setting
from reuna.core.settings import Option, between, one_of

KEY = "contract"  #: of the contract among the settings
TYPES = ("boolean", "integer", "float", "text")  #: each takes what those before it take
MAX_BAD = 0.05  #: fraction of readings outside of their range, of bad quality, after a gap
Type = Literal["boolean", "integer", "float", "text"]

#: What a column is held against, and what a failure is.
RULES: dict[str, str] = {
    "present": "rows of tables without that column",
    "type": "cells that are not of the declared type",
    "unit": "rows of tables whose unit is another, or whose median lies outside of the range",
    "missing": "empty cells",
    "range": "numbers outside of the range",
    "quality": "rows whose quality is not among the good values",
    "sampling": "steps of tables whose median step in time is another",
    "gap": "steps in time that are longer than a gap may be, or go backwards",
}


class Signal(msgspec.Struct, frozen=True, omit_defaults=True):
    """A column that the project reads. What is None or empty is not looked at.

    ``every_s``: seconds between two readings; ``max_gap_s``: most seconds between two of them;
    ``max_missing``: fraction of empty cells; ``quality``: another column, whose cells must be among
    ``good``; ``max_bad``: fraction that may fail range, quality or gap.
    """

    name: str
    unit: str = ""
    type: Type = "float"
    min: float | None = None
    max: float | None = None
    every_s: float | None = None
    max_gap_s: float | None = None
    max_missing: float | None = None
    quality: str = ""
    good: tuple[float | str, ...] = ()
    max_bad: float = MAX_BAD

    @property
    def low(self) -> float:
        """Least of the range, minus infinity where it is open."""
        return -math.inf if self.min is None else self.min

    @property
    def high(self) -> float:
        """Most of the range."""
        return math.inf if self.max is None else self.max


class Windows(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a project cuts its tables: in rows, or in seconds; 0: it does not say."""

    rows: int = 0
    step: int = 0
    seconds: float = 0.0
    step_s: float = 0.0


class Contract(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node's tables hold. ``signals`` are in the order of their names.

    ``time``: column of time; ``label``: column of the label, ``max_unlabelled`` of which may be empty;
    ``every_s``: seconds between two rows, where signals say nothing else.
    """

    version: int = 1
    time: str = ""
    every_s: float | None = None
    signals: tuple[Signal, ...] = ()
    label: str = ""
    max_unlabelled: float = 0.0
    windows: Windows = Windows()

    @property
    def looks(self) -> bool:
        """Whether there is anything to hold tables against."""
        return bool(self.signals or self.label or self.time)

    @property
    def names(self) -> tuple[str, ...]:
        """Every column it speaks of, each once."""
        told = [each.name for each in self.signals] + [self.time, self.label]
        return tuple(dict.fromkeys(filter(None, [*told, *(each.quality for each in self.signals)])))

    @property
    def window_rows(self) -> tuple[int, int]:
        """Rows of a window, and rows from the start of one to the start of the next; 0: it does not say."""
        if self.windows.seconds and self.every_s:
            step_s = self.windows.step_s or self.windows.seconds
            return max(1, round(self.windows.seconds / self.every_s)), max(1, round(step_s / self.every_s))
        return self.windows.rows, self.windows.step or self.windows.rows


class Line(msgspec.Struct, frozen=True):
    """How often a column passed and failed a rule."""

    rule: str
    signal: str
    passed: int
    failed: int


class Breach(msgspec.Struct, frozen=True):
    """A line that failed more often than the contract allows, a fraction ``allowed``."""

    line: Line
    allowed: float

    def __str__(self) -> str:
        """As an operator reads it.

        >>> print(Breach(Line("range", "t", 90, 10), 0.01))
        range of 't': 10 of 100 fail, 1 % may
        """
        failed, whole = self.line.failed, self.line.passed + self.line.failed
        may = f"{100 * self.allowed:g} % may" if self.allowed else "none may"
        return f"{self.line.rule} of {shown(self.line.signal)}: {failed} of {whole} fail, {may}"


def contract(settings: Mapping[str, Setting]) -> Contract:
    """The contract among a run's settings; one that asks nothing when there is none.

    Raises `SettingsError` for a text that is no contract of ours.
    """
    text = settings.get(KEY)
    if text is None:
        return Contract()
    try:
        return msgspec.json.decode(str(text), type=Contract)
    except (*UNREADABLE, UnicodeEncodeError) as error:
        raise SettingsError(f"the contract among the settings cannot be read: {error}") from error


def as_settings(agreed: Contract) -> dict[str, Setting]:
    """The contract as it stands among a run's settings."""
    return {} if agreed == Contract() else {KEY: msgspec.json.encode(agreed).decode()}


def breaches(agreed: Contract, lines: tuple[Line, ...]) -> tuple[Breach, ...]:
    """Lines that failed more often than is allowed; of columns that the contract does not name none."""
    found = (Breach(line, allowed) for line in lines if (allowed := limit(agreed, line)) is not None)
    return tuple(b for b in found if b.line.failed > b.allowed * (b.line.passed + b.line.failed))


def limit(agreed: Contract, line: Line) -> float | None:
    """The fraction of a line that may fail; None where the contract says nothing of it."""
    signal = next((each for each in agreed.signals if each.name == line.signal), None)
    if line.rule in ("present", "type", "unit", "sampling"):
        return 0.0 if line.signal in agreed.names else None
    if line.rule == "missing":
        if signal is not None and signal.max_missing is not None:
            return signal.max_missing
        return agreed.max_unlabelled if agreed.label and line.signal == agreed.label else None
    return None if signal is None else signal.max_bad


# --- reading [signals] ---------------------------------------------------------------------------


def _good(value: Any) -> str:
    plain = (isinstance(each, str | int | float) and not isinstance(each, bool) for each in value)
    return "" if value and all(plain) else "expected a list of numbers or texts"


_SECONDS = between(1e-9, 1e9)
_FRACTION = between(0, 1)
SIGNAL_KEYS = (
    Option("unit", str, "", "unit in which the column is"),
    Option(
        "type", str, "float", "what its cells are; each takes what those before it take", check=one_of(*TYPES)
    ),
    Option("min", float, -math.inf, "lowest plausible value"),
    Option("max", float, math.inf, "highest plausible value"),
    Option("rate_hz", float, None, "readings in a second", "Hz", _SECONDS),
    Option("every_s", float, None, "time between two readings", "s", _SECONDS),
    Option("max_gap_s", float, None, "longest time between two readings", "s", _SECONDS),
    Option("max_missing", float, None, "fraction of its cells that may be empty", check=_FRACTION),
    Option("quality", str, "", "column that says how good each value is"),
    Option("good", list, [], "what that column says of good values", check=_good),
    Option("max_bad", float, MAX_BAD, "fraction that may fail range, quality or gap", check=_FRACTION),
)
DEFAULTS = ("every_s", "max_gap_s", "max_missing", "max_bad")  #: that [contract] may say for all signals


def mistake(said: Mapping[str, Any]) -> str:
    """What is wrong with a declaration whose values are right of themselves, or ''."""
    low, high = said.get("min", -math.inf), said.get("max", math.inf)
    if not low < high:
        return f"has min {shown(low)}, which is not below max {shown(high)}"
    if "rate_hz" in said and "every_s" in said:
        return "has both rate_hz and every_s, which say the same"
    if ("quality" in said) != ("good" in said):
        return "needs both quality and good, or neither"
    numeric = sorted({"unit", "min", "max"} & set(said))
    if said.get("type") == "text" and numeric:
        return f"is text, but has {numeric[0]}"
    return ""


def odd(values: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a contract whose values are right of themselves: lines that name a setting."""
    time = values["contract.time"]
    windows = {key: values[f"windows.{key}"] for key in Windows.__struct_fields__}
    if time in values["signals"]:
        yield f"signals.{time} is the column of time; leave it out of [signals]"
    if not time:
        common = values["contract.max_gap_s"] is not None
        timed = [name for name, said in values["signals"].items() if common or "max_gap_s" in said]
        if timed:
            yield f"signals.{timed[0]} has max_gap_s, but [contract] names no column of time"
    if (windows["rows"] or windows["step"]) and (windows["seconds"] or windows["step_s"]):
        yield "windows says both rows and seconds; keep one of them"
    if windows["seconds"] and not values["contract.every_s"]:
        yield "windows.seconds needs contract.every_s, the seconds between two rows"
    for step, length in (("step", "rows"), ("step_s", "seconds")):
        if windows[step] and not windows[length]:
            yield f"windows.{step} is a step without a length; say windows.{length} as well"


def contract_of(values: Mapping[str, Any]) -> Contract:
    """The contract that the checked values of `reuna.toml` say, once `odd` found nothing."""
    common = {key: values[f"contract.{key}"] for key in DEFAULTS if values[f"contract.{key}"] is not None}
    signals = tuple(_signal(name, {**common, **said}) for name, said in sorted(values["signals"].items()))
    cut = {key: values[f"windows.{key}"] for key in Windows.__struct_fields__}
    said = {
        "version": values["contract.version"],
        "time": values["contract.time"],
        "every_s": common.get("every_s"),
        "signals": signals,
        "label": values["label.column"],
        "max_unlabelled": values["label.max_missing"],
        "windows": Windows(**_told(cut)),
    }
    return Contract(**_told(said))


def _signal(name: str, said: Mapping[str, Any]) -> Signal:
    kept = {key: value for key, value in said.items() if key in Signal.__struct_fields__}
    if "rate_hz" in said:
        kept["every_s"] = 1 / said["rate_hz"]
    for end in ("min", "max"):
        if end in kept and math.isinf(kept[end]):
            del kept[end]
    return msgspec.convert({**kept, "name": name}, Signal)


def _told(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is zero or empty: msgspec leaves out the very default, but no equal to it."""
    return {key: value for key, value in values.items() if value}
