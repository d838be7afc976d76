"""The grid: exact scaling, saturation, and the bound that keeps sums exact."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reuna.core.errors import PlanError, Refused
from reuna.core.records import Grid
from reuna.learn.grid import (
    BITS,
    PIECE,
    WIDTHS,
    Encoder,
    check_grid,
    decode,
    encode,
    largest_sum,
    needed_width,
    pack,
    sum_width,
    update_width,
    within,
)

GRIDS = st.builds(Grid, bits=st.sampled_from(BITS), exponent=st.integers(-30, 4))


@given(
    grid=GRIDS,
    values=arrays(np.float32, st.integers(0, 40), elements=st.floats(-1e6, 1e6, width=32)),
)
def test_decoding_is_within_half_a_step_unless_the_value_is_clipped(grid: Grid, values: np.ndarray) -> None:
    integers, saturated = encode(values, grid)
    top = 2 ** (grid.bits - 1) - 1
    clipped = np.abs(np.rint(values.astype(np.float64) / grid.step)) > top
    error = np.abs(decode(integers, grid) - values.astype(np.float64))
    assert saturated == np.count_nonzero(clipped)
    assert (error[~clipped] <= grid.step / 2).all()
    assert within(integers, top)


@given(grid=GRIDS, values=arrays(np.int64, 8, elements=st.integers(-7, 7)))
def test_values_on_the_grid_come_back_exactly(grid: Grid, values: np.ndarray) -> None:
    there = values * grid.step
    integers, saturated = encode(there, grid)
    assert saturated == 0
    assert (decode(integers, grid) == there).all()


@given(
    grid=GRIDS,
    values=arrays(np.int64, 8, elements=st.integers(-(2**62), 2**62)),
    weight=st.integers(1, 2**40),
)
def test_a_mean_has_the_bits_of_the_decoded_sum_divided_by_its_weight(
    grid: Grid, values: np.ndarray, weight: int
) -> None:
    assert decode(values, grid, weight).tobytes() == (decode(values, grid) / weight).tobytes()


@given(
    grid=GRIDS, more=st.integers(0, 3), seed=st.integers(0, 2**32), cuts=st.lists(st.integers(1, 2 * PIECE))
)
def test_lot_after_lot_is_as_all_at_once(grid: Grid, more: int, seed: int, cuts: list[int]) -> None:
    count = PIECE + more
    values = np.random.default_rng(seed).normal(size=count).astype(np.float32)
    encoder, whole = Encoder(grid), encode(values, grid)
    places = [0, *sorted(cut for cut in cuts if cut < count), count]
    apart = [encoder(values[at:end]) for at, end in pairwise(places)]
    np.testing.assert_array_equal(np.concatenate(apart), whole[0])
    assert (encoder.saturated, encoder.count) == (whole[1], count)
    assert encoder.largest == np.abs(values).max()
    assert encoder.width == needed_width(encoder.largest, grid)
    wide = whole[0].astype(np.float64)
    assert np.isclose(encoder.squares, wide @ wide)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_wherever_it_lies(bad: float) -> None:
    values = np.zeros(2 * PIECE, np.float32)
    values[-1] = bad
    with pytest.raises(Refused, match=f"not finite after value {PIECE}"):
        encode(values, Grid(16, -8))


def test_the_most_negative_integer_is_never_a_value() -> None:
    integers, saturated = encode(np.array([-1e9, 1e9]), Grid(8, 0))
    assert integers.tolist() == [-127, 127]
    assert saturated == 2
    assert not within(np.array([-128], np.int8), 127)


def test_a_plan_is_accepted_up_to_the_bound_and_refused_just_above() -> None:
    grid = Grid(bits=32, exponent=-24)
    most = 2**63 // 2**31 - 1
    check_grid(grid, most, 1)
    with pytest.raises(PlanError, match="could overflow a 64-bit sum"):
        check_grid(grid, most + 1, 1)


def test_at_the_bound_the_sum_of_the_largest_values_is_exact() -> None:
    grid, weight, nodes = Grid(bits=32, exponent=0), 2**31 - 1, 2
    check_grid(grid, weight, nodes)
    largest = np.array([2**31 - 1], np.int32)
    total = sum(np.multiply(largest, np.int64(weight), dtype=np.int64) for _ in range(nodes))
    assert int(total[0]) == nodes * weight * (2**31 - 1) <= largest_sum(grid, weight, nodes)


@pytest.mark.parametrize(
    ("grid", "weight", "nodes"),
    [(Grid(12, 0), 1, 1), (Grid(8, 99), 1, 1), (Grid(8, 0), 0, 1), (Grid(8, 0), 1, 0)],
)
def test_senseless_grids_are_refused(grid: Grid, weight: int, nodes: int) -> None:
    with pytest.raises(PlanError):
        check_grid(grid, weight, nodes)


@given(bits=st.sampled_from(BITS), weight=st.integers(1, 2**20), nodes=st.integers(1, 2**10))
def test_the_width_of_a_sum_holds_every_sum_the_plan_allows(bits: int, weight: int, nodes: int) -> None:
    grid = Grid(bits, 0)
    width = sum_width(grid, weight, nodes)
    assert largest_sum(grid, weight, nodes) < 2 ** (8 * width - 1)
    assert width == 1 or largest_sum(grid, weight, nodes) >= 2 ** (8 * WIDTHS[WIDTHS.index(width) - 1] - 1)
    assert width >= update_width(grid)


@pytest.mark.parametrize(
    ("width", "data"),
    [
        (1, "01 fe"),
        (2, "0100 feff"),
        (3, "0100 feff 00 ff"),
        (4, "01000000 feffffff"),
        (5, "01000000 feffffff 00 ff"),
        (6, "01000000 feffffff 0000 ffff"),
        (8, "0100000000000000 feffffffffffffff"),
    ],
)
def test_bytes_of_one_and_minus_two_are_as_published(width: int, data: str) -> None:
    assert bytes(pack(np.array([1, -2]), width)) == bytes.fromhex(data)
