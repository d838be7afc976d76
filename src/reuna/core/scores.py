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


def calibration_error(truth: Labels, probabilities: NDArray[np.floating], bins: int = 15) -> float:
    """Expected calibration error: how far confidence is from accuracy, mean over the samples.

    ``truth`` (samples,) are class numbers, ``probabilities`` (samples, classes) between 0 and 1. The
    largest of a row is its confidence; bins are equally wide. Of equal ones the first class is named.
    0 without samples. Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3.

    Raises `ValueError` for other shapes or values.
    """
    truth, found = np.asarray(truth), np.asarray(probabilities, np.float64)
    if found.ndim != 2 or truth.shape != found.shape[:1]:
        raise ValueError(f"labels {truth.shape} and probabilities {found.shape} do not fit")
    if not truth.size:
        return 0.0
    if not ((found >= 0) & (found <= 1)).all():
        raise ValueError("a probability is below 0, above 1 or no number")
    confidence, right = found.max(axis=1), found.argmax(axis=1) == truth
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / truth.size)


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
