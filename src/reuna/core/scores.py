"""How good a fault classifier is, on all faults, on those its site has seen, and on normal hours.

>>> truth, named = np.array([0, 1, 1, 2]), np.array([0, 1, 0, 2])
>>> round(macro_f1(truth, named, (0, 1, 2)), 3)
0.778
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from reuna.core.records import Metrics

Labels = NDArray[np.integer]
NORMAL = 0  #: the class number of "no fault"


def macro_f1(truth: Labels, named: Labels, over: Collection[int]) -> float:
    """Mean F1 of the classes ``over``, among the samples that truly show one of them."""
    classes = list(over)
    within = np.isin(truth, classes)
    truth, named = truth[within], named[within]
    return float(np.mean([_f1(truth == each, named == each) for each in classes])) if classes else 0.0


def _f1(true: NDArray[np.bool_], said: NDArray[np.bool_]) -> float:
    size = int(true.sum() + said.sum())
    return 2 * int((true & said).sum()) / size if size else 0.0


def fault_scores(
    truth: Labels,
    named: Labels,
    classes: Collection[int],
    seen: Collection[int],
    normal_runs: NDArray[np.bool_],
) -> Metrics:
    """``all``, ``seen``, ``unseen`` (macro-F1) and ``false_alarms``, as fractions.

    ``truth`` and ``named`` (samples,) are class numbers, 0 normal; ``classes`` all of them,
    ``seen`` the faults that the site trained on; ``normal_runs`` (samples,) marks the samples of
    runs without any fault, on which an alarm is false. A part without samples is left out.
    """
    unseen = [each for each in classes if each not in (NORMAL, *seen)]
    parts = {"all": list(classes), "seen": [NORMAL, *seen], "unseen": unseen}
    found = {name: macro_f1(truth, named, over) for name, over in parts.items() if np.isin(truth, over).any()}
    if normal_runs.any():
        found["false_alarms"] = float(np.mean(named[normal_runs] != NORMAL))
    return found
