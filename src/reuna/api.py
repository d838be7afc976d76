"""The library: a whole federation in this process, on the real round logic, no server needed.

    import reuna
    result = reuna.simulate(reuna.SoftmaxClassifier(50, 2), {"plant-1": data1, "plant-2": data2}, rounds=20)
    result.scores["plant-1"], result.plot()

The nodes are real agents, fogs and a coordinator over an in-memory bus: updates are encoded on
the grid, judged, made durable (in memory) and summed exactly, as in a fleet.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from reuna.core.errors import PlanError
from reuna.core.ports import Learner, Tensors
from reuna.core.records import Metrics, RunSpec, Setting
from reuna.core.tensors import unpack
from reuna.loop import train
from reuna.loop.plan import check_spec, edges_of
from reuna.sim.clock import SimClock, run_virtual
from reuna.sim.fleet import FairWeather, SimEdge, SimFleet, make_spec
from reuna.sim.journal import JournalStore, SimJournal
from reuna.sim.lives import adopting_tasks

EDGES_PER_FOG = 40
SILENT_S = 1.0  #: virtual seconds until a round of a replay closes without those that had no part in it
TookPart = Sequence[Collection[str]]  #: names of nodes, for each round


@dataclass(frozen=True)
class Result:
    """What came of a simulated run.

    ``model`` is the global model, ``digest`` its digest, ``scores`` the metrics of each node,
    ``rounds`` what each round was like: members, loss, bytes; ``bytes_by_kind`` what left the nodes.
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

    @property
    def took_part(self) -> list[tuple[str, ...]]:
        """Nodes that gave to each round, as `simulate` takes them to give the same bits again."""
        return [tuple(train.read_members(str(each["members"]))) for each in self.rounds]

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
    took_part: TookPart | None = None,
) -> Result:
    """Train ``learner`` over ``nodes`` (name -> this node's data) and evaluate on each.

    ``took_part`` names who gives to each round; all nodes when it is None. Equal arguments give equal
    bits. Raises `PlanError` for a run that could not be summed exactly,
    `LearnerError` from the learner. Not to be called inside a running event loop's own thread
    while that loop has to go on: it runs to the end first.
    """
    count = fogs or max(1, -(-len(nodes) // EDGES_PER_FOG))
    names = sorted(nodes)
    spread = {
        f"fog-{i + 1}": {
            name: SimEdge(learner, nodes[name], rounds_of(name, took_part)) for name in names[i::count]
        }
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
    if took_part is not None:
        spec = with_members(spec, took_part)
    return play(spread, spec, model, bundle)


def rounds_of(node: str, took_part: TookPart | None) -> frozenset[int] | None:
    """Rounds, from 1 on, in which a node takes part; None for all."""
    if took_part is None:
        return None
    return frozenset(number for number, names in enumerate(took_part, 1) if node in names)


def with_members(spec: RunSpec, took_part: TookPart) -> RunSpec:
    """The run with given members: nobody waits for others. Raises `PlanError`."""
    edges = edges_of(spec)
    if len(took_part) != spec.rounds:
        said = f"took_part has {len(took_part)} rounds, the run {spec.rounds}"
        raise PlanError(said, "Name who took part in each.")
    for number, names in enumerate(took_part, 1):
        unknown = sorted(set(names).difference(edges))
        if unknown or not names:
            said = f"names {unknown[0]!r}, which is no node" if unknown else "names nobody"
            raise PlanError(f"took_part of round {number} {said}", "Name one node of the run at least.")
    return msgspec.structs.replace(spec, quorum=1 / len(edges), deadline_s=SILENT_S)


def play(spread: Mapping[str, Mapping[str, SimEdge]], spec: RunSpec, model: bytes, bundle: bytes) -> Result:
    """A run over a fleet in this process, in fair weather. ``spread``: fog -> edge -> learner and data."""
    return run_virtual(_play(spread, spec, model, bundle), adopting_tasks)


async def _play(
    spread: Mapping[str, Mapping[str, SimEdge]], spec: RunSpec, model: bytes, bundle: bytes
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
