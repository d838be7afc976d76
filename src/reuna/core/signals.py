"""Signals a project declares: name, unit and plausible range, and what of a column contradicts them.

    [signals]
    temperature = { unit = "degC", min = -20, max = 150 }

The declaration travels with the other settings, one plain text for each signal. Units are compared
as text: ``°C`` is ``degC``, but ``C`` is another unit, and nothing is converted.

>>> (temperature,) = signals(as_settings({"temperature": {"unit": "degC", "min": -20, "max": 150}}))
>>> contradiction(temperature, "K", 300.2)
"its unit is 'K', [signals] says 'degC'"
>>> contradiction(temperature, "", 300.2)
'its median is 300.2, [signals] says -20 to 150 degC'
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reuna.core.foreign import shown
from reuna.core.records import Setting
from reuna.core.settings import Option

PREFIX = "signals."  #: of a signal's name among the settings
KEYS = (
    Option("unit", str, "", "unit in which the column is, compared as text; without it none is compared"),
    Option("min", float, -math.inf, "lowest plausible median of the column"),
    Option("max", float, math.inf, "highest plausible median of the column"),
)
_IN_BRACKETS = re.compile(r"(?P<stem>.*\S)\s*\[(?P<unit>[^\[\]]+)\]")


@dataclass(frozen=True)
class Signal:
    """A column that the project reads. Without a unit none is compared; the range is open at first."""

    name: str
    unit: str = ""
    min: float = -math.inf
    max: float = math.inf


def signals(settings: Mapping[str, Setting]) -> tuple[Signal, ...]:
    """What ``[signals]`` declares, in the order of the names."""
    names = sorted(key for key in settings if key.startswith(PREFIX))
    return tuple(_signal(key.removeprefix(PREFIX), str(settings[key])) for key in names)


def as_settings(table: Mapping[str, Mapping[str, Any]]) -> dict[str, Setting]:
    """The table ``[signals]``, once `mistake` found none, as plain settings."""
    return {
        f"{PREFIX}{name}": f"{float(said.get('min', -math.inf))!r} {float(said.get('max', math.inf))!r} "
        f"{said.get('unit', '')}"
        for name, said in table.items()
    }


def _signal(name: str, text: str) -> Signal:
    low, high, unit = text.split(" ", 2)
    return Signal(name, unit, float(low), float(high))


def mistake(said: Mapping[str, Any]) -> str:
    """What is wrong with the range of a declaration whose values are right of themselves, or ''."""
    low, high = said.get("min", -math.inf), said.get("max", math.inf)
    return "" if low < high else f"has min {shown(low)}, which is not below max {shown(high)}"


def split_name(column: str) -> tuple[str, str]:
    """Name and unit of a column called ``temperature [degC]``; the unit is '' when it says none."""
    found = _IN_BRACKETS.fullmatch(column)
    return (found["stem"], found["unit"]) if found else (column, "")


def same_unit(a: str, b: str) -> bool:
    """Whether two units are written alike; spaces and the kind of the degree sign do not count."""
    return _plain(a) == _plain(b)


def _plain(unit: str) -> str:
    return "".join(unicodedata.normalize("NFKC", unit).replace("°", "deg").split())


def contradiction(signal: Signal, unit: str, median: float) -> str:
    """How a column with that unit ('': it says none) and median contradicts the declaration, or ''."""
    if unit and signal.unit and not same_unit(unit, signal.unit):
        return f"its unit is {unit!r}, [signals] says {signal.unit!r}"
    if not signal.min <= median <= signal.max:
        ends = f"{signal.min:g} to {signal.max:g} {signal.unit}".rstrip()
        return f"its median is {median:g}, [signals] says {ends}"
    return ""
