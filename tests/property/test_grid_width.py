"""An update sent in fewer bytes per integer is the same update."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from reuna.core.records import Grid
from reuna.learn.grid import LOT, WIDTHS, encode, needed_width, pack, unpack, update_width

grids = st.builds(Grid, st.sampled_from([8, 16, 32]), st.integers(-40, 10))
sizes = st.floats(2.0**-45, 2.0**20)


@given(grids, arrays.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1, 1, width=32)), sizes)
def test_the_narrowest_width_loses_nothing(grid: Grid, values: np.ndarray, size: float) -> None:
    delta = (values * np.float32(size)).astype(np.float32)
    width = needed_width(float(np.abs(delta).max()), grid)
    wide, _saturated = encode(delta, grid)
    assert width <= update_width(grid)
    np.testing.assert_array_equal(unpack(pack(wide, width), width), wide)


@given(grids, arrays.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1, 1, width=32)), sizes)
def test_no_narrower_width_would_do(grid: Grid, values: np.ndarray, size: float) -> None:
    delta = (values * np.float32(size)).astype(np.float32)
    width = needed_width(float(np.abs(delta).max()), grid)
    wide = encode(delta, grid)[0].astype(np.int64)
    if width > 1:
        assert np.abs(wide).max() >= 2 ** (8 * WIDTHS[WIDTHS.index(width) - 1] - 1)


@given(st.sampled_from(WIDTHS), st.integers(0, 20), st.integers(0, 2**32), st.sampled_from([0, 1, 2, 3]))
def test_integers_of_every_width_come_back(width: int, more: int, seed: int, lots: int) -> None:
    top = 2 ** (8 * width - 1) - 1
    values = np.random.default_rng(seed).integers(-top, top, lots * LOT + more, np.int64, endpoint=True)
    data = pack(values, width)
    assert len(data) == width * len(values)
    np.testing.assert_array_equal(unpack(data, width), values)


@given(st.sampled_from(WIDTHS), st.integers(1, 20), st.integers(0, 2**32))
def test_whole_lots_are_read_by_themselves(width: int, more: int, seed: int) -> None:
    top = 2 ** (8 * width - 1) - 1
    values = np.random.default_rng(seed).integers(-top, top, 2 * LOT + more, np.int64, endpoint=True)
    data = bytes(pack(values, width))
    assert pack(values[:LOT], width) == data[: LOT * width]
    np.testing.assert_array_equal(unpack(data[LOT * width :], width), values[LOT:])
