"""How good a model is: at naming faults, at telling what is not normal, at saying how long a machine lasts.

>>> truth, named = np.array([0, 1, 1, 2]), np.array([0, 1, 0, 2])
>>> round(macro_f1(truth, named, (0, 1, 2)), 3)
0.778
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reuna.core.records import Metrics

Labels = NDArray[np.integer]
Values = NDArray[np.floating]
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


def auroc(positive: NDArray[np.bool_], scores: Values) -> float:
    """Area under the ROC curve: how often a positive sample scores above another one; ties count half.

    ``positive`` (samples,) holds both kinds. Fawcett 2006, section 7, by ranks.

    >>> auroc(np.array([False, False, True, True]), np.array([0.1, 0.4, 0.4, 0.8]))
    0.875
    """
    _, where, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[where]  # of equal scores their mean rank, from 1
    ones, zeros = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def anomaly_scores(anomalous: NDArray[np.bool_], scores: Values, threshold: float) -> Metrics:
    """``auroc``, and at the threshold ``detected`` and ``false_alarms``, as fractions.

    ``anomalous`` and ``scores`` (samples,); a higher score is stranger, one above the threshold an
    alarm. A part without samples is left out.
    """
    alarms, found = scores > threshold, {}
    if anomalous.any() and not anomalous.all():
        found["auroc"] = auroc(anomalous, scores)
    if anomalous.any():
        found["detected"] = float(np.mean(alarms[anomalous]))
    if not anomalous.all():
        found["false_alarms"] = float(np.mean(alarms[~anomalous]))
    return found


def life_scores(truth: Values, told: Values, margin: float) -> Metrics:
    """``rmse`` and ``mae`` of a remaining life in its own unit, and ``late``.

    ``late``: fraction of the samples whose machine is promised more than ``margin`` too much.
    ``truth`` and ``told`` (samples,).

    >>> life_scores(np.array([10.0, 10.0]), np.array([14.0, 7.0]), margin=3)
    {'rmse': 3.5355339059327378, 'mae': 3.5, 'late': 0.5}
    """
    error = told.astype(np.float64) - truth
    rmse, mae = float(np.sqrt(np.mean(error * error))), float(np.mean(np.abs(error)))
    return {"rmse": rmse, "mae": mae, "late": float(np.mean(error > margin))}


def mean(scores: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Metric -> its mean over those that report it."""
    names = sorted({name for found in scores for name in found})
    return {name: _average([float(s[name]) for s in scores if name in s]) for name in names}


def _average(values: list[float]) -> float:
    return sum(values) / len(values)
