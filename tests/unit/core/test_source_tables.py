"""Rows of tables as readings: times, quality, what is no reading at all."""

from __future__ import annotations

import numpy as np
import pytest

from reuna.core.source_settings import TagSettings
from reuna.core.source_tables import readings, times_ns
from reuna.core.sources import BAD, GOOD, UNCERTAIN, Scaling

NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "unit", "cells", "ns"),
    [
        ("time", "", [1_800_000_000.25], 1_800_000_000_250_000_000),
        ("time", "ms", [1_800_000_000_250.0], 1_800_000_000_250_000_000),
        ("minute", "", [2.0], 120_000_000_000),
        ("time", "", ["2027-01-15T08:00:00Z"], 1_800_000_000_000_000_000),
        ("time", "", ["2027-01-15T08:00:00.000001"], 1_800_000_000_000_001_000),
        ("time", "", ["2027-01-15T10:00:00+02:00"], 1_800_000_000_000_000_000),
    ],
)
def test_times_are_nanoseconds_since_the_epoch(name: str, unit: str, cells: list, ns: int) -> None:
    found, timed = times_ns(name, unit, np.array(cells))
    assert (found.tolist(), timed.tolist()) == ([ns], [True])


@pytest.mark.parametrize("cells", [[NAN], [np.inf], [1e300], [""], ["yesterday"], ["9999-01-01"]])
def test_a_time_that_cannot_be_read_loses_its_row(cells: list) -> None:
    found = readings([TagSettings("a", "a")], "time", "", {"time": np.array(cells), "a": np.ones(1)})
    assert found.lost == 1
    assert len(found.columns["a"]) == 0


def test_an_empty_cell_is_no_reading_and_text_is_a_bad_one() -> None:
    cells = {"time": np.arange(3.0), "a": np.array(["1", "", "1_0"]), "b": np.array([1, NAN, np.inf])}
    found = readings([TagSettings("a", "a"), TagSettings("b", "b")], "time", "", cells).columns
    for name in "ab":
        assert found[name].times.tolist() == [0, 2 * 10**9]
        assert found[name].quality.tolist() == [GOOD, BAD]


@pytest.mark.parametrize("status", [np.array(["0", "1", "9", ""]), np.array([0.0, 1.0, 9.0, NAN])])
def test_quality_is_by_declared_values_and_all_else_is_bad(status: np.ndarray) -> None:
    tag = TagSettings("a", "a", quality="q", good=("0",), uncertain=("1",))
    found = readings([tag], "time", "", {"time": np.arange(4.0), "a": np.ones(4), "q": status}).columns["a"]
    assert found.quality.tolist() == [GOOD, UNCERTAIN, BAD, BAD]


def test_with_a_quality_an_empty_value_is_a_bad_reading() -> None:
    tag = TagSettings("a", "a", quality="q", good=("0",))
    cells = {"time": np.arange(2.0), "a": np.array([NAN, NAN]), "q": np.array(["0", ""])}
    found = readings([tag], "time", "", cells).columns["a"]
    assert (found.times.tolist(), found.quality.tolist()) == ([0], [BAD])


def test_a_declared_quality_that_is_not_there_makes_all_bad() -> None:
    tag = TagSettings("a", "a", quality="q", good=("0",))
    found = readings([tag], "time", "", {"time": np.zeros(1), "a": np.ones(1)}).columns["a"]
    assert found.quality.tolist() == [BAD]


def test_values_are_scaled_and_columns_have_names_of_their_own() -> None:
    tag = TagSettings("oil", "AI_7", scaling=Scaling(0.5, 1.0))
    found = readings([tag, TagSettings("b", "b")], "time", "", {"time": np.zeros(1), "AI_7": np.array([4.0])})
    assert found.columns.keys() == {"oil"}
    assert found.columns["oil"].values.tolist() == [3.0]
