"""The sampling grid: every reading counts for one row, and no row knows anything of later."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.grid import Cells, Grid, Rows, joined, sampled
from reuna.core.live import Mark, Shape, after, begun, due, due_ns, until
from reuna.core.sources import BAD, GOOD, NS, column

TIMES = st.integers(-(10**12), 10**12)
grids = st.builds(Grid, TIMES, st.integers(4, 10**10))


@given(grids, TIMES)
def test_a_reading_counts_for_exactly_one_row(grid: Grid, time: int) -> None:
    row = grid.row_of(time)
    assert grid.end(row - 1) < time <= grid.end(row)
    first, last = grid.span(row, 1)
    assert first <= time < last
    assert grid.span(row, 2)[0] == first


@given(grids, st.lists(st.tuples(TIMES, st.booleans()), max_size=20), st.integers(-5, 5), st.integers(1, 30))
def test_a_row_has_the_last_reading_of_its_own_time(
    grid: Grid, readings: list[tuple[int, bool]], first: int, count: int
) -> None:
    readings = sorted(dict(readings).items())
    times = [time for time, _ in readings]
    found = column(times, range(len(times)), [BAD if bad else GOOD for _, bad in readings])
    cells = sampled(found, grid, first, count)
    for place in range(count):
        mine = [number for number, time in enumerate(times) if grid.row_of(time) == first + place]
        if mine:
            assert cells.values[place] == mine[-1]
            assert cells.good[place] == (not readings[mine[-1]][1])
        else:
            assert np.isnan(cells.values[place])
            assert cells.good[place]


@given(grids, st.lists(TIMES, max_size=20, unique=True), st.integers(0, 10), st.integers(0, 10))
def test_rows_read_apart_are_the_rows_read_at_once(grid: Grid, times: list[int], one: int, two: int) -> None:
    found = column(sorted(times), range(len(times)))
    whole = sampled(found, grid, 0, one + two)
    apart = joined(sampled(found, grid, 0, one), sampled(found, grid, one, two))
    np.testing.assert_array_equal(whole.values, apart.values)
    np.testing.assert_array_equal(whole.good, apart.good)


def test_a_part_of_rows_knows_when_it_begins() -> None:
    rows = Rows(100, 10, 4, {"a": Cells(np.arange(4.0), np.ones(4, bool))}, before=2)
    part = rows.part(1, 2)
    assert (part.first_ns, part.count, part.before) == (110, 2, 1)
    assert part.cells["a"].values.tolist() == [1.0, 2.0]


marks = st.builds(
    Mark, TIMES, st.integers(4, 10**10), st.integers(1, 50), st.integers(1, 60), st.integers(0, 10**6)
)


@given(marks, st.integers(0, 10**13), st.integers(0, 10**9))
def test_windows_are_due_one_after_the_other(mark: Mark, passed: int, lateness: int) -> None:
    now = due_ns(mark, lateness) + passed
    count = due(mark, now, lateness)
    assert count >= 1
    assert due(mark, due_ns(mark, lateness) - 1, lateness) == 0
    last = after(mark, count - 1)
    assert due_ns(last, lateness) <= now < due_ns(after(mark, count), lateness)


@given(marks, TIMES)
def test_what_is_passed_over_ends_before_the_reading(mark: Mark, time: int) -> None:
    over = until(mark, time)
    grid = mark.grid
    assert over == 0 or grid.end(after(mark, over - 1).next + mark.length - 1) < time
    assert grid.end(after(mark, over).next + mark.length - 1) >= time


@given(marks, st.integers(4, 10**10), st.integers(1, 50), st.integers(1, 60))
def test_other_windows_begin_behind_those_that_were_answered(
    mark: Mark, every: int, length: int, step: int
) -> None:
    mark = after(mark, 1)
    new = begun(Shape(every, length, step), mark, 0)
    answered = mark.grid.moment(mark.next - mark.step + mark.length - 1)
    if new is not mark:
        assert new.grid.moment(new.next) > answered
    assert begun(mark.shape, mark, 7) is mark


@pytest.mark.parametrize(("time", "row"), [(0, 0), (25 * NS, 0), (25 * NS + 1, 1), (-75 * NS, -1)])
def test_a_quarter_of_the_interval_is_left_for_what_is_late(time: int, row: int) -> None:
    assert Grid(0, 100 * NS).row_of(time) == row
