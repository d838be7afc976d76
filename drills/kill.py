"""Kill every process of a small fleet, each role in each phase of a run; nothing is lost.

A run is carried out once undisturbed, and then again and again with the same seed while one process
after the other is killed with SIGKILL: cloud, fogs, edges, their egress, workers and nats-servers, each
in each phase. The promise: every run ends by itself with the same model, bit for bit.

    submit        code, model and run are handed over  local      each node alone, for comparison
    first round   accepted, no round closed yet        evaluate   the model on every node
    rounds        between the first and the last

The phase of a kill is where it fell by the clock between the run's own events, not where it was aimed
at; what is missing in the end is aimed at once more.

    python -m drills.kill [--kills 40] [--seed 1] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from benchmarks.arguments import at_least
from benchmarks.round import WARM_UP, job_for
from reuna.adapters.spool import DiskSpool
from reuna.core.errors import Unreachable
from reuna.core.records import RunSpec
from reuna.fleet.client import Operator
from reuna.fleet.data import spread
from reuna.fleet.ending import in_order, until_done
from reuna.fleet.layout import Fleet, make_fleet
from reuna.fleet.session import follow, prepare, ready
from reuna.fleet.supervise import Supervisor, log_path

T = TypeVar("T")
ROLES = (  #: in this order, so that the short drill kills a worker that has nothing to do but to train
    "cloud main", "fog main", "edge worker", "edge egress", "cloud nats", "fog egress", "edge main", "fog nats",
)  # fmt: skip
PHASES = ("submit", "first round", "rounds", "local", "evaluate")
ALL = len(ROLES) * len(PHASES)
ROUNDS = 2  #: and those that a benchmark would not count
EDGES, FOGS = 6, 2
BUSY_S = 0.6  #: of a node's core in each fit and evaluation, so that a phase lasts long enough to be met
AFTER_S = 0.15  #: a kill comes at most so long after its phase began
AGAIN = 6  #: runs at most for what the first ones missed
PARAMS = 50_000

Say = Callable[[str], None]


@dataclass(frozen=True)
class Kill:
    """One process killed: when, in seconds since the epoch, and what it was."""

    at: float
    role: str
    name: str


@dataclass
class Watched:
    """What came of some runs on one fleet."""

    specs: list[RunSpec] = field(default_factory=list)
    calm: str = ""  #: the model of the undisturbed run
    models: set[str] = field(default_factory=set)  #: of the others
    kills: Counter[tuple[str, str]] = field(default_factory=Counter)  #: phase, role
    retrained: int = 0
    lost: int = 0
    double: int = 0

    def missing(self) -> list[tuple[str, str]]:
        """Phases and roles that no kill met."""
        return [(phase, role) for phase in PHASES for role in ROLES if not self.kills[phase, role]]


def aims(number: int) -> dict[str, str]:
    """Phase -> role to kill in the ``number``-th run: after eight of them each pair was aimed at once."""
    return {phase: ROLES[(number + place) % len(ROLES)] for place, phase in enumerate(PHASES)}


def next_aims(missing: list[tuple[str, str]]) -> dict[str, str]:
    """What one more run can still meet: a role for each phase that lacks one."""
    return dict(reversed(missing))


class Storm:
    """Runs of one seed on one fleet; what came of them is in ``watched``."""

    def __init__(self, folder: Path, seed: int, say: Say) -> None:
        self._job = job_for(folder, PARAMS, EDGES, ROUNDS, FOGS, 32, 14, BUSY_S)
        self.fleet = make_fleet(
            folder / "fleet", "drill", spread(self._job.nodes, self._job.fogs), announce_s=0.5
        )
        self.supervisor = Supervisor(self.fleet)
        self.operator = Operator.of(self.fleet)
        self.watched = Watched()
        self._rng = random.Random(seed)
        self._say = say

    async def calm(self) -> None:
        """The undisturbed run."""
        self._say(f"1. undisturbed: 1 cloud, {FOGS} fogs, {EDGES} edges, {ROUNDS + WARM_UP} rounds")
        self.watched.calm = await self.run("r-drill-calm", {})
        self._say(f"   model {self.watched.calm[:16]}")

    async def rage(self, kills: int) -> None:
        """The same run until ``kills`` processes were killed, and for a whole matrix until it is whole."""
        self._say(f"2. the same run over and over, {kills} processes killed with SIGKILL on the way")
        for number in range(-(-kills // len(PHASES))):
            left = kills - self.watched.kills.total()
            wanted = dict(list(aims(number).items())[:left])
            self.watched.models.add(await self.run(f"r-drill-{number}", wanted))
        for number in range(AGAIN):
            if kills < ALL or not self.watched.missing():
                break
            wanted = next_aims(self.watched.missing())
            self.watched.models.add(await self.run(f"r-drill-again-{number}", wanted))
        self._say(f"   models {', '.join(model[:16] for model in self.watched.models)}")

    async def run(self, run: str, wanted: Mapping[str, str]) -> str:
        """The model of one run with at most one kill in each phase."""
        spec, parts = await asyncio.to_thread(prepare, self._job, self.fleet, run)
        spec = msgspec.structs.replace(spec, local=True, evaluate=True, deadline_s=600.0)
        events = Events()
        killer = asyncio.create_task(kill_all(self.supervisor, events, wanted, self._rng))
        try:
            events.reached("submit")
            for part in parts:
                await until_reached(partial(self.operator.put_blob, part))
            await until_reached(lambda: self.operator.submit(spec))
            accepted = time.time()
            events.reached("first round")
            outcome = await follow(self.operator, run, events.watch)
            done = await asyncio.wait_for(killer, 60)
        finally:
            killer.cancel()
        timeline = await until_reached(lambda: self.operator.timeline(run, 0))
        for kill in done:
            phase = phase_at(kill.at, accepted, timeline)
            self.watched.kills[phase, kill.role] += 1
            self._say(f"  {run}  {phase:11}  killed {kill.name}")
        self.watched.specs.append(spec)
        return str(outcome["model"])

    def count(self) -> None:
        """What the logs and the rows say of all runs, once every place has ended."""
        self.watched.retrained = retrainings(self.fleet)
        for spec in self.watched.specs:
            lost, double = count_members(self.fleet, spec)
            self.watched.lost += lost
            self.watched.double += double


async def until_reached(call: Callable[[], T]) -> T:
    """The answer of the cloud, once it is there (again)."""
    while True:
        try:
            return await asyncio.to_thread(call)
        except Unreachable:
            await asyncio.sleep(0.1)


class Events:
    """Lets the killer wait until a phase of the run has begun."""

    def __init__(self) -> None:
        self._begun = {phase: asyncio.Event() for phase in PHASES}

    def reached(self, phase: str) -> None:
        self._begun[phase].set()

    def watch(self, event: dict[str, Any]) -> None:
        """Take in an event of the run: the end of one phase is the beginning of the next."""
        if event["what"] == "local":
            self.reached("evaluate")
        if event["what"] == "round":
            last = int(event["round"]) >= ROUNDS + WARM_UP
            self.reached("local" if last else "rounds")

    async def wait(self, phase: str) -> None:
        await self._begun[phase].wait()


def phase_at(at: float, accepted: float, timeline: list[dict[str, Any]]) -> str:
    """Where a moment lies among the events of a run."""
    rounds = sorted(event["at"] for event in timeline if event["what"] == "round")
    local = next(event["at"] for event in timeline if event["what"] == "local")
    evaluated = next(event["at"] for event in timeline if event["what"] == "evaluate")
    ends = dict(zip(PHASES, (accepted, rounds[0], rounds[-1], local, evaluated), strict=True))
    return next((phase for phase, end in ends.items() if at < end), "after the run")


async def kill_all(
    supervisor: Supervisor, events: Events, wanted: Mapping[str, str], rng: random.Random
) -> list[Kill]:
    """In each phase, a moment after its beginning, kill a process of the role wanted there."""
    done = []
    for phase, role in wanted.items():
        place, part = role.split()
        name = {
            "cloud": "cloud",
            "fog": f"fog-{rng.randint(1, FOGS)}",
            "edge": f"edge-{rng.randint(1, EDGES)}",
        }
        process = f"{name[place]}/{part}"
        await events.wait(phase)
        await asyncio.sleep(rng.uniform(0, 0.02 if phase == "submit" else AFTER_S))
        pid = await find(supervisor, process)
        if part == "worker" and phase != "submit":
            await at_work(pid)
        with suppress(ProcessLookupError):  # it ended by itself a moment ago; the pair is aimed at again
            os.kill(pid, signal.SIGKILL)
            done.append(Kill(time.time(), role, f"{process} (pid {pid})"))
    return done


async def find(supervisor: Supervisor, name: str) -> int:
    """The pid of a process of the fleet, once it runs."""
    while True:
        found = dict(supervisor.processes()).get(name)
        if found is not None:
            return found
        await asyncio.sleep(0.02)


async def at_work(pid: int) -> None:
    """Until a worker computes, which it does for a few milliseconds a round, or has ended."""
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "R":
        await asyncio.sleep(0.0005)


def retrainings(fleet: Fleet) -> int:
    """How often a node trained again for a round, from the nodes' own logs.

    It does when it died after a fit and before the update was on its egress' disk, and when its
    worker died within a fit.
    """
    again, seen = 0, Counter[tuple[str, str]]()
    for place in fleet.of("edge"):
        log = log_path(place).read_text()
        again += log.count("its fit once more in a new worker")
        seen.update((place.name, line) for line in re.findall(r"trained (round \d+ attempt \d+ of \S+)", log))
    return again + sum(times - 1 for times in seen.values())


def count_members(fleet: Fleet, spec: RunSpec) -> tuple[int, int]:
    """Updates missing from, and counted twice in, the cloud's committed rows over all rounds."""
    spool = DiskSpool(fleet.folder / "cloud" / "state" / "spool")
    edges = {edge for edges in spec.fogs.values() for edge in edges}
    counted: dict[int, Counter[str]] = {}
    attempts: dict[int, int] = {}
    for row in spool.rows_of_run(spec.run):
        if row.kind == "partial" and row.round <= spec.rounds:
            if row.attempt > attempts.get(row.round, 0):  # only the attempt that counts, the last
                counted[row.round], attempts[row.round] = Counter(), row.attempt
            given = counted[row.round]
            given.update(member.node for member in row.members if not member.absent)
    spool.close()
    lost = sum(len(edges - counted.get(number, Counter()).keys()) for number in range(1, spec.rounds + 1))
    double = sum(times - 1 for given in counted.values() for times in given.values() if times > 1)
    return lost, double


async def drill(kills: int, seed: int, say: Say) -> dict[str, Any]:
    """The undisturbed run, the others, and the comparison."""
    with tempfile.TemporaryDirectory(prefix="reuna-drill-") as folder:
        storm = Storm(Path(folder), seed, say)
        await storm.supervisor.start()
        try:
            await ready(storm.fleet, storm.operator, storm.supervisor)
            await storm.calm()
            await storm.rage(kills)
        finally:
            await storm.supervisor.stop()
        storm.count()
    return told(storm.watched, kills)


def told(watched: Watched, kills: int) -> dict[str, Any]:
    """The line of JSON. ``missing``: what was to be killed in which phase and was not."""
    by_phase: dict[str, dict[str, int]] = {}
    for (phase, role), times in sorted(watched.kills.items()):
        by_phase.setdefault(phase, {})[role] = times
    return {
        "kills": watched.kills.total(),
        "rounds_retrained": watched.retrained,
        "lost": watched.lost,
        "double_counted": watched.double,
        "same_bits": watched.models == {watched.calm},
        "killed": by_phase,
        "missing": [f"{role}: {phase}" for phase, role in watched.missing()] if kills >= ALL else [],
    }


def held(result: dict[str, Any]) -> bool:
    """Whether the promise held."""
    exact = result["same_bits"] and not result["lost"] and not result["double_counted"]
    return bool(exact and result["rounds_retrained"] >= 1 and not result["missing"])


def main() -> int:
    """Run the drill; the last line is JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=at_least(1), default=ALL, help="default: each role in each phase")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    args = parser.parse_args()
    say = (lambda _text: None) if args.json else (lambda text: print(text, flush=True))
    result = until_done(drill(args.kills, args.seed, say))
    print(json.dumps(result))
    return 0 if held(result) else 1


if __name__ == "__main__":
    in_order(lambda: sys.exit(main()))
