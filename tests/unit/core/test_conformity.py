"""One table held against a contract, rule by rule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from reuna.core.conformity import Columns, instant, judge, odd_unit
from reuna.core.contract import Contract, Signal

NONE = math.nan


def table(units: dict[str, str] | None = None, **columns: list[Any]) -> Columns:
    values = {name: np.array(cells) for name, cells in columns.items()}
    return Columns(len(next(iter(values.values()))), values, units or {})


def counts(signal: Signal, found: Columns, **more: Any) -> dict[str, tuple[int, int]]:
    lines = judge(Contract(signals=(signal,), **more), found)
    return {line.rule: (line.passed, line.failed) for line in lines if line.signal == signal.name}


def test_a_missing_column_fails_every_row_once_and_no_other_rule() -> None:
    found = counts(Signal("t", "K", min=0, max_missing=0.0), table(u=[1.0, 2.0]))
    assert found["present"] == (0, 2)
    assert all(line == (0, 0) for rule, line in found.items() if rule != "present")


@pytest.mark.parametrize(
    ("kind", "cells", "passed", "failed"),
    [
        ("float", [1.5, NONE, math.inf], 1, 1),
        ("float", ["1.5", "", "x", "1_0", "true"], 1, 3),
        ("integer", [1.0, 1.5, NONE], 1, 1),
        ("boolean", [0.0, 1.0, 2.0], 2, 1),
        ("text", ["a", "", "7"], 2, 0),
        ("text", [1.0, NONE], 1, 0),
    ],
)
def test_filled_cells_are_of_the_declared_type(kind: Any, cells: list[Any], passed: int, failed: int) -> None:
    assert counts(Signal("t", type=kind), table(t=cells))["type"] == (passed, failed)


def test_empty_cells_are_counted_where_a_fraction_is_said() -> None:
    assert "missing" not in counts(Signal("t"), table(t=[1.0, NONE]))
    assert counts(Signal("t", max_missing=0.5), table(t=[1.0, NONE]))["missing"] == (1, 1)
    assert counts(Signal("t", type="text", max_missing=0.5), table(t=["a", ""]))["missing"] == (1, 1)


def test_numbers_outside_of_the_range_are_counted_and_its_ends_are_in() -> None:
    assert counts(Signal("t", min=0, max=2), table(t=[0.0, 2.0, 2.1, NONE, -1.0]))["range"] == (2, 2)
    assert counts(Signal("t", max=2), table(t=[-1e9, 3.0]))["range"] == (1, 1)


@pytest.mark.parametrize(
    ("unit", "cells", "good"),
    [
        ("degC", [20.0, 1e6, 21.0], True),
        ("", [20.0, 1e6, 21.0], True),
        ("celsius", [20.0], True),
        ("K", [20.0], False),
        ("", [333.0, 334.0], False),
        ("degC", [333.0, 334.0], False),
        ("", [NONE], True),
    ],
    ids=[
        "said",
        "not said",
        "another spelling",
        "another",
        "by its median",
        "said, but not so",
        "nothing there",
    ],
)
def test_a_table_in_another_unit_fails_with_all_its_rows(unit: str, cells: list[float], good: bool) -> None:
    found = counts(Signal("t", "degC", min=-20, max=150), table({"t": unit}, t=cells))["unit"]
    assert found == ((len(cells), 0) if good else (0, len(cells)))


def test_a_wrong_unit_is_said_with_the_way_to_the_right_one() -> None:
    said = odd_unit(Signal("p", "bar"), "kPa", np.array([100.0]))
    assert said == "its unit is 'kPa', the contract says 'bar' (1 kPa is 0.01 bar)"


@pytest.mark.parametrize(
    ("cells", "good", "passed"),
    [
        ([0.0, 1.0, NONE], (0.0,), 1),
        (["Good", "Bad", ""], ("Good", 7.0), 1),
        (["7", "x", ""], (7.0,), 1),
        ([0.0, 1.0, 2.0], ("Good",), 0),
    ],
)
def test_a_row_of_bad_quality_is_counted(cells: list[Any], good: tuple[Any, ...], passed: int) -> None:
    signal = Signal("t", quality="q", good=good)
    assert counts(signal, table(t=[1.0, 2.0, 3.0], q=cells))["quality"] == (passed, 3 - passed)


def test_a_gap_is_a_step_between_readings_that_is_too_long_or_goes_back() -> None:
    signal = Signal("t", max_gap_s=60)
    found = table(t=[1.0, NONE, 3.0, 4.0, 5.0], at=[0.0, 50.0, 100.0, 150.0, 140.0])
    assert counts(signal, found, time="at")["gap"] == (1, 2)


def test_a_reading_at_no_time_is_a_gap_on_either_side() -> None:
    found = table(t=[1.0, 2.0, 3.0], at=["2026-01-01", "later", "2026-01-01T00:00:01Z"])
    assert counts(Signal("t", max_gap_s=60), found, time="at")["gap"] == (0, 2)


@pytest.mark.parametrize(
    ("name", "unit", "every_s", "good"),
    [("at", "", 3, True), ("at", "min", 180, True), ("minute", "", 180, True), ("Hours", "", 10_800, True),
     ("minute", "s", 3, True), ("at", "", 3.2, True), ("at", "", 3.5, False), ("at", "", 180, False)],
)  # fmt: skip
def test_the_median_step_of_a_table_is_as_declared(name: str, unit: str, every_s: float, good: bool) -> None:
    found = table({name: unit}, t=[1.0, 2.0, 3.0, 4.0], **{name: [0.0, 3.0, 6.0, 900.0]})
    assert counts(Signal("t", every_s=every_s), found, time=name)["sampling"] == ((3, 0) if good else (0, 3))


def test_steps_are_not_looked_at_without_a_column_of_time() -> None:
    assert "sampling" not in counts(Signal("t", every_s=1.0), table(t=[1.0, 2.0]))


def test_a_label_must_be_there_and_filled_and_a_time_be_one() -> None:
    found = table(y=[0.0, NONE], at=["2026-01-01 10:00:00", "soon"])
    lines = judge(Contract(label="y", time="at"), found)
    assert {(x.rule, x.signal): (x.passed, x.failed) for x in lines} == {
        ("present", "at"): (2, 0),
        ("present", "y"): (2, 0),
        ("type", "at"): (1, 1),
        ("missing", "y"): (1, 1),
    }


def test_an_instant_without_a_zone_is_utc() -> None:
    assert instant("1970-01-01T00:01:00") == instant("1970-01-01 01:01:00+01:00") == 60.0
