"""A run whose steps have updates of several rounds (`strategy.name = "fedbuff"`), carried out again.

When an update arrived depended on lines and machines. What it is depends on the model it was made from, the
run's seed, the round and the node; what a step is, on the updates in it. So what is recorded of each step,
nodes and the rounds of their updates, gives the same bits again, one update after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import NotReproduced
from reuna.core.plans import work_seed
from reuna.core.records import Member, Plan, RunSpec
from reuna.core.tree import top_of
from reuna.exchange.encode import Shaped
from reuna.learn.staleness import fold
from reuna.learn.strategies import strategy
from reuna.learn.sums import Part
from reuna.loop import train
from reuna.loop.plan import round_plan
from reuna.sim.clock import run_virtual
from reuna.sim.fleet import InlineWorkshop, SimEdge
from reuna.sim.storage import MemoryBlob, MemoryBlobs
from reuna.wire import digest_bytes

Updates = Sequence[tuple[str, int]]  #: of one step: node, and round whose plan the update answers


def replayed(
    spec: RunSpec, model: bytes, steps: Sequence[Updates], edges: Mapping[str, SimEdge]
) -> list[str]:
    """Digest of the model after each step, that of ``model`` before them.

    Raises `NotReproduced` when a step names an update that cannot be in it, and what a learner raises.
    """
    _check(steps, edges)
    models = [model]  #: by how many steps were made; '' of those that no later step needs
    digests = [digest_bytes(model)]
    for number, updates in enumerate(steps, 1):
        models.append(_step(spec, number, updates, models, edges))
        digests.append(digest_bytes(models[-1]))
        oldest = min((base for later in steps[number:] for _, base in later), default=number)
        for version in range(min(number, oldest - 1)):
            models[version] = b""
    return digests


def _check(steps: Sequence[Updates], edges: Mapping[str, SimEdge]) -> None:
    seen: set[tuple[str, int]] = set()
    for number, updates in enumerate(steps, 1):
        for node, base in updates:
            if node not in edges or not 1 <= base <= number or (node, base) in seen:
                raise NotReproduced(f"step {number} cannot have an update of {node} for round {base}")
            seen.add((node, base))


def _step(
    spec: RunSpec, number: int, updates: Updates, models: Sequence[bytes], edges: Mapping[str, SimEdge]
) -> bytes:
    found = [_update(spec, node, base, models[base - 1], edges[node]) for node, base in updates]
    given = [Member(node, w, base=base) for (node, base), (w, _) in zip(updates, found, strict=True)]
    times, whole = train.weighted(given, number)
    parts = [Part(values, 4, by) for (_, values), by in zip(found, times, strict=True)]
    total = list(fold(lambda part, start, count: part.source[start : start + count], parts, spec.params))
    delta = np.concatenate(total) * spec.grid.step / whole
    old = models[-1]
    header = int.from_bytes(old[:8], "little") + 8
    before = np.frombuffer(old, "<f4", offset=header)
    _, after = strategy(spec.strategy).apply({}, before, delta, number, spec.settings)
    return old[:header] + after.astype("<f4", copy=False).tobytes()


def _update(
    spec: RunSpec, node: str, base: int, model: bytes, edge: SimEdge
) -> tuple[int, NDArray[np.int32]]:
    """Its weight and integers, as the node's egress sends them."""
    plan = _plan(spec, node, base)
    held = MemoryBlob(model, plan.model)
    workshop = InlineWorkshop(edge.learner, edge.data, node)
    fitted = run_virtual(workshop.fit(held, plan.settings, work_seed(spec.seed, base, node)))
    shaped = Shaped(plan, held, fitted.weights, node, None, MemoryBlobs().new)
    values = np.concatenate([np.asarray(lot, np.int32) for lot in shaped.lots(shaped.needed())])
    return min(fitted.weight, plan.max_weight), values


def _plan(spec: RunSpec, node: str, base: int) -> Plan:
    sites = {edge: fog for fog, names in spec.fogs.items() for edge in names}
    return round_plan(spec, top_of(node, sites, spec.above), base, 1, "train", spec.model)
