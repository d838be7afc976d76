"""Run with ``pytest`` in the project's folder."""

import numpy as np
from detector.features import WINDOW, windows


def test_windows_that_straddle_the_onset_are_left_out():
    labels = np.r_[np.zeros(WINDOW, int), np.ones(WINDOW, int)]
    features, named = windows(np.ones((2 * WINDOW, 2), np.float32), labels)
    assert named.tolist() == [0, 1]
    assert features.shape == (2, 4)
