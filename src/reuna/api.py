"""The library: a whole federation in this process, on the real round logic, no server needed.

    import reuna
    result = reuna.simulate(reuna.SoftmaxClassifier(50, 2), {"plant-1": data1, "plant-2": data2}, rounds=20)
    result.scores["plant-1"], result.plot()

The nodes are real agents, fogs and a coordinator over an in-memory bus: updates are encoded on
the grid, judged, made durable (in memory) and summed exactly, as in a fleet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reuna.core.ports import Learner, Tensors
from reuna.core.records import Metrics, Setting
from reuna.core.tensors import unpack
from reuna.loop.plan import check_spec
from reuna.sim.clock import SimClock, run_virtual
from reuna.sim.fleet import FairWeather, SimEdge, SimFleet, make_spec
from reuna.sim.journal import JournalStore, SimJournal
from reuna.sim.lives import adopting_tasks

EDGES_PER_FOG = 40


@dataclass(frozen=True)
class Result:
    """What came of a simulated run.

    ``model`` is the global model, ``digest`` its digest, ``scores`` the metrics of each node,
    ``rounds`` what each round was like: took_part, loss, bytes; ``bytes_by_kind`` what left the nodes.
    """

    model: Tensors
    digest: str
    scores: Mapping[str, Metrics]
    rounds: Sequence[Mapping[str, Setting]]
    bytes_by_kind: Mapping[str, int] = field(default_factory=dict)

    @property
    def losses(self) -> list[float]:
        """Mean training loss of each round, weighted by samples."""
        return [float(each["loss"]) for each in self.rounds]

    def plot(self) -> Any:
        """The loss by round, as a matplotlib figure. Raises `ExtraMissing`."""
        from reuna.adapters.plots import loss_figure

        return loss_figure(self.losses)


def simulate(
    learner: Learner,
    nodes: Mapping[str, Any],
    rounds: int = 10,
    *,
    strategy: str = "fedavg",
    settings: Mapping[str, Setting] | None = None,
    seed: int = 1,
    fogs: int | None = None,
    evaluate: bool = True,
) -> Result:
    """Train ``learner`` over ``nodes`` (name -> this node's data) and evaluate on each.

    Equal arguments give equal bits. Raises `PlanError` for a run that could not be summed exactly,
    `LearnerError` from the learner. Not to be called inside a running event loop's own thread
    while that loop has to go on: it runs to the end first.
    """
    count = fogs or max(1, -(-len(nodes) // EDGES_PER_FOG))
    names = sorted(nodes)
    spread = {
        f"fog-{i + 1}": {name: SimEdge(learner, nodes[name]) for name in names[i::count]}
        for i in range(min(count, max(1, len(names))))
    }
    spec, model, bundle = make_spec(
        spread,
        learner,
        rounds,
        strategy=strategy,
        settings=dict(settings or {}),
        seed=seed,
        evaluate=evaluate,
    )
    check_spec(spec)
    return run_virtual(_simulate(spread, spec, model, bundle), adopting_tasks)


async def _simulate(
    spread: Mapping[str, Mapping[str, SimEdge]], spec: Any, model: bytes, bundle: bytes
) -> Result:
    store = JournalStore()
    fleet = SimFleet(spread, SimClock(), lambda: SimJournal(store), FairWeather())
    outcome = await fleet.run(spec, model, bundle)
    final = fleet.disks["cloud"].blobs.get(outcome["model"])
    assert final is not None
    kinds: dict[str, int] = {}
    for meter in fleet.meters.values():
        for flow in meter.lines:
            kinds[flow.kind] = kinds.get(flow.kind, 0) + flow.payload_bytes
    closed = sorted((number, fields) for (what, number), fields in fleet.timeline.items() if what == "round")
    return Result(
        model=unpack(final.read(0, final.size)),
        digest=outcome["model"],
        scores=outcome.get("federated", {}),
        rounds=[fields for _, fields in closed],
        bytes_by_kind=kinds,
    )
