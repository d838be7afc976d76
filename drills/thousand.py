"""A thousand live agents over ten fogs: rounds of seconds, all of them in each, and a cloud that stays as small.

A real cloud and real fogs with their nats-servers, over mutual TLS; every agent has its own identity, policy,
ledger, NATS connection and HTTPS transfers, and each update is on its own disk and on its fog's before it is
acknowledged. The agents share a few processes (`drills.crowd.agents`). First a tenth of them work, then all:
the memory of the cloud must not grow with them.

``limit_s`` is what the same updates cost without any of this, measured in the same run: their bodies over one
loopback connection, and one write and fsync for each that is made durable.

    python -m drills.thousand [--agents 1000] [--fogs 10] [--rounds 5] [--json]
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
from collections.abc import Callable, Mapping
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
from reuna.fleet.layout import make_fleet
from reuna.fleet.session import follow, prepare, ready
from reuna.fleet.supervise import Supervisor

PARAMS = 10_000
BITS = 32
TARGET_S = 5.0  #: of a round, with a thousand agents
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


async def work(asked: Asked, folder: Path, say: Say) -> dict[str, Any]:
    """One fleet of that size, from its certificates to its last round; what was counted."""
    began = time.monotonic()
    job = job_for(folder, PARAMS, asked.agents, asked.rounds, asked.fogs, BITS, BITS)
    fleet = make_fleet(folder / "fleet", "thousand", spread(job.nodes, job.fogs))
    spec, parts = prepare(job, fleet, RUN)
    say(f"  {asked.agents} agents over {asked.fogs} fogs: certificates and policies {since(began)}")
    began = time.monotonic()
    above = replace(fleet, places=tuple(each for each in fleet.places if each.kind != "edge"))
    supervisor, herd = Supervisor(above), Herd(fleet, asked.processes)
    operator = Operator.of(fleet)
    await supervisor.start()
    try:
        await ready(above, operator, supervisor, within_s=PRESENT_S)
        await herd.start()
        await ready(fleet, operator, supervisor, within_s=PRESENT_S)
        say(f"  every one of them was heard of {since(began)}")
        for part in parts:
            await asyncio.to_thread(operator.put_blob, part)
        spec = msgspec.structs.replace(spec, evaluate=False, deadline_s=DEADLINE_S)
        await asyncio.to_thread(operator.submit, spec)
        events: list[dict[str, Any]] = []
        spent: list[dict[str, float]] = []

        def hear(event: dict[str, Any]) -> None:
            events.append(event)
            if event["what"] == "round":
                number = int(event["fields"]["round"])
                say(f"  round {number}: {event['fields']['seconds']:.2f} s")
                if number in (WARM_UP, spec.rounds):
                    spent.append(cpu_s([*supervisor.processes(), *herd.processes()]))

        await follow(operator, spec.run, hear)
        supervisor.sample()
        synced = all(servers_sync(supervisor).values())
    finally:
        await herd.stop()
        await supervisor.stop()
    rounds = [each["fields"] for each in events if each["what"] == "round"]
    seconds = [float(each["seconds"]) for each in rounds if int(each["round"]) > WARM_UP]
    gave = committed(fleet, RUN, WARM_UP)
    return {
        "agents": gave.edges,
        "fogs": gave.fogs,
        "round_s": round(statistics.median(seconds), 3),
        "slowest_s": round(max(seconds), 3),
        "rounds": len(seconds),
        "durable": synced,
        "agent_mib": round(herd.peak_mib() / asked.agents, 2),
        "cpu_ms_a_round": per_round(spent, asked.rounds),
        **peaks(supervisor.peaks),
    }


def since(began: float) -> str:
    """For the story."""
    return f"({time.monotonic() - began:.0f} s)"


def limit(asked: Asked, folder: Path) -> float:
    """Seconds that the bodies of a round need on the wire and on the disk."""
    told = argparse.Namespace(params=PARAMS, bits=BITS, nodes=asked.agents, fogs=asked.fogs)
    return sum(limits(told, folder).values())


async def drill(asked: Asked, say: Say) -> dict[str, Any]:
    """A tenth of the agents, then all."""
    few = replace(asked, agents=max(asked.fogs, asked.agents // 10))
    say(f"1. a tenth: {few.agents} agents")
    with tempfile.TemporaryDirectory(prefix="reuna-drill-") as folder:
        before = await work(few, Path(folder), say)
    say(f"2. all: {asked.agents} agents")
    with tempfile.TemporaryDirectory(prefix="reuna-drill-") as folder:
        found = await work(asked, Path(folder), say)
        found["limit_s"] = round(limit(asked, Path(folder)), 3)
    return {
        **found,
        "of_agents": asked.agents,
        "few_agents": before["agents"],
        "few_round_s": before["round_s"],
        "few_cloud_peak_mib": before["cloud_peak_mib"],
        "load": round(os.getloadavg()[0], 1),
    }


def held(found: Mapping[str, Any], asked: Asked) -> bool:
    """Whether the promise held."""
    flat = found["cloud_peak_mib"] <= found["few_cloud_peak_mib"] + FLAT_MIB
    whole = (found["agents"], found["fogs"]) == (asked.agents, asked.fogs)
    return bool(whole and flat and found["durable"] and found["round_s"] <= TARGET_S)


def main() -> int:
    """Run the drill; the last line is JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", type=at_least(1), default=1000)
    parser.add_argument("--fogs", type=at_least(1), default=10)
    parser.add_argument("--rounds", type=at_least(2), default=5)
    parser.add_argument("--processes", type=at_least(1), default=8, help="that the agents share")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    args = parser.parse_args()
    asked = Asked(args.agents, min(args.fogs, args.agents), args.rounds, min(args.processes, args.agents))
    say = (lambda _text: None) if args.json else (lambda text: print(text, flush=True))
    found = asyncio.run(drill(asked, say))
    print(json.dumps(found))
    return 0 if held(found, asked) else 1


if __name__ == "__main__":
    sys.exit(main())
