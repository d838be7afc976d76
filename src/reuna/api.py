"""The library: a whole federation in this process, on the real round logic, no server needed.

    import reuna
    result = reuna.simulate(reuna.SoftmaxClassifier(50, 2), {"plant-1": data1, "plant-2": data2}, rounds=20)
    result.scores["plant-1"], result.plot()

With ``compare=True`` each node is also trained alone, and one model on all data in one place; then
``result.plot_sites()`` shows the three ways side by side.

The nodes are real agents, fogs and a coordinator over an in-memory bus: updates are encoded on
the grid, judged, made durable (in memory) and summed exactly, as in a fleet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from reuna.core.data import Dataset
from reuna.core.errors import DataError, PlanError
from reuna.core.ports import Learner, Tensors
from reuna.core.records import Asking, Metrics, RunSpec, Setting
from reuna.core.tensors import unpack
from reuna.core.tree import Drawn, laid_out, tops
from reuna.learn.strategies import strategy as named
from reuna.loop import train
from reuna.loop.plan import check_spec, edges_of
from reuna.sim.baseline import centralised
from reuna.sim.clock import SimClock, run_virtual
from reuna.sim.crew import Crew, Hands, dealt
from reuna.sim.fleet import FairWeather, SimEdge, SimFleet, blame, make_spec
from reuna.sim.journal import JournalStore, SimJournal
from reuna.sim.lives import adopting_tasks
from reuna.sim.part import Fogs

EDGES_PER_FOG = 40
SILENT_S = 1.0  #: virtual seconds until a round of a replay closes without those that had no part in it
TookPart = Sequence[Collection[str]]  #: names of nodes, for each round
On = Literal["here", "ray"]
Watch = Callable[[str, Mapping[str, Setting]], None]  #: what happened in a run, and its fields


@dataclass(frozen=True)
class Result:
    """What came of a simulated run.

    ``model`` is the global model, ``digest`` its digest, ``scores`` its metrics at each node,
    ``rounds`` what each round was like: members, loss, bytes; ``bytes_by_kind`` what left the nodes.
    ``local`` has the metrics of each node trained alone, ``centralised`` those of one model trained on
    all data in one place; both are empty unless the run was asked to compare.
    """

    model: Tensors
    digest: str
    scores: Mapping[str, Metrics]
    rounds: Sequence[Mapping[str, Setting]]
    bytes_by_kind: Mapping[str, int] = field(default_factory=dict)
    local: Mapping[str, Metrics] = field(default_factory=dict)
    centralised: Mapping[str, Metrics] = field(default_factory=dict)

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

    def plot_sites(self, metric: str = "all") -> Any:
        """A metric at each node by way of training, as a matplotlib figure. Raises `ExtraMissing`."""
        from reuna.adapters.plots import sites_figure

        ways = {"local": self.local, "federated": self.scores, "centralised": self.centralised}
        shown = {
            way: {node: each[metric] for node, each in found.items()} for way, found in ways.items() if found
        }
        return sites_figure(shown, metric)


def simulate(
    learner: Learner,
    nodes: Mapping[str, Any],
    rounds: int = 10,
    *,
    strategy: str = "fedavg",
    settings: Mapping[str, Setting] | None = None,
    seed: int = 1,
    fogs: int | Drawn | None = None,
    evaluate: bool = True,
    compare: bool = False,
    took_part: TookPart | None = None,
    processes: int = 1,
    on: On = "here",
) -> Result:
    """Train ``learner`` over ``nodes`` (name -> this node's data) and evaluate on each.

    ``fogs``: how many the nodes are dealt to, or a tree: ``{"firm": ["kiln", {"north": ["a", "b"]}]}``.
    ``compare``: also train each node alone, and one model on all data in one place, with as many
    epochs as all rounds together; for that the data are `Dataset`s. ``took_part`` names who gives
    to each round; all nodes when it is None. ``processes`` that compute, ``here`` on this machine or
    ``on`` a Ray cluster: the nodes of a fog are in one of them, the coordinator stays in this one. Equal
    arguments give equal bits, wherever and however many they are. It may be called in a notebook's cell,
    or wherever else an event loop runs.

    Raises `PlanError` for a run that could not be summed exactly or a node called cloud. What goes wrong
    at a node ends the run at once and names it: `DataError` for data that are not finite, `LearnerError`
    for whatever a learner raises that is no error of ours. `WorkerFailed` when a process is lost time after
    time; one that is lost once is begun again.
    """
    check_nodes(nodes, compare)
    told = dict(settings or {})
    spread, above = spread_over(learner, nodes, fogs, took_part)
    changes: dict[str, Any] = {"settings": told, "seed": seed, "evaluate": evaluate, "local": compare}
    spec, model, bundle = make_spec(spread, learner, rounds, above, strategy=strategy, **changes)
    check_spec(spec)
    if took_part is not None:
        if named(strategy).buffered:
            said = f"{strategy} has no given members: its steps have updates of several rounds"
            raise PlanError(said, "Leave took_part out; `reuna replay` carries a recorded run out again.")
        spec = with_members(spec, took_part)
    result = play(spread, spec, model, bundle, processes=processes, on=on)
    if not compare:
        return result
    with blame("training on all data in one place"):
        return replace(result, centralised=centralised(learner, nodes, told, rounds, seed))


def spread_over(
    learner: Learner, nodes: Mapping[str, Any], fogs: int | Drawn | None, took_part: TookPart | None
) -> tuple[dict[str, dict[str, SimEdge]], dict[str, str]]:
    """The nodes dealt to that many fogs, in the order of their names, or as a tree of fogs has them.

    Raises `PlanError` for a tree that has other nodes.
    """
    names = sorted(nodes)
    if isinstance(fogs, Mapping):
        dealt_to, above = laid_out(fogs)
        different = sorted(set(names) ^ {name for below in dealt_to.values() for name in below})
        if different:
            raise PlanError(
                f"{different[0]} stands in the tree of fogs alone, or among the nodes alone",
                "Let the tree name each node once.",
            )
    else:
        count, above = min(fogs or -(-len(names) // EDGES_PER_FOG), len(names)), {}
        dealt_to = {f"fog-{place + 1}": tuple(names[place::count]) for place in range(count)}
    return {
        fog: {name: SimEdge(learner, nodes[name], rounds_of(name, took_part)) for name in below}
        for fog, below in dealt_to.items()
    }, above


def check_nodes(nodes: Mapping[str, Any], compare: bool) -> None:
    """Raises `PlanError` for a name that is taken, `DataError` for data that nobody can learn from."""
    for name, data in nodes.items():
        if name == "cloud":
            raise PlanError(
                "'cloud' cannot be the name of a node: the coordinator has it", "Call it otherwise."
            )
        if isinstance(data, Dataset):
            _check_finite(name, data)
        elif compare:
            kind = type(data).__name__
            raise DataError(f"{name}: its data are a {kind}", "To compare, give each node a `reuna.Dataset`.")


def _check_finite(name: str, data: Dataset) -> None:
    for split, samples in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        missing = sum(int(np.sum(~np.isfinite(values))) for values in (samples.x, samples.y))
        if missing:
            said = f"{missing} of its {split} values are not finite numbers"
            raise DataError(f"{name}: {said}", "Fill what is missing, or leave those samples out.")


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
    return msgspec.structs.replace(spec, quorum=1 / len(edges), deadline_s=SILENT_S, asking=Asking())


def play(
    spread: Mapping[str, Mapping[str, SimEdge]],
    spec: RunSpec,
    model: bytes,
    bundle: bytes,
    watch: Watch | None = None,
    processes: int = 1,
    on: On = "here",
    code: Path | None = None,
) -> Result:
    """A run over a fleet, in fair weather. ``spread``: fog -> edge -> learner and data.

    ``watch`` hears of each round when it is closed, and of each report. With more than one of ``processes``
    the fogs and their edges are dealt to so many others, at most one a fog; ``on`` Ray even to one.
    ``code``: folder of modules that a Ray cluster does not have. Where steps have updates of several rounds,
    all is in this process: what they are made of depends on the time at which updates come.
    """
    if processes < 1:
        raise PlanError(f"processes is {processes}; it must be at least 1")
    if on not in ("here", "ray"):
        raise PlanError(f"on is {on!r}; known are 'here' and 'ray'")
    if named(spec.strategy).buffered:
        processes, on = 1, "here"
    parts = dealt(spread, processes, spec.above)
    if on == "ray":
        from reuna.sim.on_ray import RayHands

        return play_with(RayHands(parts, spec.above, code), parts, spec, model, bundle, watch)
    if len(parts) == 1:
        return run_virtual(_play(spread, spec, model, bundle, watch), adopting_tasks)
    from reuna.sim.processes import ProcessHands

    return play_with(ProcessHands(parts, spec), parts, spec, model, bundle, watch)


def play_with(
    hands: Hands,
    parts: Sequence[Fogs],
    spec: RunSpec,
    model: bytes,
    bundle: bytes,
    watch: Watch | None = None,
) -> Result:
    """The same with the fogs and edges of ``parts`` in ``hands``, which are ended."""
    try:
        crew = Crew(hands, [list(tops(part, spec.above)) for part in parts])
        result = run_virtual(_play({}, spec, model, bundle, watch, crew), adopting_tasks)
        kinds = Counter(result.bytes_by_kind)
        for totals in hands.end():
            kinds.update(totals.bytes_by_kind)
        return replace(result, bytes_by_kind=dict(kinds))
    finally:
        hands.kill()


async def _play(
    spread: Mapping[str, Mapping[str, SimEdge]],
    spec: RunSpec,
    model: bytes,
    bundle: bytes,
    watch: Watch | None,
    crew: Crew | None = None,
) -> Result:
    store = JournalStore()
    above = spec.above if crew is None else {}
    fleet = SimFleet(spread, SimClock(), lambda: SimJournal(store), FairWeather(), watch=watch, above=above)
    if crew is not None:
        await crew.join(fleet)
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
        local=outcome.get("local", {}),
    )
