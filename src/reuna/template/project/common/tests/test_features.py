"""Run with ``pytest`` in the project's folder."""

import numpy as np
from detector.features import scale, windows
from detector.samples import undivided

ROWS, STEP = 12, 6


def test_a_window_has_mean_and_deviation_of_each_signal_and_the_labels_of_both_ends():
    rows = np.arange(ROWS + STEP)
    features, first, last = windows(np.column_stack([rows, 0 * rows]).astype(np.float32), rows, ROWS, STEP)
    assert features.shape == (2, 4)
    assert features[0].tolist() == np.float32([rows[:ROWS].mean(), 0, rows[:ROWS].std(), 0]).tolist()
    assert (first.tolist(), last.tolist()) == ([0, STEP], [ROWS - 1, ROWS - 1 + STEP])


def test_windows_that_straddle_the_onset_are_left_out():
    labels = np.r_[np.zeros(ROWS, int), np.ones(ROWS, int)]
    features, named = undivided(windows(np.ones((2 * ROWS, 2), np.float32), labels, ROWS, STEP))
    assert named.tolist() == [0, 1]
    assert features.shape == (2, 4)


def test_what_is_normal_lies_around_zero():
    normal = np.random.default_rng(1).normal(5, 3, size=(50, 2)).astype(np.float32)
    scaled = scale(normal, normal)
    assert np.allclose(scaled.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(scaled.std(axis=0), 1, atol=1e-4)
