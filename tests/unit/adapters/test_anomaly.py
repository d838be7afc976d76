"""The anomaly detector: it learns from normal samples only, and its alarm is the node's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reuna.adapters.anomaly import AnomalyDetector
from reuna.adapters.linear import LinearReconstruction
from reuna.adapters.scored import Scored
from reuna.core.data import Dataset, Samples
from reuna.core.errors import DataError, SettingsError

FEATURES = 4


def samples(seed: int, strange: int = 0, count: int = 60) -> Samples:
    """Features that follow one load; those of the last ``strange`` samples do not."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 1)) * np.ones(FEATURES) + 0.1 * rng.normal(size=(count, FEATURES))
    y = np.zeros(count, np.int64)
    if strange:
        x[-strange:, 0] += 1.0
        y[-strange:] = 1
    return Samples(x.astype(np.float32), y)


DATA = Dataset(samples(1), samples(2), samples(3, strange=20))
SETTINGS = {"epochs": 60, "rate": 0.1, "batch": 16}


def trained(data: Dataset = DATA) -> tuple[AnomalyDetector, dict]:
    detector = AnomalyDetector(LinearReconstruction(FEATURES))
    return detector, dict(detector.fit(detector.init(1), data, SETTINGS, 1)[0])


def test_what_breaks_the_pattern_is_strange_though_every_value_is_usual() -> None:
    detector, model = trained()
    found = detector.evaluate(model, DATA, SETTINGS)
    assert found["auroc"] > 0.99
    assert found["detected"] > 0.9
    assert found["false_alarms"] < 0.1


def test_no_feature_is_made_from_itself() -> None:
    _, model = trained()
    assert np.diagonal(model["weight"]).tolist() == [0.0] * FEATURES
    assert np.abs(model["weight"]).sum() > 1


def test_nothing_is_learnt_from_anomalies() -> None:
    clean, spoilt = DATA, samples(3, strange=20)
    both = Samples(np.concatenate([clean.train.x, spoilt.x[-20:]]), np.r_[clean.train.y, spoilt.y[-20:]])
    assert trained(replace(clean, train=both))[1]["weight"].tobytes() == trained()[1]["weight"].tobytes()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_node_without_normal_samples_is_told_so(split: str) -> None:
    detector, model = trained()
    data = replace(DATA, **{split: Samples(DATA.train.x, np.ones(60, np.int64))})
    with pytest.raises(DataError, match=f"has no normal {split}"):
        if split == "train":
            detector.fit(model, data, SETTINGS, 1)
        else:
            detector.evaluate(model, data, SETTINGS)


def test_a_lower_quantile_gives_more_alarms() -> None:
    detector, model = trained()
    few, many = (detector.evaluate(model, DATA, {"quantile": q})["false_alarms"] for q in (1, 0.5))
    assert few < 0.1 < 0.3 < many
    with pytest.raises(SettingsError, match=r"train\.quantile is 1\.5, expected a number from 0 to 1"):
        detector.evaluate(model, DATA, {"quantile": 1.5})


def test_a_scored_learner_is_measured_by_the_given_yardstick_only() -> None:
    inner = LinearReconstruction(FEATURES)
    scored = Scored(inner, lambda answer, data: {"largest": float(answer(data.test.x).max())})
    data = replace(DATA, train=Samples(DATA.train.x, DATA.train.x))
    model, weight, _ = scored.fit(scored.init(1), data, SETTINGS, 1)
    assert scored.evaluate(model, data, {}) == {"largest": float(inner.predict(model, data.test.x).max())}
    assert weight == 60
