"""Kill every process of a small fleet, each role in many phases of a run; nothing is lost.

A run is carried out twice with the same seed: undisturbed, and while one process after the other
is killed with SIGKILL: cloud, fogs, edges, their egress, workers and nats-servers. The promise:
the second run ends by itself with the same model, bit for bit.

    python -m drills.kill [--kills 24] [--seed 1] [--json]
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
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.round import job_for
from reuna.adapters.spool import DiskSpool
from reuna.core.records import RunSpec
from reuna.fleet.client import Operator
from reuna.fleet.data import spread
from reuna.fleet.layout import Fleet, make_fleet
from reuna.fleet.session import follow, prepare, ready
from reuna.fleet.supervise import Supervisor, log_path

RUN = "r-drill"
ROLES = (
    ("cloud", "main"), ("fog-1", "main"), ("edge-1", "main"), ("cloud", "nats"), ("fog-2", "nats"),
    ("edge-2", "egress"), ("fog-1", "egress"), ("edge-3", "worker"), ("fog-2", "main"), ("edge-4", "main"),
    ("fog-1", "nats"), ("edge-5", "worker"), ("edge-6", "egress"), ("fog-2", "egress"),
)  # fmt: skip
PHASES_S = (0.0, 0.01, 0.03, 0.06, 0.1, 0.15)  #: how long after a round's start the kill comes
PARAMS = 50_000


@dataclass
class Watched:
    """What came of one run."""

    model: str
    kills: Counter[str] = field(default_factory=Counter)
    retrained: int = 0
    lost: int = 0
    double: int = 0


async def carry_out(folder: Path, rounds: int, kills: int, seed: int, say: Any) -> Watched:
    """Run once, killing ``kills`` processes on the way."""
    job = job_for(folder, PARAMS, 6, rounds, 2, 32, 14)
    fleet = make_fleet(folder / "fleet", "drill", spread(job.nodes, job.fogs), announce_s=0.5)
    supervisor = Supervisor(fleet)
    await supervisor.start()
    killer: asyncio.Task[Counter[str]] | None = None
    try:
        spec, parts = await asyncio.to_thread(prepare, job, fleet, RUN)
        spec = msgspec.structs.replace(spec, evaluate=True, deadline_s=600.0)
        operator = Operator.of(fleet)
        await ready(fleet, operator, supervisor)
        for part in parts:
            await asyncio.to_thread(operator.put_blob, part)
        await asyncio.to_thread(operator.submit, spec)
        closed: asyncio.Queue[int] = asyncio.Queue()
        killer = asyncio.create_task(kill_all(supervisor, closed, kills, seed, say))
        watch = _watcher(closed)
        outcome = await follow(operator, RUN, watch)
        done = await asyncio.wait_for(killer, 60) if kills else Counter[str]()
    finally:
        if killer is not None:
            killer.cancel()
        await supervisor.stop()
    watched = Watched(outcome["model"], done, retrainings(fleet))
    watched.lost, watched.double = count_members(fleet, spec)
    return watched


def _watcher(closed: asyncio.Queue[int]) -> Any:
    def watch(event: dict[str, Any]) -> None:
        if event["what"] == "round":
            closed.put_nowait(int(event["fields"]["round"]))

    return watch


async def kill_all(
    supervisor: Supervisor, closed: asyncio.Queue[int], kills: int, seed: int, say: Any
) -> Counter[str]:
    """After each closed round, kill the next role at the next phase, until all kills are done."""
    rng, done = random.Random(seed), Counter[str]()
    for index in range(kills):
        number = await closed.get()
        place, part = ROLES[index % len(ROLES)]
        await asyncio.sleep(PHASES_S[index % len(PHASES_S)] + rng.uniform(0, 0.02))
        pid = await find(supervisor, f"{place}/{part}")
        if part == "worker":
            await at_work(pid)
        os.kill(pid, signal.SIGKILL)
        done[f"{place.split('-')[0]} {part}"] += 1
        say(f"  round {number:3d}: killed {place} {part} (pid {pid})")
        while not closed.empty():
            closed.get_nowait()
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
        seen.update((place.name, line) for line in re.findall(r"trained (round \d+ attempt \d+)", log))
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


async def drill(kills: int, seed: int, say: Any) -> dict[str, Any]:
    """Both runs and the comparison."""
    rounds = 3 * kills + 12  # a round may close while a process is still starting again
    with tempfile.TemporaryDirectory(prefix="reuna-drill-") as folder:
        say(f"1. undisturbed: 1 cloud, 2 fogs, 6 edges, {rounds} rounds")
        calm = await carry_out(Path(folder) / "calm", rounds, 0, seed, say)
        say(f"   model {calm.model[:16]}")
        say(f"2. the same run, {kills} processes killed with SIGKILL on the way")
        stormy = await carry_out(Path(folder) / "stormy", rounds, kills, seed, say)
        say(f"   model {stormy.model[:16]}")
    return {
        "kills": sum(stormy.kills.values()),
        "rounds_retrained": stormy.retrained,
        "lost": stormy.lost,
        "double_counted": stormy.double,
        "same_bits": stormy.model == calm.model,
        "killed": dict(stormy.kills),
    }


def held(result: dict[str, Any]) -> bool:
    """Whether the promise held."""
    exact = result["same_bits"] and not result["lost"] and not result["double_counted"]
    return bool(exact and result["rounds_retrained"] >= 1)


def main() -> int:
    """Run the drill; the last line is JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    args = parser.parse_args()
    say = (lambda _text: None) if args.json else (lambda text: print(text, flush=True))
    result = asyncio.run(drill(args.kills, args.seed, say))
    print(json.dumps(result))
    return 0 if held(result) else 1


if __name__ == "__main__":
    sys.exit(main())
