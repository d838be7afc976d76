"""Units of measure: the same meaning in several spellings, and agreement with pint."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core import units
from reuna.core.units import apart, read_unit, same_unit, seconds_in, split_name

SYMBOLS = sorted(
    (
        {f"{prefix}{symbol}" for symbol in units._WITH_PREFIX for prefix in ("", *units.PREFIXES)}
        | {
            f"{prefix}{name}"
            for name, _, _ in units._WITH_PREFIX.values()
            for prefix in ("", *units.LONG_PREFIXES)
        }
        | set(units._ALONE)
    )
    - set(units._OTHERS)
)


@pytest.fixture(scope="module")
def pint() -> Any:
    return pytest.importorskip("pint", reason="pint is not installed").UnitRegistry()


def by_pint(registry: Any, text: str) -> tuple[float, dict[str, float]]:
    """Factor to the bases of SI, and their exponents."""
    found = registry.Quantity(1, text).to_base_units()
    names = {"meter": "m", "kilogram": "kg", "second": "s", "ampere": "A", "kelvin": "K", "mole": "mol"}
    powers = {names[name]: power for name, power in dict(found._units).items() if name != "radian"}
    return found.magnitude, powers


def ours(text: str) -> tuple[float, dict[str, float]]:
    found = read_unit(text)
    assert found is not None, text
    powers = {base: float(power) for base, power in zip(units.BASES, found.powers, strict=True) if power}
    return found.factor + found.zero, powers


def test_every_symbol_of_the_table_means_what_it_means_to_pint(pint: Any) -> None:
    for symbol in SYMBOLS:
        factor, powers = by_pint(pint, symbol)
        mine, own = ours(symbol)
        assert own == powers, symbol
        assert math.isclose(mine, factor, rel_tol=1e-9), symbol


@pytest.mark.parametrize("symbol", sorted(units._TEMPERATURES))
def test_temperatures_have_the_zero_that_pint_gives_them(pint: Any, symbol: str) -> None:
    assert math.isclose(ours(symbol)[0], by_pint(pint, symbol)[0])


PARTS = st.tuples(
    st.sampled_from(["m", "kg", "s", "mm", "kPa", "h", "L", "percent", "meter"]),
    st.sampled_from([-3, -2, -1, 1, 2, 3]),
)


@given(
    st.lists(PARTS, min_size=1, max_size=4),
    st.lists(st.sampled_from(["*", " * ", "/", " / ", " "]), min_size=3),
)
def test_products_and_quotients_mean_what_they_mean_to_pint(
    pint: Any, parts: list[tuple[str, int]], signs: list[str]
) -> None:
    text = "".join(
        f"{symbol}**{power}" + (signs[place] if place + 1 < len(parts) else "")
        for place, (symbol, power) in enumerate(parts)
    )
    factor, powers = by_pint(pint, text)
    mine, own = ours(text)
    assert own == {name: power for name, power in powers.items() if power}
    assert math.isclose(mine, factor, rel_tol=1e-9)


@given(st.text(max_size=12))
def test_whatever_a_file_calls_a_unit_is_read_or_not_and_never_an_error(text: str) -> None:
    assert same_unit(text, text)
    found = read_unit(text)
    assert found is None or math.isfinite(found.factor)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("degC", "°C"),
        ("degC", "\u2103"),
        ("celsius", "degree_Celsius"),
        ("mol %", "mol%"),
        ("µm", "\u03bcm"),
        ("um", "micrometer"),
        ("m3/h", "m**3 / hour"),
        ("m³/h", "m^3/h"),
        ("L/min", "l/min"),
        ("m/s²", "m*s**-2"),
        ("kscmh", " kscmh"),
    ],
)
def test_one_unit_has_several_spellings(a: str, b: str) -> None:
    assert same_unit(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("degC", "K"),
        ("mW", "MW"),
        ("bar", "kPa"),
        ("C", "degC"),
        ("kscmh", "scmh"),
        ("kPa", "kPa gauge"),
        ("%", ""),
    ],
)
def test_another_scale_or_zero_is_another_unit(a: str, b: str) -> None:
    assert not same_unit(a, b)


@pytest.mark.parametrize("text", ["", "kscmh", "Nm", "kPa gauge", "m//s", "m**99", "kdegC", "/s", "m" * 65])
def test_what_the_table_does_not_have_is_no_unit(text: str) -> None:
    assert read_unit(text) is None


@pytest.mark.parametrize(
    ("found", "wanted", "said"),
    [
        ("kPa", "bar", "1 kPa is 0.01 bar"),
        ("K", "degC", "0 K is -273.15 degC"),
        ("degF", "degC", "0 degF is -17.7778 degC"),
        ("kscmh", "m3/h", ""),
        ("A", "V", ""),
        ("bar", "bar", ""),
    ],
)
def test_how_far_two_units_of_a_kind_are_apart_is_said(found: str, wanted: str, said: str) -> None:
    assert apart(found, wanted) == said


@pytest.mark.parametrize(
    ("unit", "seconds"), [("s", 1.0), ("ms", 1e-3), ("min", 60.0), ("hour", 3600.0), ("m", None), ("", None)]
)
def test_units_of_time_have_their_seconds(unit: str, seconds: float | None) -> None:
    assert seconds_in(unit) == seconds


@pytest.mark.parametrize(
    ("column", "name", "unit"),
    [
        ("t [degC]", "t", "degC"),
        ("t[K]", "t", "K"),
        ("t", "t", ""),
        ("[K]", "[K]", ""),
        ("a [b] c", "a [b] c", ""),
    ],
)
def test_a_header_may_say_the_unit_in_brackets(column: str, name: str, unit: str) -> None:
    assert split_name(column) == (name, unit)
