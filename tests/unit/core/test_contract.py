"""The data contract: read from reuna.toml, its mistakes, what may fail how often."""

from __future__ import annotations

import math
from typing import Any

import pytest

from reuna.core.contract import MAX_BAD, Breach, Contract, Line, Signal, Windows, breaches, contract, limit
from reuna.core.errors import SettingsError
from reuna.core.project import project_settings
from reuna.core.settings import Source, flags
from reuna.learn.strategies import TAKES


def contract_of(**sections: Any) -> Contract:
    source = Source("reuna.toml", {"project": {"name": "p"}, **sections})
    return contract(project_settings([source], TAKES).settings)


def complaint(**sections: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        contract_of(**sections)
    return caught.value.message


def test_what_reuna_toml_says_reaches_the_project_in_the_order_of_names() -> None:
    found = contract_of(
        signals={"b.c": {"unit": "m3 / h"}, "a": {"unit": "degC", "min": -20, "max": 150}, "c": {}}
    )
    assert found.signals == (Signal("a", "degC", min=-20, max=150), Signal("b.c", "m3 / h"), Signal("c"))
    assert found.version == 1


def test_what_is_said_of_all_signals_holds_for_each_that_says_nothing_else() -> None:
    found = contract_of(
        contract={
            "version": 7,
            "time": "at",
            "every_s": 10,
            "max_gap_s": 60,
            "max_missing": 0.1,
            "max_bad": 0.2,
        },
        signals={
            "a": {},
            "b": {"rate_hz": 4, "max_gap_s": 5, "max_missing": 0, "max_bad": 0},
            "c": {"type": "text", "quality": "q", "good": [0, "Good"]},
        },
    )
    a, b, c = found.signals
    assert (a.every_s, a.max_gap_s, a.max_missing, a.max_bad) == (10, 60, 0.1, 0.2)
    assert (b.every_s, b.max_gap_s, b.max_missing, b.max_bad) == (0.25, 5, 0, 0)
    assert (c.type, c.quality, c.good) == ("text", "q", (0, "Good"))
    assert (found.version, found.time) == (7, "at")
    assert found.names == ("a", "b", "c", "at", "q")


def test_a_flag_changes_what_is_said_of_all_signals() -> None:
    sources = [
        Source("reuna.toml", {"project": {"name": "p"}, "signals": {"a": {}}}),
        flags(["contract.max_bad=0.5"]),
    ]
    assert contract(project_settings(sources, TAKES).settings).signals[0].max_bad == 0.5


def test_an_open_end_of_a_range_is_none() -> None:
    (signal,) = contract_of(signals={"a": {"min": -math.inf, "max": 3}}).signals
    assert (signal.min, signal.low, signal.high) == (None, -math.inf, 3)


def test_without_a_contract_the_settings_hold_none() -> None:
    settings = project_settings([Source("reuna.toml", {"project": {"name": "p"}})], TAKES).settings
    assert "contract" not in settings
    assert contract(settings) == Contract()
    assert not contract(settings).looks


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"signals":[{"name":"t","unti":1}], "version":"x"}', "[" * 3000]
)
def test_settings_with_something_else_for_a_contract_are_one_clear_mistake(text: str) -> None:
    with pytest.raises(SettingsError, match="the contract among the settings cannot be read"):
        contract({"contract": text})


KEYS = "unit, type, min, max, rate_hz, every_s, max_gap_s, max_missing, quality, good, max_bad"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("degC", f"signals.t is 'degC', expected a table with {KEYS}"),
        ({"units": "K"}, "signals.t.units is not a setting; did you mean unit?"),
        ({"unit": 3}, "signals.t.unit is 3, expected text; write it in quotes"),
        ({"type": "double"}, "signals.t.type is 'double', must be one of boolean, integer, float, text"),
        ({"min": "0"}, "signals.t.min is '0', expected a number; write it without quotes"),
        ({"min": True}, "signals.t.min is True, expected a number"),
        ({"max": math.nan}, "signals.t has min -inf, which is not below max nan"),
        ({"max": 10**400}, "signals.t.max is 1000"),
        ({"min": 5, "max": 5}, "signals.t has min 5, which is not below max 5"),
        ({"rate_hz": 0}, "signals.t.rate_hz is 0, must be between 1e-09 and 1000000000"),
        ({"rate_hz": 1, "every_s": 1}, "signals.t has both rate_hz and every_s, which say the same"),
        ({"max_missing": 1.5}, "signals.t.max_missing is 1.5, must be between 0 and 1"),
        ({"quality": "q"}, "signals.t needs both quality and good, or neither"),
        ({"quality": "q", "good": []}, "signals.t.good is [], expected a list of numbers or texts"),
        ({"type": "text", "unit": "K"}, "signals.t is text, but has unit"),
        ({"max_gap_s": 5}, "signals.t has max_gap_s, but [contract] names no column of time"),
    ],
)
def test_a_mistake_in_a_signal_is_said(said: Any, expected: str) -> None:
    assert expected in complaint(signals={"t": said})


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"contract": {"version": 0}}, "contract.version is 0, must be between 1"),
        ({"contract": {"versoin": 1}}, "contract.versoin is not a setting; did you mean contract.version?"),
        ({"contract": {"time": "t"}, "signals": {"t": {}}}, "signals.t is the column of time; leave it out"),
        ({"windows": {"rows": 3, "seconds": 4}}, "windows says both rows and seconds"),
        ({"windows": {"seconds": 4}}, "windows.seconds needs contract.every_s"),
        ({"windows": {"step": 4}}, "windows.step is a step without a length"),
        (
            {"data": {"signals": {"t": "degC"}}},
            "data.signals.t is in the wrong place: say it under [signals]",
        ),
        ({"train": {"contract": "x"}}, "train.contract is in the wrong place: say it under [contract]"),
    ],
)
def test_a_mistake_in_the_rest_of_a_contract_is_said(sections: dict[str, Any], expected: str) -> None:
    assert expected in complaint(**sections)


@pytest.mark.parametrize(
    ("windows", "every_s", "rows"),
    [
        (Windows(), None, (0, 0)),
        (Windows(rows=12), None, (12, 12)),
        (Windows(rows=12, step=6), None, (12, 6)),
        (Windows(seconds=3600, step_s=900), 180.0, (20, 5)),
        (Windows(seconds=3600), 180.0, (20, 20)),
        (Windows(seconds=1), 180.0, (1, 1)),
    ],
)
def test_windows_are_told_in_rows(windows: Windows, every_s: float | None, rows: tuple[int, int]) -> None:
    assert Contract(windows=windows, every_s=every_s).window_rows == rows


AGREED = Contract(
    signals=(Signal("t", max_missing=0.1, quality="q", good=(0.0,)), Signal("u", max_bad=0.5)),
    label="y",
    max_unlabelled=0.2,
)


@pytest.mark.parametrize(
    ("rule", "name", "allowed"),
    [
        ("present", "t", 0.0),
        ("present", "q", 0.0),
        ("present", "y", 0.0),
        ("type", "t", 0.0),
        ("unit", "t", 0.0),
        ("sampling", "t", 0.0),
        ("missing", "t", 0.1),
        ("missing", "y", 0.2),
        ("missing", "u", None),
        ("range", "t", MAX_BAD),
        ("quality", "t", MAX_BAD),
        ("gap", "u", 0.5),
        ("range", "v", None),
        ("present", "v", None),
    ],
)
def test_each_rule_may_fail_as_often_as_the_contract_says(
    rule: str, name: str, allowed: float | None
) -> None:
    assert limit(AGREED, Line(rule, name, 1, 0)) == allowed


def test_a_rule_is_broken_by_more_failures_than_may_be_and_not_by_as_many() -> None:
    assert breaches(AGREED, (Line("missing", "t", 90, 10),)) == ()
    (breach,) = breaches(AGREED, (Line("missing", "t", 89, 11),))
    assert breach == Breach(Line("missing", "t", 89, 11), 0.1)
    assert str(breach) == "missing of 't': 11 of 100 fail, 10 % may"
    assert breaches(AGREED, (Line("type", "t", 9, 1),))
    assert breaches(AGREED, (Line("range", "v", 0, 9),)) == ()
