"""Reference bins: whole numbers that add up, and of few rows none that a policy keeps, not even by subtraction."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.bins import (
    INNER,
    LARGEST,
    MAX_SIGNALS,
    WHAT,
    Counted,
    as_fields,
    binned,
    count,
    is_bins,
    merged,
    of_contract,
    reference,
    together,
    told,
    without_small,
)
from reuna.core.conformity import Columns
from reuna.core.contract import Contract, Signal
from reuna.core.records import Event, Setting

AGREED = Contract(version=3, signals=(Signal("t", min=-20, max=150), Signal("u", min=0, max=1)))
CELLS = st.lists(st.integers(0, 60), min_size=INNER + 1, max_size=INNER + 1)
COUNTS = st.lists(CELLS, min_size=1, max_size=3).map(
    lambda rows: [Counted(f"s{at}", tuple(row[:INNER]), row[INNER]) for at, row in enumerate(rows)]
)
VALUES = st.lists(st.floats(-500, 500) | st.just(math.nan), max_size=60)


@given(VALUES, VALUES)
def test_every_number_is_in_one_bin_and_two_tables_are_counted_as_one(a: list[float], b: list[float]) -> None:
    def of(values: list[float]) -> tuple[Counted, ...]:
        return count(AGREED, Columns(len(values), {"t": np.array(values, np.float64)}))

    whole = of(a + b)
    assert together([of(a), of(b)]) == together([of(b), of(a)]) == whole
    assert sum(whole[0].cells) == sum(not math.isnan(x) for x in a + b)
    assert whole[0].outside == sum(not math.isnan(x) and not -20 <= x <= 150 for x in a + b)


def test_bins_are_equally_wide_and_the_highest_value_is_in_the_last() -> None:
    values = np.array([0.0, 1 / INNER, 1.0, 1.1, -0.1])
    (_, found) = count(AGREED, Columns(5, {"u": values}))
    assert (found.counts[0], found.counts[1], found.counts[-1], found.outside) == (1, 1, 1, 2)


def test_text_open_ends_and_too_many_signals_have_no_bins() -> None:
    signals = (Signal("a", min=0), Signal("b", type="text"), Signal("c"), Signal("d", min=0, max=1))
    assert [each.name for each in binned(Contract(signals=signals))] == ["d"]
    many = tuple(Signal(f"s{number:04d}", min=0, max=1) for number in range(MAX_SIGNALS + 5))
    agreed = Contract(signals=many)
    assert len(binned(agreed)) == MAX_SIGNALS
    full = [Counted(each.name, (7,) * INNER, 7) for each in binned(agreed)]
    assert is_bins(Event("n", "b", 1, 0.0, WHAT, "r", 1, {**as_fields(1, full), "withheld": 1}))
    texts = count(AGREED, Columns(2, {"t": np.array(["x", "y"]), "u": np.array([0.5, 2])}))
    assert [sum(each.cells) for each in texts] == [0, 2]


@given(COUNTS)
def test_what_is_told_is_read_again(counted: list[Counted]) -> None:
    fields = as_fields(3, counted)
    assert is_bins(Event("n", "b", 1, 0.0, WHAT, "r", 1, {**fields}))
    assert told(fields) == tuple(each for each in counted if any(each.cells))


@given(COUNTS, st.integers(0, 40))
def test_no_small_count_is_told_nor_one_that_subtraction_gives(counted: list[Counted], least: int) -> None:
    kept = without_small(as_fields(3, counted), least)
    after = {each.signal: each for each in told(kept)}
    for before in counted:
        now = after.get(before.signal, Counted(before.signal, (0,) * INNER))
        assert all(cell == 0 or cell >= least for cell in now.cells)
        assert all(new in (0, old) for new, old in zip(now.cells, before.cells, strict=True))
        hidden = sum(before.counts) - sum(now.counts)
        assert hidden == 0 or hidden >= least or not any(now.counts), "else the rest is the small one"
        if now.outside != before.outside:
            assert hidden >= least or not any(now.counts), "else the rows less all others are those outside"
    gone = sum(1 for each in counted for cell in each.cells if cell) - sum(
        1 for each in after.values() for cell in each.cells if cell
    )
    assert kept.get("withheld", 0) == gone
    assert without_small(kept, least) == kept, "once is enough"


@given(st.lists(COUNTS, max_size=4))
def test_nodes_add_up_in_any_order(nodes: list[list[Counted]]) -> None:
    agreed = Contract(signals=tuple(Signal(f"s{at}", min=0, max=1) for at in range(3)))
    reports = [as_fields(1, node) for node in nodes]
    found = merged(agreed, reports)
    assert found == merged(agreed, reports[::-1])
    for name, each in found["bins"].items():
        those = [c for node in nodes for c in node if c.signal == name and any(c.cells)]
        assert each["counts"] == [sum(column) for column in zip(*(c.counts for c in those), strict=True)]
        assert (each["outside"], each["nodes"]) == (sum(c.outside for c in those), len(those))


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 3, "why": "t was 77.5"},
        {"bin/0/t": 1.5},
        {"bin/0/t": -1},
        {"bin/0/t": True},
        {"bin/32/t": 1},
        {"bin/00/t": 1},
        {"bin/0/" + "x" * 201: 1},
        {"passed/range": 3},
        {f"bin/0/{number}": 1 for number in range(6000)},
    ],
)
def test_what_says_more_than_such_counts_is_no_statistic(fields: dict[str, Setting]) -> None:
    assert not is_bins(Event("n", "b", 1, 0.0, WHAT, "r", 1, fields))


def test_a_node_that_tells_of_other_signals_or_absurd_counts_is_not_believed() -> None:
    lies: dict[str, Setting] = {
        "bin/0/x": 5,
        "bin/0/t": LARGEST + 1,
        "bin/1/t": "9",
        "bin/9/9": 1,
        "withheld": 2**60,
    }
    found = merged(AGREED, [lies, {"bin/0/u": 4, "withheld": 2}])
    assert found["bins"].keys() == {"u"} and found["withheld"] == 2
    short = msgspec.structs.replace(Counted("t", (0,) * INNER), counts=(1, 2))
    assert of_contract(AGREED, [short, Counted("x", (0,) * INNER)]) == []


@given(COUNTS)
def test_what_a_release_says_is_read_again(counted: list[Counted]) -> None:
    agreed = Contract(signals=tuple(Signal(each.signal, min=0, max=1) for each in counted))
    said = msgspec.json.decode(msgspec.json.encode(merged(agreed, [as_fields(1, counted)])))
    assert reference(said) == tuple(each for each in counted if any(each.cells))


@pytest.mark.parametrize(
    "spread",
    [
        {"counts": [1] * (INNER - 1), "outside": 0},
        {"counts": [-1, *[1] * (INNER - 1)], "outside": 0},
        {"counts": [1] * INNER},
        "none",
    ],
)
def test_reference_bins_that_are_none_are_refused(spread: object) -> None:
    with pytest.raises(ValueError, match="bins"):
        reference({"bins": {"t": spread}})
