"""Compares ways of combining on the project's own data, in simulation: `reuna study`.

Each strategy with each seed is a whole federation on the real round logic, over the same nodes; beside
them, for each seed, every node trained alone and one model on all data in one place. The project's code
runs in a process of its own, and from there in as many as are asked for, on this machine or on a Ray
cluster. The figures are the same wherever they are computed; only seconds differ.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from reuna.adapters.project import blame_project, load_entry
from reuna.api import On, check_nodes, play
from reuna.core.cohort import least
from reuna.core.data import Dataset
from reuna.core.errors import ReunaError, RunFailed
from reuna.core.foreign import told
from reuna.core.ports import Learner
from reuna.core.project import ProjectSettings
from reuna.core.records import Metrics, Setting
from reuna.fleet.aside import lines_of
from reuna.fleet.data import find_nodes, sites_of, spread
from reuna.fleet.open_project import open_settings
from reuna.fleet.scenarios import asked_of
from reuna.learn.strategies import TAKES, client_settings, strategy
from reuna.loop.plan import check_spec
from reuna.sim.baseline import centralised, each_alone
from reuna.sim.fleet import SimEdge, blame, make_spec
from reuna.sim.part import Fogs

ALONE, TOGETHER = "alone", "centralised"
Sites = Mapping[str, Sequence[str]]
Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Ask:
    """A project and its data, and what is compared; ``strategies`` and ``seeds`` empty: the project's own."""

    project: Path
    data: Path
    flags: list[str]
    strategies: list[str]
    seeds: list[int]
    processes: int = 1
    on: On = "here"


@dataclass(frozen=True)
class Row:
    """What one way came to with one seed: the project's metric at each site, and what it took.

    ``sent``: bytes of updates that left the nodes and fogs. ``model``: the digest of its last model.
    """

    way: str
    seed: int
    scores: Mapping[str, float]
    seconds: float
    rounds: int = 0
    sent: int = 0
    model: str = ""

    @property
    def worst(self) -> float:
        """At the site where it is least."""
        return min(self.scores.values())

    @property
    def mean(self) -> float:
        """Over the sites."""
        return sum(self.scores.values()) / len(self.scores)


def prepared(ask: Ask) -> Ask:
    """With the project's own strategy and seed where none is named. Raises what is wrong with any."""
    own = open_settings(ask.project, ask.flags)
    found = replace(ask, strategies=ask.strategies or [own.strategy], seeds=ask.seeds or [own.seed])
    names = find_nodes(ask.data)
    for name in found.strategies:
        settings = settings_for(found, name, found.seeds[0])
        strategy(name).check_rows(settings.settings, least(settings.quorum, len(names), settings.asking))
        strategy(name).check_encoding(settings.encoding)
    return found


def settings_for(ask: Ask, name: str, seed: int) -> ProjectSettings:
    """The project's settings with another strategy, without what only other strategies take."""
    strategy(name)
    others = {key for taken in TAKES.values() for key in taken} - set(TAKES[name])
    without = [f"strategy.{key}=" for key in sorted(others)]
    return open_settings(ask.project, [*ask.flags, *without, f"strategy.name={name}", f"run.seed={seed}"])


async def study(ask: Ask, watch: Tell) -> list[Row]:
    """Carry it out; ``watch`` hears of each way and its rounds. Raises what the project is to blame for."""
    request = {**asdict(ask), "project": str(ask.project.absolute()), "data": str(ask.data.absolute())}
    found: list[Row] = []
    async with aclosing(lines_of("reuna.fleet.study", request, "the study")) as lines:
        async for line in lines:
            if line["what"] == "error":
                error = told(line["code"], line["message"], line["next_step"])
                raise error or RunFailed(line["message"], line["next_step"])
            if line["what"] == "row":
                found.append(Row(**line["row"]))
            watch(line)
    return found


# --- in the process of its own -----------------------------------------------------------------


def compute(ask: Ask, tell: Tell) -> None:
    """Load the project and its data once, and play every way. Raises what the project is to blame for."""
    nodes, first = find_nodes(ask.data), settings_for(ask, ask.strategies[0], ask.seeds[0])
    entry = load_entry(ask.project, first.entry)
    with blame_project(ask.project, "loading the data"):
        data = {node.name: entry.load(node.folder, told_of(first)) for node in nodes}
    check_nodes(data, compare=False)
    places, sites = spread(nodes), sites_of(nodes)
    for seed in ask.seeds:
        for number, name in enumerate(ask.strategies):
            settings = settings_for(ask, name, seed)
            with blame_project(ask.project, "making the learner"):
                learner = entry.learner(told_of(settings))
            fogs = {
                fog: {node: SimEdge(learner, data[node]) for node in below} for fog, below in places.items()
            }
            if number == 0:
                for row in baselines(settings, learner, data, sites, tell):
                    tell({"what": "row", "row": asdict(row)})
            row = federated(settings, learner, fogs, sites, ask, tell)
            tell({"what": "row", "row": asdict(row)})


def told_of(settings: ProjectSettings) -> dict[str, Setting]:
    """What the project's code is told."""
    return {**client_settings(settings.strategy, settings.settings), "rounds": settings.rounds}


def federated(
    settings: ProjectSettings,
    learner: Learner,
    fogs: Fogs,
    sites: Sites,
    ask: Ask,
    tell: Tell,
) -> Row:
    """A whole run."""
    tell({"what": "way", "way": settings.strategy, "seed": settings.seed, "rounds": settings.rounds})

    def watch(what: str, fields: Mapping[str, Setting]) -> None:
        if what == "round":
            tell({"what": "round", "round": fields["round"]})

    began = time.monotonic()
    spec, model, bundle = make_spec(fogs, learner, **asked_of(settings))
    check_spec(spec)
    result = play(fogs, spec, model, bundle, watch, ask.processes, ask.on, ask.project)
    seconds = time.monotonic() - began
    scores = by_site(result.scores, sites, settings.metric)
    sent = result.bytes_by_kind.get("model_update", 0)
    return Row(settings.strategy, settings.seed, scores, seconds, settings.rounds, sent, result.digest)


def baselines(
    settings: ProjectSettings, learner: Learner, data: Mapping[str, Any], sites: Sites, tell: Tell
) -> Iterator[Row]:
    """Each node alone, and where all data are `Dataset`s one model on all of them, as the project asks."""
    ways: dict[str, Callable[..., Mapping[str, Metrics]]] = {}
    if settings.local:
        ways[ALONE] = each_alone
    if settings.centralised and all(isinstance(each, Dataset) for each in data.values()):
        ways[TOGETHER] = centralised
    for way, train in ways.items():
        tell({"what": "way", "way": way, "seed": settings.seed, "rounds": 0})
        began = time.monotonic()
        with blame(f"training {way}"):
            scores = train(learner, data, told_of(settings), settings.rounds, settings.seed)
        found = by_site(scores, sites, settings.metric)
        yield Row(way, settings.seed, found, time.monotonic() - began)


def by_site(found: Mapping[str, Metrics], sites: Sites, metric: str) -> dict[str, float]:
    """The metric at each site: the mean over its nodes. Raises `RunFailed` where a node has none."""
    scores = {}
    for site, nodes in sites.items():
        values = [found.get(node, {}).get(metric) for node in nodes]
        if None in values:
            raise RunFailed(f"{site} has no {metric!r}", "Does the learner's evaluate return project.metric?")
        scores[site] = sum(float(value) for value in values if value is not None) / len(values)
    return scores


def main() -> int:
    """Read the request from standard input; tell what happens on what was standard output."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # the project's code may print

        def tell(line: dict[str, Any]) -> None:
            print(json.dumps(line), file=out, flush=True)

        asked = json.load(sys.stdin)
        try:
            compute(Ask(Path(asked.pop("project")), Path(asked.pop("data")), **asked), tell)
        except ReunaError as error:
            tell(
                {"what": "error", "code": error.code, "message": error.message, "next_step": error.next_step}
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
