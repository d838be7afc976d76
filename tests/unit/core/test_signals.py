"""Signals that a project declares: read from reuna.toml, carried as settings, held against a column."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import SettingsError
from reuna.core.project import project_settings
from reuna.core.settings import Source
from reuna.core.signals import Signal, as_settings, contradiction, mistake, same_unit, signals, split_name
from reuna.learn.strategies import TAKES

NUMBERS = st.floats(-1e300, 1e300)


def settings_of(table: dict[str, Any], **more: Any) -> Any:
    return project_settings(
        [Source("reuna.toml", {"project": {"name": "p"}, "signals": table, **more})], TAKES
    ).settings


def test_what_reuna_toml_declares_reaches_the_project_in_the_order_of_names() -> None:
    settings = settings_of(
        {"b.c": {"unit": "m3 / h"}, "a": {"unit": "degC", "min": -20, "max": 150}, "c": {}}
    )
    assert signals(settings) == (Signal("a", "degC", -20, 150), Signal("b.c", "m3 / h"), Signal("c"))


@given(
    st.dictionaries(
        st.text(min_size=1),
        st.fixed_dictionaries({"unit": st.text(), "min": NUMBERS, "max": st.just(math.inf)}),
    )
)
def test_a_declaration_comes_back_from_the_settings_as_it_was(table: dict[str, Any]) -> None:
    assert not any(mistake(said) for said in table.values())
    found = {
        each.name: {"unit": each.unit, "min": each.min, "max": each.max}
        for each in signals(as_settings(table))
    }
    assert found == table


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("degC", "signals.t is 'degC', expected a table with unit, min, max"),
        ({"units": "K"}, "signals.t.units is not a setting; did you mean unit?"),
        ({"unit": 3}, "signals.t.unit is 3, expected text; write it in quotes"),
        ({"min": "0"}, "signals.t.min is '0', expected a number; write it without quotes"),
        ({"min": True}, "signals.t.min is True, expected a number"),
        ({"max": 10**400}, "expected a number"),
        ({"min": 5, "max": 5}, "signals.t has min 5, which is not below max 5"),
        ({"min": math.nan}, "signals.t has min nan, which is not below max inf"),
    ],
)
def test_a_mistake_in_a_declaration_is_said(said: Any, complaint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_of({"t": said})
    assert complaint in caught.value.message


def test_signals_have_one_place() -> None:
    with pytest.raises(SettingsError, match=r"data\.signals\.t is in the wrong place: declare signals under"):
        settings_of({}, data={"signals": {"t": "degC"}})


@pytest.mark.parametrize(
    ("a", "b"), [("degC", "°C"), ("degC", "\u2103"), ("mol %", "mol%"), ("µm", "\u03bcm")]
)
def test_one_unit_has_several_spellings(a: str, b: str) -> None:
    assert same_unit(a, b)


@pytest.mark.parametrize(("a", "b"), [("degC", "K"), ("mW", "MW"), ("bar", "kPa"), ("C", "degC")])
def test_what_is_written_otherwise_is_another_unit(a: str, b: str) -> None:
    assert not same_unit(a, b)


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


@pytest.mark.parametrize(
    ("unit", "median", "said"),
    [
        ("degC", 60.0, ""),
        ("", 60.0, ""),
        ("", -20.0, ""),
        ("K", 60.0, "its unit is 'K', [signals] says 'degC'"),
        ("", 333.1, "its median is 333.1, [signals] says -20 to 150 degC"),
        ("degC", 333.1, "its median is 333.1, [signals] says -20 to 150 degC"),
    ],
)
def test_a_column_is_held_against_its_declaration(unit: str, median: float, said: str) -> None:
    assert contradiction(Signal("t", "degC", -20, 150), unit, median) == said


def test_a_signal_without_a_unit_takes_any() -> None:
    assert contradiction(Signal("t"), "K", 1e9) == ""
