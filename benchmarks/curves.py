"""What a round costs: time, the coordinator's CPU and memory, and bytes, by nodes and by size of the model.

    python -m benchmarks.curves                     # all points, into runs/bench/curves.json
    python -m benchmarks.curves --curve nodes --most 1000

``nodes``: 1 to 5,000 nodes with 10,000 values, *simulated*: the real round logic of edges, fogs and cloud on a
virtual clock, without network and disk; nodes and fogs in processes of their own, so that the CPU and memory told
are those of the process with the coordinator. ``params``: 10 thousand to 100 million values on a *real* fleet of two
edges and two fogs over mutual TLS with durable spools (`benchmarks.round`), as far as memory goes.

Updates are random, dense, new each round, 32 bits each. Every point is a process of its own with a time limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.arguments import at_least
from benchmarks.peers import looking, machine
from benchmarks.peers.cells import failure, read_line
from benchmarks.peers.running import run, say
from reuna.adapters.processes import ONE_THREAD, available_mib, own_peak_mib

OUT = Path("runs/bench/curves.json")
POINTS = {
    "nodes": (1, 10, 100, 1000, 5000),
    "params": (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000),
}
SIM_PARAMS = 10_000
SIM_PROCESSES = 2
FLEET_NODES = 2
MODELS_AT_ONCE = (
    30  #: that a fleet of two edges and two fogs has in memory, with what the benchmark's learner draws
)
WARM_UP = 1


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """What was asked for; a mistake ends with one line that says what is allowed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.curves",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--curve", nargs="+", choices=tuple(POINTS), default=list(POINTS))
    parser.add_argument("--most", type=at_least(1), help="leave out points above")
    parser.add_argument("--limit", type=at_least(1), default=600, help="seconds of one point")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--json", action="store_true", help="print the result too")
    parser.add_argument("--point", nargs=2, metavar=("CURVE", "SIZE"), help="measure one, print its line")
    args = parser.parse_args(given)
    if args.point and (
        args.point[0] not in POINTS or not args.point[1].isdecimal() or not int(args.point[1])
    ):
        parser.error("argument --point: give 'nodes' or 'params', and a whole number from 1 on")
    return args


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Every point of the curves asked for; what the file has of the other one stays."""
    looking.end_when_told()
    result: dict[str, Any] = {"machine": machine.described()}
    if args.out.is_file():
        result = json.loads(args.out.read_text(encoding="utf-8")) | result
    for curve in args.curve:
        found: list[dict[str, Any]] = []
        result[curve] = {**machine.run_of("benchmarks.curves"), "points": found}
        for size in POINTS[curve]:
            if args.most is not None and size > args.most:
                continue
            say(f"{curve} {size:,}")
            found.append(point(curve, size, args.limit))
            say(f"        {shown(found[-1])}")
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def shown(told: Mapping[str, Any]) -> str:
    """A point in a line."""
    return str(told["failed"] or f"{told['round_s']:.3f} s a round, {told['coordinator_peak_mib']:.0f} MiB")


def point(curve: str, size: int, limit_s: float) -> dict[str, Any]:
    """One point in a process of its own; ``failed`` says why it has no figures."""
    at = {curve: size}
    missing = too_large(curve, size, available_mib())
    if missing:
        return {**at, "failed": missing}
    command = [sys.executable, "-m", "benchmarks.curves", "--point", curve, str(size)]
    outcome = run(command, limit_s)
    told = read_line(outcome.output)
    failed = failure(told, outcome.status, outcome.errors, limit_s)
    return {**at, "failed": failed, **({} if failed or told is None else told)}


def too_large(curve: str, size: int, available: float | None) -> str | None:
    """Why a point is not begun: it would take more memory than there is."""
    needed = MODELS_AT_ONCE * 4 * size / 2**20
    if curve == "nodes" or available is None or needed < available:
        return None
    return f"needs {needed / 1024:.0f} GiB, {available / 1024:.0f} are free"


def simulated(nodes: int) -> dict[str, Any]:
    """A point by nodes: rounds of the real round logic in processes of this machine."""
    from benchmarks.noop.noop.model import Noop
    from reuna.api import play, spread_over
    from reuna.core.records import Grid
    from reuna.loop.plan import check_spec
    from reuna.sim.fleet import make_spec

    grid, rounds = Grid(32, -20), 3 if nodes > 100 else 10
    learner = Noop(SIM_PARAMS, 0.99 * 2.0**11, 0.0)
    learner.fit(learner.init(1), None, {}, 0)  # its numbers are drawn once, before processes are forked
    names = {f"node-{place:05d}": None for place in range(nodes)}
    fogs = min(nodes, max(SIM_PROCESSES, -(-nodes // 40)))
    spread, _ = spread_over(learner, names, fogs, None)
    spec, model, bundle = make_spec(
        spread, learner, rounds + WARM_UP, grid=grid, max_weight=1, deadline_s=3600.0
    )
    check_spec(spec)
    seen: list[tuple[float, float]] = []

    def watch(what: str, fields: Mapping[str, Any]) -> None:
        if what == "round":
            used = resource.getrusage(resource.RUSAGE_SELF)
            seen.append((time.perf_counter(), used.ru_utime + used.ru_stime))

    result = play(spread, spec, model, bundle, watch, processes=SIM_PROCESSES)
    gaps = list(pairwise(seen))
    alone = min(nodes, SIM_PROCESSES) > 1
    return {
        "params": SIM_PARAMS,
        "fogs": fogs,
        "round_s": statistics.median(after[0] - before[0] for before, after in gaps),
        "coordinator_cpu_s": statistics.median(after[1] - before[1] for before, after in gaps)
        if alone
        else None,
        "coordinator_peak_mib": round(own_peak_mib(), 1),
        "sent_bytes": round(result.bytes_by_kind["model_update"] / (rounds + WARM_UP)),
        "mode": "simulated",
    }


def on_a_fleet(params: int) -> dict[str, Any]:
    """A point by size: real processes, TLS, disk."""
    from benchmarks import round as rounds

    count = 10 if params < 10_000_000 else 3 if params < 100_000_000 else 2
    args = rounds.arguments(
        ["--params", str(params), "--nodes", str(FLEET_NODES), "--rounds", str(count), "--fogs", "2"]
    )
    with tempfile.TemporaryDirectory(prefix="reuna-curve-") as name:
        told = asyncio.run(rounds.measure(args, Path(name)))
        sent = received(Path(name), rounds.RUN, rounds.WARM_UP)
    spent = sum(ms for kind, ms in told["cpu_ms_a_round"].items() if kind.startswith("cloud"))
    return {
        "nodes": told["nodes"],
        "fogs": args.fogs,
        "round_s": told["median_s"],
        "limit_s": told["limit_s"],
        "coordinator_cpu_s": spent / 1000,
        "coordinator_peak_mib": told["cloud_peak_mib"],
        "sent_bytes": round(sent / count),
        "mode": "processes",
    }


def received(folder: Path, run_name: str, after: int) -> int:
    """Bytes of updates and sums that fogs and cloud committed in the rounds that are counted, each once.

    A fog keeps its own sum beside what it received.
    """
    from reuna.adapters.spool import DiskSpool

    found: dict[tuple[str, str, int], int] = {}
    for place in folder.rglob("state/spool"):
        spool = DiskSpool(place)
        try:
            rows = [row for row in spool.rows_of_run(run_name) if row.round > after]
        finally:
            spool.close()
        found |= {(row.kind, row.sender, row.round): row.size for row in rows}
    return sum(size for (kind, _, _), size in found.items() if kind in {"update", "partial"})


def main() -> int:
    """Measure; status 1 when a point has no figures."""
    args = arguments()
    if args.point:
        curve, size = args.point[0], int(args.point[1])
        print(json.dumps((simulated if curve == "nodes" else on_a_fleet)(size)), flush=True)
        return 0
    os.environ.update(ONE_THREAD)
    result = measure(args)
    if args.json:
        print(json.dumps(result))
    say(f"written to {args.out}")
    return int(any(told["failed"] for curve in args.curve for told in result[curve]["points"]))


if __name__ == "__main__":
    sys.exit(main())
