"""A thousand live agents over ten fogs: rounds of seconds, all of them in each, and a cloud that stays as small.

A real cloud and real fogs with their nats-servers, over mutual TLS; every agent has its own identity, policy,
ledger, NATS connection and HTTPS transfers, and each update is on its own disk and on its fog's before it is
acknowledged. The agents share a few processes, and what in them is lighter than in an edge is said there
(`drills.crowd.agents`). First a tenth of them work, then all,
with the same cloud: its memory must not grow with them.

``limit_s`` is what the same updates cost without any of this, measured in the same run: their bodies over one
loopback connection, and one write and fsync for each that is made durable.

    python -m drills.thousand [--agents 1000] [--fogs 10] [--rounds 5] [--within 5] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.arguments import at_least
from benchmarks.observed import committed, servers_sync
from benchmarks.round import RUN, WARM_UP, cpu_s, job_for, limits, peaks, per_round
from drills.crowd.herd import Herd
from reuna.fleet.client import Operator
from reuna.fleet.data import spread
from reuna.fleet.ending import in_order, until_done
from reuna.fleet.layout import PlaceFile, make_fleet
from reuna.fleet.session import follow, prepare, ready
from reuna.fleet.supervise import Supervisor

PARAMS = 10_000
BITS = 32
TARGET_S = 5.0  #: of a round, with a thousand agents, on two cores and a disk that nobody else uses
FLAT_MIB = 16.0  #: the cloud with all agents may be so much larger than with a tenth of them
PRESENT_S = 600.0  #: by then every agent was heard of
DEADLINE_S = 300.0  #: of a round; one that reaches it has lost somebody

Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """How many agents, fogs, counted rounds, and processes for the agents."""

    agents: int
    fogs: int
    rounds: int
    processes: int
    within_s: float = TARGET_S  #: a round may take


@dataclass(frozen=True)
class Carried:
    """A run that is done: its counted rounds' seconds, CPU before and after them, the cloud's peak, MiB."""

    run: str
    seconds: list[float]
    spent: list[dict[str, float]]
    cloud_mib: float


class Course:
    """One fleet, from its certificates to its last round."""

    def __init__(self, asked: Asked, folder: Path, say: Say) -> None:
        self.asked = asked
        self._say = say
        self.job = job_for(folder, PARAMS, asked.agents, asked.rounds, asked.fogs, BITS, BITS)
        self.fleet = make_fleet(folder / "fleet", "thousand", spread(self.job.nodes, self.job.fogs))
        above = tuple(each for each in self.fleet.places if each.kind != "edge")
        self.supervisor = Supervisor(replace(self.fleet, places=above))
        self.herds: list[Herd] = []
        self.operator = Operator.of(self.fleet)

    async def present(self, edges: Sequence[PlaceFile]) -> None:
        """Until those and all places above have been heard of."""
        fleet = replace(self.fleet, places=(*self.supervisor.fleet.places, *edges))
        await ready(fleet, self.operator, self.supervisor, within_s=PRESENT_S)

    async def join(self, edges: Sequence[PlaceFile], processes: int) -> None:
        """Those edges begin to live."""
        began = time.monotonic()
        self.herds.append(Herd(self.fleet.folder, [each.name for each in edges], processes))
        await self.herds[-1].start()
        await self.present(edges)
        self._say(f"  {len(edges)} agents were heard of within {time.monotonic() - began:.0f} s")

    async def carry_out(self, run: str, edges: Sequence[PlaceFile]) -> Carried:
        """A run over those edges."""
        names = {each.name for each in edges}
        spec, parts = await asyncio.to_thread(prepare, self.job, self.fleet, run)
        fogs = {fog: tuple(each for each in below if each in names) for fog, below in spec.fogs.items()}
        spec = msgspec.structs.replace(spec, fogs=fogs, evaluate=False, deadline_s=DEADLINE_S)
        for part in parts:
            await asyncio.to_thread(self.operator.put_blob, part)
        await asyncio.to_thread(self.operator.submit, spec)
        seconds: list[float] = []
        spent: list[dict[str, float]] = []

        def hear(event: dict[str, Any]) -> None:
            if event["what"] != "round":
                return
            number, took = int(event["round"]), float(event["fields"]["seconds"])
            self._say(f"  round {number}: {took:.2f} s")
            if number > WARM_UP:
                seconds.append(took)
            if number in (WARM_UP, spec.rounds):
                spent.append(cpu_s(self.processes()))

        await follow(self.operator, run, hear)
        return Carried(run, seconds, spent, self.supervisor.sample()["cloud/main"])

    def processes(self) -> list[tuple[str, int]]:
        """All of them by name."""
        return [
            *self.supervisor.processes(),
            *(each for herd in self.herds for each in herd.processes()),
        ]

    async def stop(self) -> None:
        """End them all, the agents first."""
        for herd in self.herds:
            await herd.stop()
        await self.supervisor.stop()


def first_of_each_fog(course: Course) -> list[PlaceFile]:
    """A tenth of the agents below each fog, at least one."""
    places = {each.name: each for each in course.fleet.of("edge")}
    found = []
    for fog in course.fleet.of("fog"):
        below = course.fleet.setting("edges", fog.name)
        found += [places[name] for name in below[: max(1, len(below) // 10)]]
    return found


async def drill(asked: Asked, folder: Path, say: Say) -> dict[str, Any]:
    """A tenth of the agents, then all."""
    began = time.monotonic()
    course = Course(asked, folder, say)
    say(f"{asked.agents} agents over {asked.fogs} fogs; their certificates: {time.monotonic() - began:.0f} s")
    few = first_of_each_fog(course)
    rest = [each for each in course.fleet.of("edge") if each not in few]
    await course.supervisor.start()
    try:
        await course.present([])
        say(f"1. a tenth of them: {len(few)}")
        await course.join(few, 1)
        before = await course.carry_out("r-few", few)
        say(f"2. all: {asked.agents}")
        if rest:
            await course.join(rest, asked.processes)
        after = await course.carry_out(RUN, course.fleet.of("edge"))
        synced = all(servers_sync(course.supervisor).values())
    finally:
        await course.stop()
    return told(course, before, after) | {"durable": synced, "limit_s": round(limit(asked, folder), 3)}


def told(course: Course, before: Carried, after: Carried) -> dict[str, Any]:
    """What was counted. Who was in each round is read from the rows that the places committed."""
    gave, few = (committed(course.fleet, each.run, WARM_UP) for each in (after, before))
    peak_mib = sum(herd.peak_mib() for herd in course.herds)
    return {
        "agents": gave.edges,
        "fogs": gave.fogs,
        "round_s": round(statistics.median(after.seconds), 3),
        "slowest_s": round(max(after.seconds), 3),
        "rounds": len(after.seconds),
        "agent_mib": round(peak_mib / course.asked.agents, 2),
        "cpu_ms_a_round": per_round(after.spent, course.asked.rounds),
        **peaks(course.supervisor.peaks),
        "of_agents": course.asked.agents,
        "few_agents": few.edges,
        "few_round_s": round(statistics.median(before.seconds), 3),
        "few_cloud_peak_mib": round(before.cloud_mib, 1),
        "load": round(os.getloadavg()[0], 1),
    }


def limit(asked: Asked, folder: Path) -> float:
    """Seconds that the bodies of a round need on the wire and on the disk."""
    shape = argparse.Namespace(params=PARAMS, bits=BITS, nodes=asked.agents, fogs=asked.fogs, depth=1)
    return sum(limits(shape, folder).values())


def held(found: Mapping[str, Any], asked: Asked) -> bool:
    """Whether the promise held."""
    flat = found["cloud_peak_mib"] <= found["few_cloud_peak_mib"] + FLAT_MIB
    whole = (found["agents"], found["fogs"]) == (asked.agents, asked.fogs)
    return bool(whole and flat and found["durable"] and found["round_s"] <= asked.within_s)


def main() -> int:
    """Run the drill; the last line is JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", type=at_least(1), default=1000)
    parser.add_argument("--fogs", type=at_least(1), default=10)
    parser.add_argument("--rounds", type=at_least(2), default=5)
    parser.add_argument("--within", type=at_least(1), default=TARGET_S, help="seconds that a round may take")
    parser.add_argument("--processes", type=at_least(1), default=4, help="that the agents share")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    args = parser.parse_args()
    asked = Asked(
        args.agents,
        min(args.fogs, args.agents),
        args.rounds,
        min(args.processes, args.agents),
        float(args.within),
    )
    say = (lambda _text: None) if args.json else (lambda text: print(text, flush=True))
    with tempfile.TemporaryDirectory(prefix="reuna-drill-") as folder:
        found = until_done(drill(asked, Path(folder), say))
    print(json.dumps(found))
    return 0 if held(found, asked) else 1


if __name__ == "__main__":
    in_order(lambda: sys.exit(main()))
