"""Which rows this node learns from, and what it learns: how many hours a pump has left."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from reuna import Dataset, Table
from reuna.adapters.scored import Answer, Scored
from reuna.core.scores import life_scores

from .estimator import estimator
from .samples import Cut, Labelled, splits, width

LONGEST = 100.0  # hours; of a healthy machine nobody can say more, so longer lives are cut to this
MARGIN = 12.0  # hours; a life that is told longer than it is by more than this comes too late


def load(folder: Path, settings: Mapping[str, Any]) -> Dataset:
    """This node's windows by split, scaled on its own training windows far from any end."""
    parts = splits(folder, settings, _hours, _at_the_end, lambda hours: hours >= LONGEST)
    # Signs of wear grow ever faster: their order of magnitude tells the hours.
    train, validation, test = (replace(part, x=np.arcsinh(part.x)) for part in parts.values())
    return Dataset(train, validation, test)


def learner(settings: Mapping[str, Any]) -> Scored:
    """The model: from a window to the hours that are left after it."""
    return Scored(estimator(width(settings)), scores)


def scores(answer: Answer, data: Dataset) -> dict[str, float]:
    """By how many hours it is wrong, and how often it tells a life that is too long."""
    return life_scores(data.test.y, answer(data.test.x)[:, 0], MARGIN)


def _hours(table: Table, label: str) -> np.ndarray:
    return np.minimum(table.filled([label])[:, 0], np.float32(LONGEST))


def _at_the_end(cut: Cut) -> Labelled:
    features, _, last = cut
    return features, last
