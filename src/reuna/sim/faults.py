"""Faults from a seed: kills at effects, full disks, lost, doubled and late words, cut lines, lying nodes.

A node below the cloud is killed whole, or its place or its egress alone.

Every kind draws from a generator of its own, so a seed is a one-line reproduction:

    reuna.sim.faults.rehearse(seed=17)
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from reuna.cloud.train import Outcome
from reuna.core.errors import Unreachable
from reuna.core.records import Metrics, Setting
from reuna.core.tree import Above
from reuna.loop import train
from reuna.sim.clock import SimClock, run_virtual
from reuna.sim.fleet import Disk, Faults, SimEdge, SimFleet, make_spec, random_of
from reuna.sim.freight import Weather
from reuna.sim.journal import JournalStore, SimJournal
from reuna.sim.lives import adopting_tasks

DOWN_S = (0.05, 8.0)  #: how long a killed node stays down, s
SEES_S = (0.0, 0.1)  #: until an egress sees that its place is gone, s
PARTS = ("all", "place", "egress")  #: what of a node below the cloud is killed
FULL_S = (0.05, 30.0)  #: how long a disk stays full, s
LONGEST_S = 100_000.0  #: virtual seconds after which a run is taken to hang


@dataclass(frozen=True)
class Chances:
    """How often each thing goes wrong, as probabilities per occasion."""

    kill: float = 0.01
    power: float = 0.5
    lose: float = 0.1
    double: float = 0.1
    late: float = 0.2
    cut: float = 0.1
    answer_lost: float = 0.1
    line_down: float = 0.02
    full_disk: float = 0.01


CALM = Chances(0, 0, 0, 0, 0, 0, 0, 0, 0)


class PlantedFaults(Faults):
    """Faults drawn from a seed. Kills stop after ``most_kills`` so that every run can end."""

    def __init__(self, seed: int, chances: Chances, most_kills: int = 25) -> None:
        super().__init__()
        self._seed = seed
        self._chances = chances
        self._most_kills = most_kills
        self._kills = random_of(seed, "kills")
        self._parts = random_of(seed, "parts")
        self._words = random_of(seed, "words")
        self._disks = random_of(seed, "disks")
        self.fleet: SimFleet | None = None

    def point(self, node: str, what: str) -> None:
        """Maybe kill the node right here, or one of its two processes, and start it again later."""
        if self.fleet is None or node not in self.fleet.lives:
            return
        self._maybe_fill(self.fleet.disks[node])
        if self.counts["kill"] >= self._most_kills or self._kills.random() >= self._chances.kill:
            return
        part = "all" if node == "cloud" else self._parts.choice(PARTS)
        self.counts["kill"] += 1
        self.counts[f"kill {part}"] += 1
        self.counts[f"kill {what}"] += 1
        self._kill(self.fleet, node, part)

    def _kill(self, fleet: SimFleet, node: str, part: str) -> None:
        """A place is started again by its supervisor, an egress by its place."""
        loop, down_s = asyncio.get_running_loop(), self._kills.uniform(*DOWN_S)
        if part == "egress":
            fleet.kill_egress(node)
            loop.call_later(down_s, self._revive_egress, node)
            return
        if part == "place":
            fleet.kill_place(node)
            loop.call_later(self._parts.uniform(*SEES_S), self._end_orphan, node)
        else:
            fleet.kill(node, power=self._kills.random() < self._chances.power)
        loop.call_later(down_s, self._revive, node)

    def _end_orphan(self, node: str) -> None:
        if self.fleet is not None and node not in self.fleet.lives:
            self.fleet.kill_egress(node)

    def _revive_egress(self, node: str) -> None:
        if self.fleet is None or not self.fleet.running or node not in self.fleet.lives:
            return
        if node not in self.fleet.egresses:
            self.fleet.start_egress(node)

    def _maybe_fill(self, disk: Disk) -> None:
        if not disk.full and self._disks.random() < self._chances.full_disk:
            self.counts["full disk"] += 1
            disk.fill()
            asyncio.get_running_loop().call_later(self._disks.uniform(*FULL_S), disk.clear)

    def _revive(self, node: str) -> None:
        if self.fleet is not None and self.fleet.running and node not in self.fleet.lives:
            self.fleet.start(node)

    def copies(self, node: str) -> list[float]:
        """How often, and after how long, a word arrives."""
        words, chances = self._words, self._chances
        if words.random() < chances.lose:
            self.counts["lost word"] += 1
            return []
        delays = [0.0]
        if words.random() < chances.late:
            self.counts["late word"] += 1
            delays = [words.uniform(0.0, 10.0)]
        if words.random() < chances.double:
            self.counts["doubled word"] += 1
            delays.append(words.uniform(0.0, 30.0))
        return delays

    def weather(self, node: str) -> Weather:
        """The line of one node."""
        return PlantedWeather(random_of(self._seed, f"line {node}"), self._chances, self.counts)


class PlantedWeather(Weather):
    """A line that delays, goes down, is cut in the middle, or loses the answer."""

    def __init__(self, rng: random.Random, chances: Chances, counts: Counter[str]) -> None:
        self._rng = rng
        self._chances = chances
        self._counts = counts

    async def before(self, what: str) -> None:
        await asyncio.sleep(self._rng.uniform(0.0, 0.05))
        if self._rng.random() < self._chances.line_down:
            self._counts["line down"] += 1
            await asyncio.sleep(self._rng.uniform(0.0, 20.0))
            raise Unreachable("the line is down")

    def cut_at(self, what: str, size: int) -> int | None:
        if size and self._rng.random() < self._chances.cut:
            self._counts["cut transfer"] += 1
            return self._rng.randrange(size)
        return None

    def loses_answer(self) -> bool:
        lost = self._rng.random() < self._chances.answer_lost
        self._counts["lost answer"] += lost
        return lost


class Walker:
    """A learner for rehearsals: the seed decides where it walks, so any repeat shows in the bits."""

    def __init__(self, size: int = 24) -> None:
        self._size = size

    def init(self, seed: int) -> dict[str, Any]:
        return {"w": np.zeros(self._size, np.float32)}

    def fit(
        self, model: Any, data: Any, settings: Mapping[str, Setting], seed: int
    ) -> tuple[Any, int, Metrics]:
        step = np.random.default_rng(seed).normal(size=self._size) - 0.1 * model["w"]
        return {"w": (model["w"] + step).astype(np.float32)}, data, {"loss": float(np.abs(step).mean())}

    def evaluate(self, model: Any, data: Any, settings: Mapping[str, Setting]) -> Metrics:
        return {"all": float(np.abs(model["w"]).mean())}

    def export(self, model: Any) -> bytes:
        return b""


@dataclass(frozen=True)
class Rehearsal:
    """What came of one seed."""

    seed: int
    outcome: Outcome
    faults: Counter[str]
    retrained: int
    virtual_s: float
    members: dict[int, int]
    took_part: list[tuple[str, ...]]  #: names, for each round
    updates: list[list[tuple[str, int]]]  #: names, and rounds whose plans were answered (0: its own)


def fleet_of(fogs: int, edges: int) -> dict[str, dict[str, SimEdge]]:
    """Fogs with edges of different weights."""
    return {
        f"fog-{f}": {f"edge-{f}-{e}": SimEdge(Walker(), 1 + 3 * f + e) for e in range(edges)}
        for f in range(fogs)
    }


def rehearse(
    seed: int,
    chances: Chances | None = None,
    fogs: int = 2,
    edges: int = 3,
    rounds: int = 4,
    longest_s: float = LONGEST_S,
    above: Above | None = None,
    **changes: Any,
) -> Rehearsal:
    """One run of the whole fleet under the faults of a seed, in virtual time. Raises on a hang.

    ``above``: fogs over fogs.
    """
    faults = PlantedFaults(seed, chances or Chances())
    return run_virtual(
        _rehearse(seed, faults, fleet_of(fogs, edges), rounds, longest_s, above or {}, changes),
        adopting_tasks,
    )


async def _rehearse(
    seed: int,
    faults: PlantedFaults,
    fogs: dict[str, dict[str, SimEdge]],
    rounds: int,
    longest_s: float,
    above: Above,
    changes: dict[str, Any],
) -> Rehearsal:
    store = JournalStore()
    fleet = SimFleet(fogs, SimClock(), lambda: SimJournal(store), faults, above=above)
    faults.fleet = fleet
    defaults: dict[str, Any] = {"strategy": "fedavgm", "deadline_s": 1000.0, "evaluate": True}
    spec, model, bundle = make_spec(fogs, Walker(), rounds, above, **{**defaults, **changes})
    async with asyncio.timeout(longest_s):
        outcome = await fleet.run(spec, model, bundle)
    again = Counter(fleet.trained)
    retrained = sum(times - 1 for times in again.values())
    closed = {number: fields for (what, number), fields in sorted(fleet.timeline.items()) if what == "round"}
    members = {number: int(fields["took_part"]) for number, fields in closed.items()}
    took_part = [tuple(train.read_members(str(fields["members"]))) for fields in closed.values()]
    now = asyncio.get_running_loop().time()
    told = (train.read_updates(str(fields["members"])) for fields in closed.values())
    updates = [[(node, base) for node, base, _ in each] for each in told]
    return Rehearsal(seed, outcome, faults.counts, retrained, now, members, took_part, updates)


def undisturbed(rounds: int = 4, **changes: Any) -> Outcome:
    """The outcome of the same run when nothing goes wrong."""
    return rehearse(0, CALM, rounds=rounds, **changes).outcome
