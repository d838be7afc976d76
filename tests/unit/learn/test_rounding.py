"""Coarse grids: right in the mean, nothing lost for good, the largest values, a step that follows."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import PlanError
from reuna.core.records import Encoding, Grid
from reuna.learn.rounding import (
    FARTHEST,
    STEP,
    Largest,
    Size,
    check_encoding,
    fine,
    fine_bits,
    followed,
    noise,
    noise_key,
    rescaled,
    rounded,
    unsent,
)

GRIDS = st.builds(Grid, bits=st.sampled_from([4, 8, 16, 32]), exponent=st.integers(-20, 4))
WANTED = st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=1, max_size=20).map(np.array)


@given(wanted=st.integers(-(2**20), 2**20))
def test_rounding_by_chance_is_right_in_the_mean_over_all_noise(wanted: int) -> None:
    """Exactly: no bias at all on the fine grid, whatever the value, unless it is clipped."""
    grid = Grid(16, 0)
    every = np.arange(2 ** fine_bits(grid))
    sent, clipped = rounded(np.full(len(every), wanted), grid, every)
    assert clipped == 0
    assert int(sent.sum()) == wanted
    assert sent.max() - sent.min() <= 1


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_noise_is_even_enough_that_the_mean_of_many_is_near(bits: int) -> None:
    grid, count = Grid(bits, 0), 65_536
    sent, _ = rounded(np.full(count, fine(np.array([0.3]), grid)[0]), grid, noise(7, 3, count, grid))
    assert abs(sent.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / count), "five standard errors"


def test_noise_is_that_of_its_run_round_node_and_place_and_of_nothing_else() -> None:
    grid = Grid(8, 0)
    key = noise_key(1, 2, "edge-1")
    assert (noise(key, 4, 100, grid) == noise(key, 4, 100, grid)).all()
    assert (noise(key, 4, 60, grid) == noise(key, 4, 100, grid)[:60]).all()
    others = [noise_key(2, 2, "edge-1"), noise_key(1, 3, "edge-1"), noise_key(1, 2, "edge-2")]
    assert len({key, *others}) == 4
    assert (noise(key, 5, 100, grid) != noise(key, 4, 100, grid)).any()
    assert noise(noise_key(1, 1, "a"), 0, 4, grid).tolist() == [61982, 14826, 36103, 21994]


@given(
    grid=GRIDS,
    by_chance=st.booleans(),
    rounds=st.lists(WANTED, min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_what_was_sent_and_what_is_left_are_what_was_wanted(
    grid: Grid, by_chance: bool, rounds: list[np.ndarray], seed: int
) -> None:
    count = min(map(len, rounds))
    limit = 2 ** (grid.bits + fine_bits(grid) - 4)  # six rounds of it fit what is left
    left, sent_sum, wanted_sum = (np.zeros(count, np.int64) for _ in range(3))
    for number, each in enumerate(rounds):
        new = np.clip(each[:count], -limit, limit)
        wanted = new + left
        sent, _ = rounded(wanted, grid, noise(seed, number, count, grid) if by_chance else None)
        left = unsent(wanted, sent, grid)
        sent_sum, wanted_sum = sent_sum + sent, wanted_sum + new
    assert ((sent_sum << fine_bits(grid)) + left == wanted_sum).all()


@given(grid=GRIDS, values=WANTED)
def test_what_is_left_is_less_than_a_step_unless_it_was_clipped(grid: Grid, values: np.ndarray) -> None:
    top = 2 ** (grid.bits - 1) - 1
    sent, clipped = rounded(values, grid)
    left = unsent(values, sent, grid)
    inside = np.abs(sent) < top
    assert (2 * np.abs(left[inside]) <= 2 ** fine_bits(grid)).all()
    assert clipped <= np.count_nonzero(~inside)


@given(
    values=st.lists(st.integers(-9, 9) | st.integers(-(2**32) + 2, 2**32 - 2), min_size=1, max_size=60),
    part=st.floats(0.001, 1),
    lot=st.integers(1, 20),
)
def test_the_largest_are_those_a_sort_finds_the_earlier_of_equals(
    values: list[int], part: float, lot: int
) -> None:
    keep = max(1, int(part * len(values)))
    lots = [np.array(values[at : at + lot]) for at in range(0, len(values), lot)]
    largest = Largest(lambda: iter(lots), keep)
    found = np.concatenate([largest.of(each) for each in lots]).tolist()
    places = sorted(range(len(values)), key=lambda place: (-abs(values[place]), place))[:keep]
    assert found == [value if place in places else 0 for place, value in enumerate(values)]


@given(total=st.integers(1, 2**80), weights=st.integers(1, 2**60))
def test_a_step_follows_the_mean_size_exactly(total: int, weights: int) -> None:
    grid = Grid(16, 0)
    size = STEP * Fraction(total, weights)
    found = followed(grid, total, weights, 0, weights)
    assert -FARTHEST <= found <= FARTHEST
    if -FARTHEST < found < FARTHEST:
        assert Fraction(2) ** found <= size < Fraction(2) ** (found + 1)


def test_a_step_grows_when_values_are_clipped_and_shrinks_when_all_are_zero() -> None:
    grid = Grid(8, -10)
    assert followed(grid, 0, 100, 0, 100) == -10 - FARTHEST
    assert followed(grid, 100, 100, 1, 100) == -10 + FARTHEST // 2
    assert followed(Grid(8, -59), 0, 1, 0, 1) == -60
    assert followed(Grid(8, 29), 10**9, 1, 0, 1) == 30


@given(blocks=st.lists(st.lists(st.integers(-(2**62), 2**62), min_size=1), min_size=1, max_size=4))
def test_the_size_of_a_sum_is_exact(blocks: list[list[int]]) -> None:
    size = Size()
    for block in blocks:
        size.add(np.array(block))
    assert size.total == sum(abs(value) for block in blocks for value in block)


@given(left=st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=1), shift=st.integers(-40, 40))
def test_what_is_left_keeps_its_size_when_the_step_changes(left: list[int], shift: int) -> None:
    found = rescaled(np.array(left, np.int32), shift, Grid(16, 0)).tolist()
    most = 2**31 - 1
    for before, after in zip(left, found, strict=True):
        exact = before * Fraction(2) ** shift
        assert after == max(-most, min(most, exact)) if shift >= 0 else abs(after - exact) <= Fraction(1, 2)


@pytest.mark.parametrize(
    ("encoding", "bits", "word"),
    [
        (Encoding(keep=0.1), 8, "lost"),
        (Encoding(feedback=True, keep=0.1, packed=False), 8, "lost"),
        (Encoding(feedback=True, keep=0.0), 8, "fraction"),
        (Encoding(feedback=True, keep=1.5), 8, "fraction"),
        (Encoding(feedback=True, keep=float("nan")), 8, "fraction"),
        (Encoding(stochastic=True), 32, "finer"),
        (Encoding(packed=False, follow=True), 16, "packed"),
        (None, 4, "less than a byte"),
        (Encoding(packed=False), 4, "less than a byte"),
    ],
)
def test_what_cannot_be_is_refused_with_a_next_step(encoding: Encoding | None, bits: int, word: str) -> None:
    with pytest.raises(PlanError, match=word) as refusal:
        check_encoding(encoding, Grid(bits, -8))
    assert word == "fraction" or "round." in refusal.value.next_step
