"""The centralised baseline: one model from all nodes' samples in one place, scored at each node.

The same learner, features, settings and as many epochs as all rounds together: what a federation is
compared with. Only possible where somebody holds all the rows.
"""

from __future__ import annotations

from collections.abc import Mapping

from reuna.core.data import Dataset, pooled
from reuna.core.ports import Learner
from reuna.core.records import Metrics, Setting
from reuna.edge.train import alone


def centralised(
    learner: Learner, nodes: Mapping[str, Dataset], settings: Mapping[str, Setting], rounds: int, seed: int
) -> dict[str, Metrics]:
    """Train on all, evaluate on each: node -> metrics. Raises what the learner raises."""
    told = alone({**settings, "rounds": rounds})
    model, _, _ = learner.fit(learner.init(seed), pooled(list(nodes.values())), told, seed)
    return {name: dict(learner.evaluate(model, data, settings)) for name, data in nodes.items()}
