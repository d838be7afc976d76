"""Folds over single updates: what each withstands, and that no split into blocks changes a bit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reuna.core.errors import PlanError
from reuna.core.records import Grid
from reuna.learn import distances, robust
from reuna.learn.distances import squares
from reuna.learn.grid import encode
from reuna.learn.robust import FOLDS

GRID = Grid(32, -24)
BY_DISTANCE = [name for name, fold in FOLDS.items() if fold.factors is not None]


def folded(
    name: str,
    rows: NDArray[np.int32],
    given: Mapping[str, float] | None = None,
    grid: Grid = GRID,
    centre: NDArray[np.float32] | None = None,
) -> NDArray[np.float64]:
    """The step that the rows make."""
    fold, values = FOLDS[name], rows.shape[1]
    middle = np.zeros(values, np.float32) if centre is None else centre
    steps = fold.steps(
        lambda start, count: rows[:, start : start + count],
        len(rows),
        values,
        grid,
        {**fold.settings, **(given or {})},
        lambda start, count: middle[start : start + count],
    )
    return np.concatenate(list(steps))


def integers(rows: int, values: int, seed: int, size: int = 2**31 - 1) -> NDArray[np.int32]:
    return np.random.default_rng(seed).integers(-size, size, (rows, values), endpoint=True).astype(np.int32)


def true_squares(rows: NDArray[np.int32]) -> list[list[int]]:
    """By whole numbers of any size."""
    plain = [[int(value) for value in row] for row in rows]
    return [[sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for b in plain] for a in plain]


# --- distances ------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 2**20), st.sampled_from([3, 2**17, 2**31 - 1]))
def test_distances_are_the_true_whole_numbers(rows: int, values: int, seed: int, size: int) -> None:
    found = integers(rows, values, seed, size)
    assert squares(lambda start, count: found[:, start : start + count], rows, values).tolist() == (
        true_squares(found)
    )


@pytest.mark.parametrize(("fewest", "flush"), [(1, 1), (3, 2), (64, 1024)])
def test_distances_are_the_same_for_chunks_of_any_size(
    fewest: int, flush: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.vstack([integers(4, 50, 1), integers(2, 50, 2, 5)])
    monkeypatch.setattr(distances, "CHUNK_VALUES", 1)
    monkeypatch.setattr(distances, "FEWEST_COLUMNS", fewest)
    monkeypatch.setattr(distances, "FLUSH", flush)
    assert squares(lambda at, count: rows[:, at : at + count], 6, 50).tolist() == true_squares(rows)


def test_the_largest_differences_that_there_can_be_are_exact_over_a_whole_chunk() -> None:
    top = 2**31 - 1
    rows = np.full((2, distances.MOST_COLUMNS), top, np.int32)
    rows[1] = -top
    assert squares(lambda at, count: rows[:, at : at + count], 2, rows.shape[1])[0, 1] == (
        (2 * top) ** 2 * distances.MOST_COLUMNS
    )


# --- what they withstand ----------------------------------------------------------------------------


def late_in_training(seed: int) -> tuple[NDArray[np.float32], int]:
    """Weights of size 1; honest ones 1e-5 apart, and one attacker, last, with twenty times that noise."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=20_000)
    noise = 1e-5 * rng.normal(size=(8, weights.size))
    noise[7] *= 20
    return (weights + noise).astype(np.float32), 7


def expanded_krum(rows: NDArray[np.float32], byzantine: int) -> int:
    """Whom Krum chooses by |x|^2 + |y|^2 - 2xy in single precision."""
    own = np.sum(rows * rows, axis=1)
    found = own[:, None] + own[None, :] - 2 * rows @ rows.T
    np.fill_diagonal(found, np.inf)
    return int(np.argmin(np.sort(found, axis=1)[:, : len(rows) - byzantine - 2].sum(axis=1)))


def test_krum_is_right_where_the_expanded_formula_in_single_precision_chooses_the_attacker() -> None:
    fooled = 0
    for seed in range(30):
        rows, attacker = late_in_training(seed)
        on_grid = encode(rows, GRID)[0].astype(np.int32)
        fooled += expanded_krum(rows, 1) == attacker
        step = folded("krum", on_grid)
        chosen = [place for place, row in enumerate(on_grid) if np.array_equal(row * GRID.step, step)]
        assert attacker not in chosen
        assert len(chosen) == 1
    assert fooled > 0, "the plant does not fool the naive formula: the test shows nothing"


@pytest.mark.parametrize("name", FOLDS)
def test_two_of_nine_that_lie_as_loudly_as_they_can_move_the_step_by_little(name: str) -> None:
    rows = encode(0.01 + 1e-3 * np.random.default_rng(3).normal(size=(9, 500)), GRID)[0]
    honest = folded("median", rows[:7])
    rows[7:] = 2**31 - 1
    given = {"byzantine": 2.0} if "byzantine" in FOLDS[name].settings else {}
    found = folded(name, rows, given, centre=np.full(500, 0.01, np.float32))
    assert np.linalg.norm(found - honest) < 0.1 * np.linalg.norm(honest)
    mean = rows.mean(axis=0) * GRID.step
    assert np.linalg.norm(mean - honest) > 100 * np.linalg.norm(honest)


def test_krum_gives_one_update_and_multi_krum_the_mean_of_the_best() -> None:
    rows = integers(9, 40, 4, 1000)
    rows[2] += 10**6
    scores = [
        sum(sorted(d for j, d in enumerate(row) if j != i)[:5]) for i, row in enumerate(true_squares(rows))
    ]
    best = sorted(range(9), key=scores.__getitem__)
    assert np.array_equal(folded("krum", rows, {"byzantine": 2}), rows[best[0]] * GRID.step)
    three = folded("multi-krum", rows, {"byzantine": 2, "keep": 3})
    assert np.array_equal(three, rows[best[:3]].sum(axis=0) / 3 * GRID.step)
    most = folded("multi-krum", rows, {"byzantine": 2})
    assert np.array_equal(most, rows[best[:7]].sum(axis=0) / 7 * GRID.step)
    assert np.array_equal(most, folded("multi-krum", rows, {"byzantine": 2, "keep": 9})), (
        "no more than honest ones"
    )


def test_the_geometric_median_has_the_least_sum_of_distances() -> None:
    rows = integers(7, 5, 6, 10**6)
    found = folded("geometric-median", rows, {"iterations": 400}) / GRID.step

    def distance(point: NDArray[np.float64]) -> float:
        return float(np.linalg.norm(rows - point, axis=1).sum())

    rng = np.random.default_rng(1)
    nearby = [found + rng.normal(size=5) * 10.0**power for power in range(3, 7) for _ in range(50)]
    assert distance(found) <= min(map(distance, nearby))


def test_centred_clipping_does_what_the_papers_equation_says() -> None:
    rows, centre = integers(6, 30, 8, 10**6), integers(1, 30, 9, 10**4)[0]
    radius, point = 3e6, centre.astype(np.float64)
    for _ in range(4):
        differences = rows - point
        lengths = np.linalg.norm(differences, axis=1)
        point = point + (differences * np.minimum(1, radius / lengths)[:, None]).mean(axis=0)
    found = folded(
        "centred-clipping",
        rows,
        {"radius": radius * GRID.step, "iterations": 4},
        centre=(centre * GRID.step).astype(np.float32),
    )
    assert np.allclose(found, point * GRID.step, rtol=1e-9)


def test_equal_updates_are_the_step_of_every_fold() -> None:
    rows = np.tile(integers(1, 20, 1, 10**6), (9, 1))
    for name in FOLDS:
        centre = (rows[0] * GRID.step).astype(np.float32)
        assert np.allclose(folded(name, rows, centre=centre), rows[0] * GRID.step, rtol=1e-14)


# --- laws -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOLDS)
@pytest.mark.parametrize("columns", [1, 7, 100])
def test_any_split_into_blocks_gives_the_same_bits(
    name: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, centre = integers(9, 100, 2), np.linspace(-1, 1, 100, dtype=np.float32)
    whole = folded(name, rows, centre=centre)
    monkeypatch.setattr(robust, "columns_of", lambda _rows, _itemsize: columns)
    assert folded(name, rows, centre=centre).tobytes() == whole.tobytes()


@settings(max_examples=30)
@given(st.sampled_from(sorted(FOLDS)), st.integers(5, 12), st.integers(0, 2**20))
def test_the_order_of_the_nodes_does_not_matter(name: str, rows: int, seed: int) -> None:
    found = integers(rows, 20, seed)
    shuffled = np.random.default_rng(seed).permutation(found, axis=0)
    if name in ("geometric-median", "centred-clipping"):  # their factors are added up in the order of rows
        assert np.allclose(folded(name, shuffled), folded(name, found), rtol=1e-9, atol=1e-9)
    else:
        assert folded(name, shuffled).tobytes() == folded(name, found).tobytes()


@settings(max_examples=30)
@given(
    st.sampled_from(sorted(FOLDS)), st.integers(5, 12), st.integers(0, 2**20), st.integers(-(2**20), 2**20)
)
def test_updates_that_all_move_by_the_same_move_the_step_by_that(
    name: str, rows: int, seed: int, by: int
) -> None:
    found, centre = integers(rows, 20, seed, 2**20), np.zeros(20, np.float32)
    moved = folded(name, found + np.int32(by), centre=centre + np.float32(by * GRID.step))
    assert np.allclose(moved, folded(name, found, centre=centre) + by * GRID.step, rtol=0, atol=1e-9)


@settings(max_examples=30)
@given(st.sampled_from(BY_DISTANCE), st.integers(5, 12), st.integers(0, 2**20))
def test_no_step_lies_outside_of_the_updates(name: str, rows: int, seed: int) -> None:
    found = integers(rows, 20, seed, 2**20)
    step = folded(name, found, centre=(found[0] * GRID.step).astype(np.float32)) / GRID.step
    assert np.all(found.min(axis=0) - 1e-3 <= step)
    assert np.all(step <= found.max(axis=0) + 1e-3)


@pytest.mark.parametrize(
    ("name", "given", "least"),
    [
        ("median", {}, 3),
        ("trimmed-mean", {"byzantine": 2}, 5),
        ("krum", {"byzantine": 2}, 7),
        ("multi-krum", {"byzantine": 3}, 9),
        ("geometric-median", {}, 3),
        ("centred-clipping", {}, 3),
    ],
)
def test_too_few_updates_are_refused_with_how_many_it_needs(
    name: str, given: Mapping[str, float], least: int
) -> None:
    folded(name, integers(least, 4, 1), given)
    with pytest.raises(PlanError, match=f"^{name}.* at least {least} nodes, and there may be {least - 1}$"):
        folded(name, integers(least - 1, 4, 1), given)
