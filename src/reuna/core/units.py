"""Units of measure as people and files write them: is this the same unit, and if not, how far apart?

A small table: SI with its prefixes and what plants use beside it. What it reads, it reads as pint does
(a test holds the two together), and `m3` as `m**3`. A unit that it does not know (``kscmh``,
``kPa gauge``) is compared as text. Tables are never converted, readings of a machine are.

>>> same_unit("m3/h", "m**3 / hour"), same_unit("degC", "K"), same_unit("kscmh", "kscmh")
(True, False, True)
>>> apart("kPa", "bar")
'1 kPa is 0.01 bar'
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

BASES = ("m", "kg", "s", "A", "K", "mol", "cd")
PREFIXES = dict(
    zip("TGMkhdcmuμnp", (1e12, 1e9, 1e6, 1e3, 100, 0.1, 0.01, 1e-3, 1e-6, 1e-6, 1e-9, 1e-12), strict=True)
)
LONG_PREFIXES = dict(
    zip(
        ("tera", "giga", "mega", "kilo", "hecto", "deci", "centi", "milli", "micro", "nano", "pico"),
        (1e12, 1e9, 1e6, 1e3, 100, 0.1, 0.01, 1e-3, 1e-6, 1e-9, 1e-12),
        strict=True,
    )
)
#: symbol -> long name, factor to the bases, exponents of the bases; these take prefixes
_WITH_PREFIX: dict[str, tuple[str, float, dict[str, int]]] = {
    "m": ("meter", 1.0, {"m": 1}),
    "g": ("gram", 1e-3, {"kg": 1}),
    "s": ("second", 1.0, {"s": 1}),
    "A": ("ampere", 1.0, {"A": 1}),
    "K": ("kelvin", 1.0, {"K": 1}),
    "mol": ("mole", 1.0, {"mol": 1}),
    "Hz": ("hertz", 1.0, {"s": -1}),
    "N": ("newton", 1.0, {"kg": 1, "m": 1, "s": -2}),
    "Pa": ("pascal", 1.0, {"kg": 1, "m": -1, "s": -2}),
    "J": ("joule", 1.0, {"kg": 1, "m": 2, "s": -2}),
    "W": ("watt", 1.0, {"kg": 1, "m": 2, "s": -3}),
    "Wh": ("watt_hour", 3600.0, {"kg": 1, "m": 2, "s": -2}),
    "VA": ("volt_ampere", 1.0, {"kg": 1, "m": 2, "s": -3}),
    "V": ("volt", 1.0, {"kg": 1, "m": 2, "s": -3, "A": -1}),
    "C": ("coulomb", 1.0, {"A": 1, "s": 1}),
    "ohm": ("ohm", 1.0, {"kg": 1, "m": 2, "s": -3, "A": -2}),
    "Ω": ("ohm", 1.0, {"kg": 1, "m": 2, "s": -3, "A": -2}),
    "T": ("tesla", 1.0, {"kg": 1, "s": -2, "A": -1}),
    "L": ("liter", 1e-3, {"m": 3}),
    "l": ("liter", 1e-3, {"m": 3}),
    "bar": ("bar", 1e5, {"kg": 1, "m": -1, "s": -2}),
}
_ALONE: dict[str, tuple[float, dict[str, int]]] = {
    **dict.fromkeys(("min", "minute"), (60.0, {"s": 1})),
    **dict.fromkeys(("h", "hour"), (3600.0, {"s": 1})),
    **dict.fromkeys(("d", "day"), (86_400.0, {"s": 1})),
    "week": (604_800.0, {"s": 1}),
    "rpm": (2 * math.pi / 60, {"s": -1}),
    **dict.fromkeys(("%", "percent"), (0.01, {})),
    "ppm": (1e-6, {}),
    **dict.fromkeys(("deg", "degree"), (math.pi / 180, {})),
    **dict.fromkeys(("rad", "radian"), (1.0, {})),
    "dimensionless": (1.0, {}),
    **dict.fromkeys(("t", "tonne"), (1000.0, {"kg": 1})),
    **dict.fromkeys(("inch", "in"), (0.0254, {"m": 1})),
    **dict.fromkeys(("ft", "foot"), (0.3048, {"m": 1})),
    **dict.fromkeys(("lb", "pound"), (0.45359237, {"kg": 1})),
    "psi": (6894.757293168362, {"kg": 1, "m": -1, "s": -2}),
    "atm": (101_325.0, {"kg": 1, "m": -1, "s": -2}),
}
#: symbol -> factor to kelvin, and kelvins at its zero; they stand alone in a unit
_TEMPERATURES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("degC", "celsius", "degree_Celsius"), (1.0, 273.15)),
    **dict.fromkeys(("degF", "fahrenheit", "degree_Fahrenheit"), (5 / 9, 233.15 + 200 / 9)),
}
_OTHERS = ("hbar",)  #: what a prefix and a symbol spell, but means something else
_SYNONYMS = {"metre": "meter", "litre": "liter"}
_PART = re.compile(r"(?P<symbol>[A-Za-zμΩ_%]+|1)(?:(?:\*\*|\^)?(?P<power>[+-]?\d+))?")
_IN_BRACKETS = re.compile(r"(?P<stem>.*\S)\s*\[(?P<unit>[^\[\]]+)\]")
MAX_LENGTH = 64  #: characters of a unit that is looked at
MAX_POWER = 9


@dataclass(frozen=True)
class Unit:
    """A unit in bases: ``value * factor + zero`` is in m, kg, s, A, K, mol, cd to these ``powers``."""

    factor: float
    powers: tuple[int, ...]
    zero: float = 0.0


def read_unit(text: str) -> Unit | None:
    """The unit that a text means; None when the table does not have it.

    >>> read_unit("kWh") == read_unit("3600 kJ"), read_unit("kPa gauge")
    (False, None)
    """
    plain = _plain(text)
    if plain in _TEMPERATURES:
        factor, zero = _TEMPERATURES[plain]
        return Unit(factor, _powers({"K": 1}), zero)
    factor, powers = 1.0, dict.fromkeys(BASES, 0)
    for sign, part in _parts(plain):
        found = _PART.fullmatch(part)
        known = found and ((1.0, {}) if part == "1" else _symbol(found["symbol"]))
        power = sign * int((found and found["power"]) or 1)
        if not known or abs(power) > MAX_POWER:
            return None
        factor *= known[0] ** power
        for base, exponent in known[1].items():
            powers[base] += exponent * power
    return Unit(factor, _powers(powers)) if plain else None


def _parts(plain: str) -> list[tuple[int, str]]:
    """Factors of a unit, each with 1 or -1 for above or below the line."""
    above, found = 1, []
    for each in re.split(r"(/|(?<!\*)\*(?!\*)|·|\s+)", re.sub(r"\s*(/|\*\*|\^|\*|·)\s*", r"\1", plain)):
        if each == "/":
            above = -1
        elif each in ("*", "·") or each.isspace():
            above = 1
        else:
            found.append((above, each))
    return found


def _symbol(text: str) -> tuple[float, dict[str, int]] | None:
    """Factor and exponents of one symbol or long name, with its prefix."""
    for old, new in _SYNONYMS.items():
        text = text.removesuffix(old) + new if text.endswith(old) else text
    if text in _ALONE:
        return _ALONE[text]
    if text in _OTHERS:
        return None
    for symbol, (name, factor, powers) in _WITH_PREFIX.items():
        for end, prefixes in ((symbol, PREFIXES), (name, LONG_PREFIXES)):
            before = text.removesuffix(end)
            if text == end:
                return factor, powers
            if text.endswith(end) and before in prefixes:
                return factor * prefixes[before], powers
    return None


def _powers(found: dict[str, int]) -> tuple[int, ...]:
    return tuple(found.get(base, 0) for base in BASES)


def _plain(unit: str) -> str:
    """One spelling of degree signs, micro signs and raised digits."""
    if len(unit) > MAX_LENGTH:
        return unit
    raised = re.sub(r"([⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)", r"**\1", unit)
    plain = unicodedata.normalize("NFKC", raised).replace("\u2212", "-").replace("°", "deg")
    return plain.replace("µ", "μ").replace("\u2126", "Ω").strip()


def same_unit(a: str, b: str) -> bool:
    """Whether two texts mean the same unit; what the table does not have is compared as text.

    Spaces and the kind of the degree sign do not count.
    """
    if "".join(_plain(a).split()) == "".join(_plain(b).split()):
        return True
    one, two = read_unit(a), read_unit(b)
    return one is not None and two is not None and _equal(one, two)


def _equal(one: Unit, two: Unit) -> bool:
    close = math.isclose(one.factor, two.factor, rel_tol=1e-9)
    return one.powers == two.powers and close and math.isclose(one.zero, two.zero, abs_tol=1e-9)


def apart(found: str, wanted: str) -> str:
    """How to come from one unit to another of the same kind, for people; '' when that is not known."""
    one, two = read_unit(found), read_unit(wanted)
    if one is None or two is None or one.powers != two.powers or _equal(one, two):
        return ""
    if one.zero or two.zero:
        at_zero = (one.zero - two.zero) / two.factor
        return f"0 {found} is {at_zero:.6g} {wanted}"
    return f"1 {found} is {one.factor / two.factor:.6g} {wanted}"


def conversion(found: str, wanted: str) -> tuple[float, float] | None:
    """Factor and summand that bring a number from one unit to another; None where there is no way.

    Of the same unit, and where one of them says none, 1 and 0.

    >>> conversion("bar", "kPa"), conversion("K", "degC"), conversion("bar", "degC")
    ((100.0, 0.0), (1.0, -273.15), None)
    """
    if not found or not wanted or same_unit(found, wanted):
        return 1.0, 0.0
    one, two = read_unit(found), read_unit(wanted)
    if one is None or two is None or one.powers != two.powers:
        return None
    return one.factor / two.factor, (one.zero - two.zero) / two.factor


def split_name(column: str) -> tuple[str, str]:
    """Name and unit of a column called ``temperature [degC]``; the unit is '' when it says none."""
    found = _IN_BRACKETS.fullmatch(column)
    return (found["stem"], found["unit"]) if found else (column, "")


def seconds_in(unit: str) -> float | None:
    """Seconds of a unit of time, None for any other."""
    found = read_unit(unit)
    return found.factor if found is not None and found.powers == _powers({"s": 1}) else None
