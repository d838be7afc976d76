"""How far a classifier's confidence is from how often it is right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from reuna.core.scores import calibration_error

weights = arrays(np.float64, st.tuples(st.integers(1, 30), st.just(3)), elements=st.floats(0.01, 1))


def naive(truth: NDArray[np.int64], found: NDArray[np.float64], bins: int = 15) -> float:
    """As the paper writes it: mean over bins, each by its number of samples."""
    total = 0.0
    for number in range(bins):
        within = [row for row in range(len(truth)) if min(int(found[row].max() * bins), bins - 1) == number]
        if within:
            accuracy = np.mean([found[row].argmax() == truth[row] for row in within])
            confidence = np.mean([found[row].max() for row in within])
            total += len(within) * abs(accuracy - confidence)
    return float(total / len(truth))


@given(weights, st.randoms(use_true_random=False))
def test_it_is_what_the_paper_says_and_no_order_of_samples_matters(rows: NDArray[np.float64], chance) -> None:  # type: ignore[no-untyped-def]
    found = rows / rows.sum(axis=1, keepdims=True)
    truth = np.array([chance.randrange(3) for _ in rows])
    error = calibration_error(truth, found)
    assert error == pytest.approx(naive(truth, found), abs=1e-12)
    assert 0 <= error <= 1
    order = np.array(chance.sample(range(len(rows)), len(rows)))
    assert calibration_error(truth[order], found[order]) == pytest.approx(error, abs=1e-12)


def test_who_is_as_often_right_as_sure_has_none() -> None:
    truth = np.array([0, 0, 0, 1])
    assert calibration_error(truth, np.tile([0.75, 0.25], (4, 1))) == pytest.approx(0)
    assert calibration_error(truth, np.tile([1.0, 0.0], (4, 1))) == pytest.approx(0.25)
    assert calibration_error(np.array([], int), np.empty((0, 2))) == 0


@pytest.mark.parametrize(
    ("truth", "found", "said"),
    [([0], [0.5, 0.5], "do not fit"), ([0, 1], [[0.5, 0.5]], "do not fit"), ([0], [[1.5, 0.0]], "above 1"),
     ([0], [[np.nan, 0.5]], "no number"), ([0], [[-0.5, 0.5]], "below 0")],
)  # fmt: skip
def test_what_are_no_probabilities_is_refused(truth: list[int], found: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        calibration_error(np.array(truth), np.array(found))
