"""Which rows this node learns from, and what it learns: to name a pump's fault."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reuna import Dataset, Table
from reuna.adapters.scored import Answer, Scored
from reuna.core.scores import fault_scores

from .estimator import estimator
from .samples import splits, undivided, width

CLASSES = range(4)  # normal, worn bearing, blocked inlet, cavitation


@dataclass(frozen=True)
class PumpData(Dataset):
    """One pump's windows; ``seen`` are the faults in its training recordings."""

    seen: tuple[int, ...] = ()


def load(folder: Path, settings: Mapping[str, Any]) -> PumpData:
    """This node's windows by split, scaled on its own normal training windows."""
    parts = splits(folder, settings, Table.whole, undivided, lambda fault: fault == 0)
    seen = tuple(int(fault) for fault in np.unique(parts["train"].y) if fault)
    return PumpData(parts["train"], parts["validation"], parts["test"], seen)


def learner(settings: Mapping[str, Any]) -> Scored:
    """The model: as many features as `load` makes, as many classes as there are."""
    return Scored(estimator(width(settings), len(CLASSES)), scores)


def scores(answer: Answer, data: PumpData) -> dict[str, float]:
    """How good it is on faults that its site has and has not seen; false alarms in normal recordings."""
    named = answer(data.test.x).argmax(axis=1)
    return fault_scores(data.test.y, named, CLASSES, data.seen, data.test.group == 0)
