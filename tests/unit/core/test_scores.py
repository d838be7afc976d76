"""Scores of anomaly detection and of remaining life, against what they mean by definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.scores import anomaly_scores, auroc, life_scores

SAMPLES = st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2, max_size=30).filter(
    lambda found: len({positive for positive, _ in found}) == 2
)


@given(SAMPLES)
def test_auroc_is_how_often_an_anomaly_scores_above_a_normal_sample(found: list[tuple[bool, int]]) -> None:
    positive = np.array([each for each, _ in found])
    scores = np.array([score for _, score in found], np.float32)
    pairs = [(high > low) + 0.5 * (high == low) for high in scores[positive] for low in scores[~positive]]
    assert auroc(positive, scores) == pytest.approx(sum(pairs) / len(pairs))


@given(SAMPLES)
def test_auroc_does_not_change_with_the_scale(found: list[tuple[bool, int]]) -> None:
    positive, scores = np.array([each for each, _ in found]), np.array([score for _, score in found], float)
    assert auroc(positive, scores) == auroc(positive, np.exp(3 * scores) - 1)


def test_an_alarm_is_a_score_above_the_threshold() -> None:
    scores = np.array([1.0, 2.0, 3.0, 4.0])
    found = anomaly_scores(np.array([False, False, True, True]), scores, threshold=3.0)
    assert found == {"auroc": 1.0, "detected": 0.5, "false_alarms": 0.0}


@pytest.mark.parametrize(("anomalous", "names"), [(True, {"detected"}), (False, {"false_alarms"})])
def test_what_has_no_samples_has_no_score(anomalous: bool, names: set[str]) -> None:
    assert set(anomaly_scores(np.full(3, anomalous), np.ones(3), 0.5)) == names


def test_a_life_told_too_long_is_late_and_one_told_too_short_is_not() -> None:
    truth = np.array([50.0, 50.0, 50.0, 50.0], np.float32)
    found = life_scores(truth, np.array([56.0, 55.0, 44.0, 50.0], np.float32), margin=5.0)
    assert found["late"] == 0.25
    assert found["mae"] == pytest.approx(17 / 4)
    assert found["rmse"] == pytest.approx(np.sqrt((36 + 25 + 36) / 4))
