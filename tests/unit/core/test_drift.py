"""Measures of drift from counts: nothing moved is zero, both sides are alike, and each keeps its bounds."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.bins import INNER, Counted, together
from reuna.core.conformity import Columns, judge
from reuna.core.contract import Contract, Signal
from reuna.core.drift import (
    FLOOR,
    Filled,
    filled,
    jensen_shannon,
    kolmogorov_smirnov,
    psi,
    shift,
    shifts,
)

MEASURES = (psi, jensen_shannon, kolmogorov_smirnov)
BINS = st.lists(st.integers(0, 10**6), min_size=8, max_size=8).filter(any)
CELLS = st.lists(st.integers(0, 60), min_size=INNER + 1, max_size=INNER + 1).map(
    lambda row: Counted("t", tuple(row[:INNER]), row[INNER])
)


@given(BINS, st.integers(1, 1000))
def test_the_same_spread_has_not_moved_however_many_values_there_are(bins: list[int], times: int) -> None:
    for measure in MEASURES:
        assert measure(bins, bins) == 0
        found = measure(bins, [times * each for each in bins])
        assert found is not None
        assert found == pytest.approx(0, abs=1e-6)


@given(BINS, BINS)
def test_each_is_symmetric_and_within_its_bounds(a: list[int], b: list[int]) -> None:
    for measure, most in ((psi, 2 * math.log(1 / FLOOR)), (jensen_shannon, 1), (kolmogorov_smirnov, 1)):
        there, back = measure(a, b), measure(b, a)
        assert there is not None
        assert there == pytest.approx(back, abs=1e-12)
        assert 0 <= there <= most


@given(BINS, BINS, BINS)
def test_the_jensen_shannon_distance_keeps_the_triangle_inequality(
    a: list[int], b: list[int], c: list[int]
) -> None:
    direct, first, second = jensen_shannon(a, c), jensen_shannon(a, b), jensen_shannon(b, c)
    assert direct is not None
    assert first is not None
    assert second is not None
    assert direct <= first + second + 1e-7


def test_what_has_nothing_in_common_is_as_far_away_as_can_be() -> None:
    apart = [9, 0], [0, 9]
    assert jensen_shannon(*apart) == 1
    assert kolmogorov_smirnov(*apart) == 1
    assert psi(*apart) == pytest.approx(2 * (1 - FLOOR) * math.log(1 / FLOOR))


@pytest.mark.parametrize("measure", MEASURES)
def test_nothing_is_said_of_no_values_and_other_bins_are_refused(measure: type) -> None:
    assert measure([0, 0], [1, 2]) is None
    assert measure([1, 2], [0, 0]) is None
    with pytest.raises(ValueError, match="2 bins against 3"):
        measure([1, 2], [1, 2, 3])


@given(st.lists(CELLS, min_size=2, max_size=3), CELLS)
def test_no_order_of_merging_changes_what_is_found(parts: list[Counted], reference: Counted) -> None:
    found = {shifts([reference], together([[each] for each in order])) for order in permutations(parts)}
    (left, *rest) = parts
    nested = together([[left], together([[each] for each in rest])])
    assert found == {shifts([reference], nested)}


def test_a_shift_tells_of_its_values_and_of_those_that_went_out_of_range() -> None:
    before = Counted("t", (10, *[0] * (INNER - 1)), 0)
    now = Counted("t", (3, *[0] * (INNER - 1)), 1)
    found = shift(before, now)
    assert (found.signal, found.before, found.rows, found.outside, found.ks) == ("t", 10, 4, 0.25, 0)
    assert found.psi is not None
    assert found.psi > 0
    assert shift(before, Counted("t", (0,) * INNER)).outside is None
    assert [each.signal for each in shifts([before, Counted("u", (1,) * INNER)], [now])] == ["t"]


@given(BINS, BINS)
def test_scipy_finds_the_same_jensen_shannon_distance(a: list[int], b: list[int]) -> None:
    distance = pytest.importorskip("scipy.spatial.distance")
    # scipy gives NaN where rounding puts a divergence of zero below it
    expected = float(np.nan_to_num(distance.jensenshannon(a, b, base=2)))
    assert jensen_shannon(a, b) == pytest.approx(expected, abs=1e-7)


@given(BINS, BINS)
def test_scipy_finds_the_same_index(a: list[int], b: list[int]) -> None:
    special = pytest.importorskip("scipy.special")
    p, q = (np.maximum(np.array(x) / sum(x), FLOOR) for x in (a, b))
    expected = float((special.kl_div(p, q) + special.kl_div(q, p)).sum())
    assert psi(a, b) == pytest.approx(expected, abs=1e-9)


SMALL = st.lists(st.integers(0, 20), min_size=5, max_size=5).filter(any)


@given(SMALL, SMALL)
def test_scipy_finds_the_same_statistic_of_the_values_that_the_bins_stand_for(
    a: list[int], b: list[int]
) -> None:
    stats = pytest.importorskip("scipy.stats")
    values = [np.repeat(np.arange(5), side) for side in (a, b)]
    expected = stats.ks_2samp(*values, method="asymp").statistic
    assert kolmogorov_smirnov(a, b) == pytest.approx(expected, abs=1e-12)


NUMBERS = st.lists(st.floats(0, 1), min_size=1, max_size=40)


@given(NUMBERS, NUMBERS)
def test_bins_never_show_more_than_the_values_do(a: list[float], b: list[float]) -> None:
    counted = [np.histogram(side, 4, (0, 1))[0].tolist() for side in (a, b)]
    at = np.array(sorted(a + b))
    below = [np.searchsorted(np.sort(side), at, "right") / len(side) for side in (a, b)]
    found = kolmogorov_smirnov(*counted)
    assert found is not None
    assert found <= np.abs(below[0] - below[1]).max() + 1e-12


def test_empty_cells_are_read_from_the_counts_of_the_contract() -> None:
    agreed = Contract(signals=(Signal("t"), Signal("mode", type="text")))
    cells = {"t": np.array([1.0, np.nan, np.nan, 4.0]), "mode": np.array(["a", "", "b", "c"])}
    found = filled(judge(agreed, Columns(4, cells)))
    assert found == (Filled("t", 2, 4), Filled("mode", 3, 4))
