"""A fleet of which some nodes are silent or slow, on the real round logic, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reuna.cloud.train import Outcome
from reuna.core.records import Setting
from reuna.loop import train
from reuna.sim.clock import SimClock, run_virtual
from reuna.sim.faults import Walker
from reuna.sim.fleet import FairWeather, SimEdge, SimFleet, make_spec
from reuna.sim.journal import JournalStore, SimJournal
from reuna.sim.lives import adopting_tasks


@dataclass(frozen=True)
class Troop:
    """How many nodes there are, how many of them never say a word or are slow, under how many fogs.

    ``takes_s``: virtual seconds of one training, more or less, by up to ``uneven`` of it; a slow node takes
    ``slower`` times as long.
    """

    nodes: int = 20
    fogs: int = 2
    silent: int = 0
    slow: int = 0
    takes_s: float = 2.0
    slower: float = 10.0
    uneven: float = 0.2

    def names(self) -> list[str]:
        """Every node's."""
        return [f"edge-{number:03}" for number in range(self.nodes)]

    def silent_ones(self) -> frozenset[str]:
        """As many under each fog, as far as that goes."""
        return _some(self._by_fog(), self.silent)

    def slow_ones(self) -> frozenset[str]:
        """The same of those that are not silent."""
        silent = self.silent_ones()
        return _some([name for name in self._by_fog() if name not in silent], self.slow)

    def _by_fog(self) -> list[str]:
        return [name for place in range(self.fogs) for name in self.names()[place :: self.fogs]]

    def spread(self) -> dict[str, dict[str, SimEdge]]:
        """Fog -> edge -> what it learns from."""
        slow, names = self.slow_ones(), self.names()
        spread = np.linspace(1 - self.uneven, 1 + self.uneven, len(names))[
            np.argsort(np.sin(range(len(names))))
        ]
        usual = dict(zip(names, (self.takes_s * spread).tolist(), strict=True))
        takes = {name: usual[name] * (self.slower if name in slow else 1) for name in names}
        edges = {name: SimEdge(Walker(), index, takes_s=takes[name]) for index, name in enumerate(names, 1)}
        return {
            f"fog-{place}": {name: edges[name] for name in names[place :: self.fogs]}
            for place in range(self.fogs)
        }


def _some(names: Sequence[str], count: int) -> frozenset[str]:
    return frozenset(names[index * len(names) // count] for index in range(count))


@dataclass(frozen=True)
class Played:
    """What came of a run: its rounds as the timeline has them, and how many virtual seconds it took."""

    outcome: Outcome
    rounds: Sequence[Mapping[str, Setting]]
    seconds: float
    refused: Mapping[str, int]

    @property
    def updates(self) -> int:
        """That counted in all rounds together."""
        return sum(int(each["took_part"]) for each in self.rounds)

    @property
    def members(self) -> list[list[str]]:
        """Who gave to each round."""
        return [list(train.read_members(str(each["members"]))) for each in self.rounds]

    @property
    def updates_of(self) -> list[list[tuple[str, int]]]:
        """Nodes and rounds of the updates in each step."""
        told = (train.read_updates(str(each["members"])) for each in self.rounds)
        return [[(node, base) for node, base, _ in each] for each in told]


class SlowFleet(SimFleet):
    """Nodes of ``silent`` are never switched on; `switch_on` does it later."""

    def __init__(
        self,
        fogs: Mapping[str, Mapping[str, SimEdge]],
        silent: Collection[str],
        above: Mapping[str, str] | None = None,
    ) -> None:
        store = JournalStore()
        super().__init__(fogs, SimClock(), lambda: SimJournal(store), FairWeather(), above=above)
        self.silent = set(silent)

    def start(self, node: str) -> None:
        if node not in self.silent:
            super().start(node)

    def switch_on(self, node: str) -> None:
        """It is heard of from now on."""
        self.silent.discard(node)
        self.start(node)


def play_slow(
    troop: Troop,
    rounds: int = 10,
    back_s: float = 0.0,
    off: Collection[str] = (),
    above: Mapping[str, str] | None = None,
    **asked: Any,
) -> Played:
    """A run over the troop. ``back_s``: when the silent ones are switched on after all, 0: never.

    ``off``: nodes, also fogs, that are silent as well. ``above``: the fog over each fog that has one.
    ``asked``: as `make_spec` takes it.
    """
    return run_virtual(_play(troop, rounds, back_s, off, above, asked), adopting_tasks)


async def _play(
    troop: Troop,
    rounds: int,
    back_s: float,
    off: Collection[str],
    above: Mapping[str, str] | None,
    asked: dict[str, Any],
) -> Played:
    fogs = troop.spread()
    fleet = SlowFleet(fogs, troop.silent_ones().union(off), above)
    spec, model, bundle = make_spec(fogs, Walker(), rounds, above, **asked)
    loop = asyncio.get_running_loop()
    if back_s:
        for node in sorted(fleet.silent):
            loop.call_later(back_s, fleet.switch_on, node)
    outcome = await fleet.run(spec, model, bundle)
    closed = [fields for (what, _), fields in sorted(fleet.timeline.items()) if what == "round"]
    return Played(outcome, closed, loop.time(), dict(fleet.refused))
