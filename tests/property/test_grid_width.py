"""An update sent in fewer bytes per integer is the same update."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from reuna.core.records import Grid
from reuna.learn.grid import encode, needed_width, update_width

grids = st.builds(Grid, st.sampled_from([8, 16, 32]), st.integers(-40, 10))
sizes = st.floats(2.0**-45, 2.0**20)


@given(grids, arrays.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1, 1, width=32)), sizes)
def test_the_narrowest_width_loses_nothing(grid: Grid, values: np.ndarray, size: float) -> None:
    delta = (values * np.float32(size)).astype(np.float32)
    width = needed_width(float(np.abs(delta).max()), grid)
    narrow, saturated = encode(delta, grid, width)
    wide, wide_saturated = encode(delta, grid)
    assert width <= update_width(grid)
    assert saturated == wide_saturated
    np.testing.assert_array_equal(narrow.astype(np.int64), wide.astype(np.int64))


@given(grids, arrays.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1, 1, width=32)), sizes)
def test_no_narrower_width_would_do(grid: Grid, values: np.ndarray, size: float) -> None:
    delta = (values * np.float32(size)).astype(np.float32)
    width = needed_width(float(np.abs(delta).max()), grid)
    wide = encode(delta, grid)[0].astype(np.int64)
    if width > 1:
        assert np.abs(wide).max() >= 2 ** (4 * width - 1)
