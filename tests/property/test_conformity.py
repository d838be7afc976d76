"""Laws of a contract's counts: they add up, they only ever fall when a rule is widened, order is no matter."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reuna.core.conformity import Columns, judge, together
from reuna.core.contract import Contract, Line, Signal, as_settings, breaches, contract
from reuna.core.contract_changes import breaking, changes
from reuna.core.contract_infer import Seen, proposed
from reuna.core.contract_report import as_fields, is_report, smallest, told, without_small
from reuna.core.project import project_settings
from reuna.core.records import Event
from reuna.core.settings import Source
from reuna.learn.strategies import TAKES

NUMBERS = st.one_of(st.floats(-50, 50), st.integers(-3, 3).map(float), st.just(math.nan), st.just(math.inf))
WORDS = st.sampled_from(["", "ok", "7", "-1.5", "1_000", "true", "0"])
FRACTIONS = st.sampled_from([0.0, 0.05, 0.5, 1.0])
UNITS = st.sampled_from(["", "degC", "°C", "K", "kscmh"])


def columns(rows: int) -> st.SearchStrategy[Any]:
    numbers = st.lists(NUMBERS, min_size=rows, max_size=rows).map(lambda cells: np.array(cells, np.float64))
    words = st.lists(WORDS, min_size=rows, max_size=rows).map(lambda cells: np.array(cells, np.str_))
    return st.one_of(numbers, numbers, words)


@st.composite
def tables(draw: st.DrawFn) -> Columns:
    """A table with some of the columns t, p, q (a quality) and at (the time)."""
    rows = draw(st.integers(1, 8))
    names = draw(st.sets(st.sampled_from(["t", "p", "q", "at"])))
    return Columns(
        rows, {name: draw(columns(rows)) for name in sorted(names)}, {name: draw(UNITS) for name in names}
    )


@st.composite
def signals(draw: st.DrawFn, name: str) -> Signal:
    kind: Any = draw(st.sampled_from(["float", "integer", "boolean", "text"]))
    bound = st.one_of(st.none(), st.integers(-5, 5).map(float))
    low, high = draw(bound), draw(bound)
    if low is not None and high is not None and low >= high:
        low = None
    numeric = kind != "text"
    quality = draw(st.booleans())
    return Signal(
        name,
        unit=draw(UNITS) if numeric else "",
        type=kind,
        min=low if numeric else None,
        max=high if numeric else None,
        every_s=draw(st.sampled_from([None, 1.0, 2.0])),
        max_gap_s=draw(st.sampled_from([None, 1.0, 5.0])),
        max_missing=draw(st.one_of(st.none(), FRACTIONS)),
        quality="q" if quality else "",
        good=draw(st.sampled_from([(0.0,), (0.0, 1.0), ("ok",), ("ok", 7.0)])) if quality else (),
        max_bad=draw(FRACTIONS),
    )


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    return Contract(
        version=draw(st.integers(1, 5)),
        time=draw(st.sampled_from(["", "at"])),
        label=draw(st.sampled_from(["", "p"])),
        max_unlabelled=draw(FRACTIONS),
        signals=tuple(draw(signals(name)) for name in draw(st.sampled_from([(), ("t",), ("p", "t")]))),
    )


def wholes(lines: tuple[Line, ...]) -> dict[tuple[str, str], int]:
    return {(line.rule, line.signal): line.passed + line.failed for line in lines}


@given(contracts(), tables())
def test_counts_add_up_to_rows_to_filled_cells_or_to_the_steps_between_them(
    agreed: Contract, table: Columns
) -> None:
    lines = judge(agreed, table)
    assert all(line.passed >= 0 and line.failed >= 0 for line in lines)
    counted = wholes(lines)
    assert len(counted) == len(lines), "each rule of each column has one line"
    for name in agreed.names:
        assert counted["present", name] == table.rows
    for signal in agreed.signals:
        cells = table.values.get(signal.name)
        filled = 0 if cells is None else sum(_filled(cell) for cell in cells)
        assert counted["type", signal.name] == filled
        assert counted.get(("missing", signal.name), 0) in (0, 0 if cells is None else table.rows)
        assert counted.get(("range", signal.name), 0) <= filled
        for rule in ("gap", "sampling"):
            assert counted.get((rule, signal.name), 0) in (0, max(0, filled - 1))


def _filled(cell: Any) -> bool:
    return bool(cell != "") if isinstance(cell, str) else not math.isnan(cell)


@given(contracts(), st.lists(tables(), min_size=1, max_size=4))
def test_the_counts_of_a_node_are_the_sums_over_its_tables_in_any_order(
    agreed: Contract, parts: list[Columns]
) -> None:
    each = [judge(agreed, part) for part in parts]
    whole = together(each)
    assert {(x.rule, x.signal): x for x in whole} == {(x.rule, x.signal): x for x in together(reversed(each))}
    for line in whole:
        of_rule = [x for part in each for x in part if (x.rule, x.signal) == (line.rule, line.signal)]
        assert line.passed == sum(x.passed for x in of_rule)
        assert line.failed == sum(x.failed for x in of_rule)


@st.composite
def wider(draw: st.DrawFn, agreed: Contract) -> Contract:
    """A contract that asks for less of the same signals."""
    return msgspec.structs.replace(
        agreed,
        max_unlabelled=draw(st.floats(agreed.max_unlabelled, 1)),
        signals=tuple(draw(_wider_signal(signal)) for signal in agreed.signals),
    )


@st.composite
def _wider_signal(draw: st.DrawFn, old: Signal) -> Signal:
    room = st.sampled_from([0.0, 1.0, 100.0])
    good = (*old.good, *draw(st.sampled_from([(), (1.0,), ("7",)]))) if old.quality else ()
    return msgspec.structs.replace(
        old,
        min=None if old.min is None or draw(st.booleans()) else old.min - draw(room),
        max=None if old.max is None or draw(st.booleans()) else old.max + draw(room),
        max_gap_s=None if old.max_gap_s is None else old.max_gap_s + draw(room),
        max_bad=draw(st.floats(old.max_bad, 1)),
        max_missing=None if old.max_missing is None else draw(st.floats(old.max_missing, 1)),
        good=good,
    )


@given(st.data(), contracts(), tables())
def test_widening_a_contract_never_gives_more_failures_nor_more_breaches(
    data: st.DataObject, agreed: Contract, table: Columns
) -> None:
    wide = data.draw(wider(agreed))
    before = {(x.rule, x.signal): x.failed for x in judge(agreed, table)}
    after = judge(wide, table)
    assert all(line.failed <= before[line.rule, line.signal] for line in after)
    named = {(b.line.rule, b.line.signal) for b in breaches(agreed, judge(agreed, table))}
    assert {(b.line.rule, b.line.signal) for b in breaches(wide, after)} <= named


@given(st.data(), contracts(), tables())
def test_what_is_called_a_wider_contract_is_compatible(
    data: st.DataObject, agreed: Contract, table: Columns
) -> None:
    assert not breaking(changes(agreed, data.draw(wider(agreed))))


@settings(max_examples=300)
@given(contracts(), contracts(), tables())
def test_data_that_kept_a_contract_keep_each_one_that_is_called_compatible(
    old: Contract, new: Contract, table: Columns
) -> None:
    if breaking(changes(old, new)) or breaches(old, judge(old, table)):
        return
    assert not breaches(new, judge(new, table))


@given(st.data(), contracts(), tables())
def test_the_order_of_the_rows_matters_to_steps_in_time_alone(
    data: st.DataObject, agreed: Contract, table: Columns
) -> None:
    order = data.draw(st.permutations(range(table.rows)))
    mixed = Columns(
        table.rows, {name: cells[list(order)] for name, cells in table.values.items()}, table.units
    )
    timed = ("gap", "sampling")
    assert [x for x in judge(agreed, table) if x.rule not in timed] == [
        x for x in judge(agreed, mixed) if x.rule not in timed
    ]


@given(contracts())
def test_a_contract_comes_back_from_the_settings_as_it_was(agreed: Contract) -> None:
    assert contract(as_settings(agreed)) == agreed


@given(contracts(), tables(), st.integers(1, 6))
def test_a_report_holds_no_count_below_what_the_policy_asks_for_and_none_to_be_told_by_subtraction(
    agreed: Contract, table: Columns, least: int
) -> None:
    fields = as_fields(agreed.version, judge(agreed, table))
    assert is_report(Event("a", "b", 1, 0.0, "contract", "r", 1, dict(fields)))
    kept = without_small(fields, least)
    assert is_report(Event("a", "b", 1, 0.0, "contract", "r", 1, dict(kept)))
    assert (smallest(kept) or least) >= least
    small = {x.rule for x in told(fields) if 0 < x.passed < least or 0 < x.failed < least}
    assert not small & {x.rule for x in told(kept)}
    assert without_small(kept, least) == kept
    assert {x for x in told(fields) if x.rule not in small} == set(told(kept))


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=6), min_size=1, max_size=3))
def test_tables_keep_the_contract_that_was_proposed_from_them(cells: list[list[float]]) -> None:
    seen, found = Seen(), []
    for each in cells:
        values = {"t [K]": np.array(each), "time": 2.0 * np.arange(len(each)), "fault": np.zeros(len(each))}
        seen.take(values, {"time": "s"})
        found.append(values)
    import tomllib

    source = Source("x", {"project": {"name": "p"}, **tomllib.loads(proposed(seen))})
    agreed = contract(project_settings([source], TAKES).settings)
    assert (agreed.time, agreed.label, agreed.every_s, agreed.signals[0].unit) == ("time", "fault", 2.0, "K")
    for values in found:
        table = Columns(len(values["time"]), {**values, "t": values["t [K]"]}, {"t": "K", "time": "s"})
        assert not breaches(agreed, judge(agreed, table))
