"""When to raise an alarm: a threshold on the chance of a fault, from the site's validation hours.

What lives here: pure functions over arrays. What must never: test data; it is not to be seen.

    threshold = choose_threshold(chances[labels == NORMAL])   # of the site's validation windows
    faults = decide(chances, threshold)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NORMAL = 0
QUANTILE = 0.99  # of the validation windows that are normal
MARGIN = 1.0  # added to it, in log odds
LOWEST = 0.0  # log odds: below even odds of a fault there is never an alarm

Chances = NDArray[np.float32]


def choose_threshold(normal: Chances) -> float:
    """Log odds of a fault that raise an alarm; ``normal``: (windows, classes), class 0 is normal.

    The margin stands for what one validation run cannot show. Without any window: even odds.
    """
    if len(normal) == 0:
        return LOWEST
    return max(LOWEST, float(np.quantile(fault_odds(normal), QUANTILE)) + MARGIN)


def decide(chances: Chances, threshold: float) -> NDArray[np.int64]:
    """Class of each window (windows,): the likeliest fault if its odds reach the threshold, else 0."""
    likeliest: NDArray[np.int64] = 1 + chances[:, 1:].argmax(axis=1)
    return np.where(fault_odds(chances) >= threshold, likeliest, NORMAL)


def fault_odds(chances: Chances) -> NDArray[np.float64]:
    """Log odds (windows,) of any fault against normal."""
    normal = np.clip(chances[:, NORMAL].astype(np.float64), 1e-9, 1 - 1e-9)
    return np.log1p(-normal) - np.log(normal)
