"""Run with ``pytest`` in the project's folder."""

import numpy as np
from detector.features import windows

ROWS = 12


def test_windows_that_straddle_the_onset_are_left_out():
    labels = np.r_[np.zeros(ROWS, int), np.ones(ROWS, int)]
    features, named = windows(np.ones((2 * ROWS, 2), np.float32), labels, ROWS, ROWS // 2)
    assert named.tolist() == [0, 1]
    assert features.shape == (2, 4)
