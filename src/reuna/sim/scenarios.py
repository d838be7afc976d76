"""The scenarios of `reuna test`: a federation in which one site has a stated fault, and all else is well.

    untrained     no round at all: what the first model scores
    shuffled      every site's training labels are dealt out anew: what can be had without learning
    undisturbed   every site is honest and there
    dropout, poisoned, late-labels    see `reuna.core.scenarios`

What lives here: who is hit, and what a hit site does otherwise, as functions of the seed. What must
never: a verdict (`reuna.sim.judge`), files, processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reuna.core.data import Dataset, Samples
from reuna.core.plans import work_seed
from reuna.core.ports import Learner, Tensors
from reuna.core.records import Metrics, Setting
from reuna.core.scenarios import ScenarioSettings
from reuna.sim.fleet import SimEdge

UNTRAINED, SHUFFLED, UNDISTURBED = "untrained", "shuffled", "undisturbed"
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class World:
    """What every scenario is played with: a learner for each node, its data, sites, rounds, seed."""

    learner: Callable[[], Learner]
    data: Mapping[str, Any]
    sites: Mapping[str, tuple[str, ...]]
    rounds: int
    seed: int

    @property
    def labelled(self) -> bool:
        """Whether all data are `Dataset`s, whose labels can be changed."""
        return all(isinstance(data, Dataset) for data in self.data.values())


# --- who is hit -------------------------------------------------------------------------------


def heaviest(sites: Mapping[str, tuple[str, ...]], took_part: Sequence[Mapping[str, int]]) -> str:
    """The site whose updates weighed most over all rounds, the first by name of equals."""
    weights = {
        site: sum(weight.get(node, 0) for weight in took_part for node in nodes)
        for site, nodes in sites.items()
    }
    return min(weights, key=lambda site: (-weights[site], site))


def counted(nodes: Sequence[str], took_part: Sequence[Mapping[str, int]]) -> int:
    """Rounds in which an update of any of the nodes was in the sum."""
    return sum(any(node in weights for node in nodes) for weights in took_part)


def first_half(rounds: int) -> range:
    """Rounds, from 1 on, before the middle of a run; the one round of a run of one."""
    return range(1, (rounds + 1) // 2 + 1)


def before_dropout(rounds: int) -> range:
    """Rounds in which a site takes part that then is silent: half of them, none of one."""
    return range(1, rounds // 2 + 1)


# --- what the sites do ------------------------------------------------------------------------


def honest(world: World) -> dict[str, SimEdge]:
    """Every node as it is."""
    return {name: SimEdge(world.learner(), data) for name, data in world.data.items()}


def shuffled(world: World) -> dict[str, SimEdge]:
    """Every node with its training labels dealt out anew; the data must be `Dataset`s."""
    return {
        name: SimEdge(world.learner(), with_shuffled_labels(data, f"{world.seed}/{name}"))
        for name, data in world.data.items()
    }


def faulty(world: World, fault: str, site: str, asked: ScenarioSettings) -> dict[str, SimEdge]:
    """Every node as it is, but those of the site as the fault has them."""
    edges = honest(world)
    for node in world.sites[site]:
        edges[node] = hit(edges[node], node, fault, world, asked)
    return edges


def hit(edge: SimEdge, node: str, fault: str, world: World, asked: ScenarioSettings) -> SimEdge:
    """One node of the site that is hit."""
    if fault == "dropout":
        return replace(edge, rounds=frozenset(before_dropout(world.rounds)))
    if fault == "late-labels":
        early = frozenset(work_seed(world.seed, number, node) for number in first_half(world.rounds))
        return replace(edge, learner=LateLabels(edge.learner, early, asked.late_part))
    if asked.poison == "labels":
        return replace(edge, data=with_turned_labels(edge.data))
    return replace(edge, learner=Poisoner(edge.learner, asked.poison_factor))


class Fault:
    """A learner that does as another does; those below change what it gives."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    def init(self, seed: int) -> Tensors:
        return self._learner.init(seed)

    def fit(
        self, model: Tensors, data: Any, settings: Mapping[str, Setting], seed: int
    ) -> tuple[Tensors, int, Metrics]:
        return self._learner.fit(model, data, settings, seed)

    def evaluate(self, model: Tensors, data: Any, settings: Mapping[str, Setting]) -> Metrics:
        return self._learner.evaluate(model, data, settings)

    def export(self, model: Tensors) -> bytes:
        return self._learner.export(model)


class Poisoner(Fault):
    """Sends its update times ``factor``, cut to what float32 holds, and claims its honest weight."""

    def __init__(self, learner: Learner, factor: float) -> None:
        super().__init__(learner)
        self._factor = factor

    def fit(
        self, model: Tensors, data: Any, settings: Mapping[str, Setting], seed: int
    ) -> tuple[Tensors, int, Metrics]:
        trained, weight, metrics = super().fit(model, data, settings, seed)
        lied = {name: self._lie(model[name], trained[name]) for name in trained}
        return lied, weight, metrics

    def _lie(self, before: Any, after: Any) -> Any:
        moved = before + self._factor * (after.astype(np.float64) - before)
        return np.clip(moved, -LARGEST, LARGEST).astype(np.float32)


class LateLabels(Fault):
    """Trains without the last ``part`` of its samples where its seed is one of ``early``."""

    def __init__(self, learner: Learner, early: frozenset[int], part: float) -> None:
        super().__init__(learner)
        self._early = early
        self._part = part

    def fit(
        self, model: Tensors, data: Any, settings: Mapping[str, Setting], seed: int
    ) -> tuple[Tensors, int, Metrics]:
        known = without_last(data, self._part) if seed in self._early else data
        return super().fit(model, known, settings, seed)


# --- what their labels are --------------------------------------------------------------------


def with_shuffled_labels(data: Dataset, key: str) -> Dataset:
    """The same training samples, each with the label of another, as ``key`` has it."""
    train = data.train
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))
    return replace(data, train=replace(train, y=train.y[rng.permutation(len(train))]))


def with_turned_labels(data: Dataset) -> Dataset:
    """Training labels that are all wrong: the next of the site's classes, or the target mirrored."""
    y: Any = data.train.y
    if np.issubdtype(y.dtype, np.integer):
        classes, place = np.unique(y, return_inverse=True)
        turned = classes[(place + 1) % len(classes)]
    else:
        turned = (y.min() + y.max() - y).astype(y.dtype)
    return replace(data, train=replace(data.train, y=turned))


def without_last(data: Dataset, part: float) -> Dataset:
    """The training samples but for the last ``part`` of them; one is left at least."""
    train = data.train
    kept = max(1, len(train) - round(part * len(train)))
    return replace(data, train=Samples(train.x[:kept], train.y[:kept], train.group[:kept]))
