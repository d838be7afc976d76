"""What a federation is compared with: one model from all samples in one place, and each node alone.

The same learner, features, settings and as many epochs as all rounds together; scored at each node.
Only possible where somebody holds all the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reuna.core.data import Dataset, pooled
from reuna.core.plans import work_seed
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


def each_alone(
    learner: Learner, nodes: Mapping[str, Any], settings: Mapping[str, Setting], rounds: int, seed: int
) -> dict[str, Metrics]:
    """Train each node on its own data, as a run does after its rounds: node -> metrics."""
    told = alone({**settings, "rounds": rounds})
    found = {}
    for name, data in nodes.items():
        model, _, _ = learner.fit(learner.init(seed), data, told, work_seed(seed, rounds + 1, name))
        found[name] = dict(learner.evaluate(model, data, settings))
    return found
