"""Plays the scenarios of `reuna test` in a process of its own: the project's code, learners and data.

One process for all of them, so that data are loaded once, with one thread of linear algebra, so that
the same seed gives the same bits. It opens no socket and starts no server. What happens is told line by
line as JSON; what the project's code prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from reuna.adapters.project import blame_project, load_entry
from reuna.api import SILENT_S, play
from reuna.core.errors import ReunaError, RunFailed
from reuna.core.foreign import told
from reuna.core.ports import Learner
from reuna.core.project import ProjectSettings
from reuna.core.records import Setting
from reuna.fleet.aside import lines_of
from reuna.fleet.data import find_nodes, sites_of, spread
from reuna.fleet.open_project import open_settings
from reuna.learn.strategies import client_settings
from reuna.loop.plan import check_spec
from reuna.loop.train import read_members
from reuna.loop.validate import site_rows
from reuna.sim import scenarios
from reuna.sim.fleet import SimEdge, make_spec
from reuna.sim.judge import Played
from reuna.sim.scenarios import World

Tell = Callable[[dict[str, Any]], None]
ROUND = "round"


@dataclass(frozen=True)
class Ask:
    """A project, the folder of its nodes, the settings given beside its file."""

    project: Path
    data: Path
    flags: list[str]


async def play_all(ask: Ask, watch: Tell) -> list[Played]:
    """Play every scenario that is asked for; ``watch`` hears of each and of its rounds.

    Raises what the project's code is to blame for, `RunFailed` when the process ended otherwise.
    """
    request = {"project": str(ask.project.absolute()), "data": str(ask.data.absolute()), "flags": ask.flags}
    found = []
    async with aclosing(lines_of("reuna.fleet.scenarios", request, "the simulated federation")) as lines:
        async for line in lines:
            if line["what"] == "error":
                raise _told(line)
            if line["what"] == "played":
                found.append(Played(**line["played"]))
            watch(line)
    return found


def _told(line: Mapping[str, str]) -> ReunaError:
    error = told(line["code"], line["message"], line["next_step"])
    return error or RunFailed(line["message"], line["next_step"])


# --- in the process of its own -----------------------------------------------------------------


def compute(ask: Ask, tell: Tell) -> None:
    """Load the project and play. Raises what the project's code is to blame for."""
    settings, nodes = for_test(open_settings(ask.project, ask.flags)), find_nodes(ask.data)
    entry = load_entry(ask.project, settings.entry)
    informed = {**client_settings(settings.strategy, settings.settings), "rounds": settings.rounds}
    with blame_project(ask.project, "loading the data"):
        data = {node.name: entry.load(node.folder, informed) for node in nodes}

    def learner() -> Learner:
        with blame_project(ask.project, "making the learner"):
            return entry.learner(informed)

    world = World(learner, data, sites_of(nodes), settings.rounds, settings.seed)
    Stage(settings, world, spread(nodes), tell).play_all()


def for_test(settings: ProjectSettings) -> ProjectSettings:
    """The project's settings with the rounds of its test."""
    rounds = settings.rounds if settings.test.rounds is None else settings.test.rounds
    return replace(settings, rounds=rounds)


def asked_of(settings: ProjectSettings) -> dict[str, Any]:
    """What the project asks of a run, as `make_spec` takes it."""
    return {
        "project": settings.name,
        "task": settings.task,
        "metric": settings.metric,
        "rounds": settings.rounds,
        "strategy": settings.strategy,
        "seed": settings.seed,
        "grid": settings.grid,
        "encoding": settings.encoding,
        "max_weight": settings.max_weight,
        "quorum": settings.quorum,
        "asking": settings.asking,
        "settings": dict(settings.settings),
        "evaluate": True,
    }


class Stage:
    """Plays one scenario after the other and tells of each. ``fogs``: the nodes under each."""

    def __init__(
        self, settings: ProjectSettings, world: World, fogs: Mapping[str, Iterable[str]], tell: Tell
    ) -> None:
        self._settings = settings
        self._world = world
        self._fogs = fogs
        self._tell = tell
        self._parts: list[dict[str, int]] = []  #: who took part in the run played last, by round

    def play_all(self) -> None:
        """Untrained and undisturbed first, then what chance gives, then each fault."""
        world, asked = self._world, self._settings.test
        self._play(scenarios.UNTRAINED, scenarios.honest(world), rounds=0)
        whole = self._play(scenarios.UNDISTURBED, scenarios.honest(world))
        site = asked.site or scenarios.heaviest(world.sites, self._parts)
        if world.labelled and not whole.broke:
            self._play(scenarios.SHUFFLED, scenarios.shuffled(world))
        for fault in asked.faults:
            unplayable = self._unplayable(fault, whole)
            if unplayable:
                self._done(Played(fault, site, unplayable=unplayable))
                continue
            changes, held = self._without(site) if fault == "dropout" else ({}, "")
            self._play(fault, scenarios.faulty(world, fault, site, asked), site, held, **changes)

    def _unplayable(self, fault: str, whole: Played) -> str:
        """Why a fault cannot be played, or ''."""
        labels = fault == "late-labels" or (fault == "poisoned" and self._settings.test.poison == "labels")
        if whole.broke:
            return "there is no undisturbed run to compare with"
        if fault != "late-labels" and len(self._world.sites) < 2:
            return "there is one site only, and no other that it could harm"
        if labels and not self._world.labelled:
            return "the data are no `reuna.Dataset`, whose labels could be changed"
        return ""

    def _without(self, site: str) -> tuple[dict[str, Any], str]:
        """What a run asks for otherwise to end without a site, and why a real one would not end."""
        total = len(self._world.data)
        left = total - len(self._world.sites[site])
        quorum = self._settings.quorum
        if left >= quorum * total - 1e-9:
            return {"deadline_s": SILENT_S}, ""
        held = f"round.quorum is {quorum:g}, so a fleet waits for {site} and in the end gives up"
        return {"deadline_s": SILENT_S, "quorum": left / total}, f"{held}; here the others went on"

    def _play(
        self, name: str, edges: Mapping[str, SimEdge], site: str = "", held: str = "", **changes: Any
    ) -> Played:
        asked = {**asked_of(self._settings), **changes}
        self._tell({"what": "scenario", "name": name, "site": site, "rounds": asked["rounds"]})
        began = time.monotonic()
        fogs = {fog: {node: edges[node] for node in nodes} for fog, nodes in self._fogs.items()}
        spec, model, bundle = make_spec(fogs, self._world.learner(), **asked)
        check_spec(spec)
        try:
            result = play(fogs, spec, model, bundle, self._watch)
        except ReunaError as error:
            broke = f"{error.message} [{error.code}]"
            return self._done(Played(name, site, seconds=time.monotonic() - began, broke=broke))
        self._parts = [read_members(str(each["members"])) for each in result.rounds]
        return self._done(
            Played(
                name,
                site,
                scores=self._by_site(result.scores),
                rounds=spec.rounds,
                counted=scenarios.counted(self._world.sites.get(site, ()), self._parts),
                clipped=sum(int(each["saturated"]) for each in result.rounds),
                model=result.digest,
                seconds=time.monotonic() - began,
                held=held,
            )
        )

    def _by_site(self, scores: Mapping[str, Any]) -> dict[str, float]:
        """The project's metric at each site that measured it."""
        metric = self._settings.metric
        rows = site_rows(self._world.sites, {"federated": scores})
        found = {row.site: row.scores["federated"] for row in rows}
        return {site: metrics[metric] for site, metrics in found.items() if metric in metrics}

    def _watch(self, what: str, fields: Mapping[str, Setting]) -> None:
        if what == ROUND:
            self._tell({"what": ROUND, "round": fields["round"]})

    def _done(self, played: Played) -> Played:
        self._tell({"what": "played", "played": asdict(played)})
        return played


def main() -> int:
    """Read the request from standard input; tell what happens on what was standard output."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # the project's code may print

        def tell(line: dict[str, Any]) -> None:
            print(json.dumps(line), file=out, flush=True)

        asked = json.load(sys.stdin)
        try:
            compute(Ask(Path(asked["project"]), Path(asked["data"]), asked["flags"]), tell)
        except ReunaError as error:
            said = {"code": error.code, "message": error.message, "next_step": error.next_step}
            tell({"what": "error", **said})
    return 0


if __name__ == "__main__":
    sys.exit(main())
