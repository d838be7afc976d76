"""Median and trimmed mean against their plain definitions, bit for bit."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from reuna.learn import order
from reuna.learn.order import median, trimmed_mean

KINDS = (np.int8, np.int16, np.int32, np.float32, np.float64)


def block(rows: int, columns: int, kind: type, seed: int) -> NDArray:
    """Values with many ties, both zeros and far extremes among them."""
    rng = np.random.default_rng(seed)
    if np.issubdtype(kind, np.integer):
        return rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, (rows, columns), kind, endpoint=True)
    drawn = rng.normal(size=(rows, columns)) * 10.0 ** rng.integers(-9, 9, (rows, columns))
    drawn[rng.random((rows, columns)) < 0.2] = -0.0
    drawn[rng.random((rows, columns)) < 0.2] = 0.0
    return drawn.astype(kind)


def plain_trimmed_mean(values: NDArray, trim: int) -> NDArray[np.float64]:
    """The definition, in the order that is promised."""
    kept = np.sort(values + values.dtype.type(0), axis=0)[trim : len(values) - trim].astype(np.float64)
    total = kept[0].copy()
    for row in kept[1:]:
        total += row
    return total / len(kept)


SHAPES = given(st.integers(1, 40), st.integers(1, 30), st.sampled_from(KINDS), st.integers(0, 2**20))


@SHAPES
def test_the_median_has_the_bits_of_numpys(rows: int, columns: int, kind: type, seed: int) -> None:
    values = block(rows, columns, kind, seed)
    plain = np.median(values + values.dtype.type(0), axis=0)
    assert median(values).dtype == plain.dtype
    assert median(values).tobytes() == plain.tobytes()


@SHAPES
def test_the_trimmed_mean_has_the_bits_of_sorting_and_adding_up(
    rows: int, columns: int, kind: type, seed: int
) -> None:
    values = block(rows, columns, kind, seed)
    trim = seed % (rows // 2 + rows % 2)
    assert trimmed_mean(values, trim).tobytes() == plain_trimmed_mean(values, trim).tobytes()


@SHAPES
def test_the_order_of_the_nodes_changes_no_bit(rows: int, columns: int, kind: type, seed: int) -> None:
    values = block(rows, columns, kind, seed)
    shuffled = np.random.default_rng(seed).permutation(values, axis=0)
    assert median(shuffled).tobytes() == median(values).tobytes()
    assert (
        trimmed_mean(shuffled, (rows - 1) // 2).tobytes() == trimmed_mean(values, (rows - 1) // 2).tobytes()
    )


@SHAPES
def test_both_lie_among_the_values_that_no_minority_can_reach(
    rows: int, columns: int, kind: type, seed: int
) -> None:
    values = block(rows, columns, kind, seed)
    trim = (rows - 1) // 2
    ordered = np.sort(values, axis=0).astype(np.float64)
    for found in (median(values), trimmed_mean(values, trim)):
        assert np.all(ordered[trim] <= found)
        assert np.all(found <= ordered[rows - 1 - trim])


@given(st.integers(1, 40), st.integers(0, 2**20), st.integers(-(2**30), 2**30))
def test_integers_that_all_move_by_the_same_move_both_by_that(rows: int, seed: int, by: int) -> None:
    values = np.random.default_rng(seed).integers(-(2**29), 2**29, (rows, 9)).astype(np.int32)
    assert np.array_equal(median(values + np.int32(by)), median(values) + by)
    moved, trim = values + np.int32(by), (rows - 1) // 2
    assert np.array_equal(trimmed_mean(moved, trim), trimmed_mean(values, trim) + by)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_block_of_any_size_gives_the_same_bits(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = block(9, 100, np.float32, 5)
    whole = median(values).tobytes(), trimmed_mean(values, 2).tobytes()
    monkeypatch.setattr(order, "columns_of", lambda _rows, _itemsize: size)
    assert (median(values).tobytes(), trimmed_mean(values, 2).tobytes()) == whole


@pytest.mark.parametrize("fold", [median, lambda values: trimmed_mean(values, 2)])
def test_beside_its_input_and_output_a_fold_needs_little_memory(fold: object) -> None:
    values = np.random.default_rng(1).normal(size=(16, 400_000)).astype(np.float32)
    tracemalloc.start()
    found = fold(values)  # type: ignore[operator]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - found.nbytes < 8 * 2**20


def test_no_values_have_no_median() -> None:
    assert median(np.empty((3, 0), np.float32)).size == 0
