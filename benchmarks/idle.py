"""What an edge takes in memory while it does nothing, process by process.

    python -m benchmarks.idle --reads --json

One cloud, one fog and one edge, or several; the edge has taken part in a run and its worker has ended. With
``--reads`` it also reads a machine: a recording that is played again, one value a second.

``alone_mib`` is what the edge would take on a machine without other places: what its processes wrote to, and
each page of a file that one of them has mapped, counted once. ``pss_mib`` divides the latter among all
processes that have it, those of other places too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.arguments import at_least
from benchmarks.round import IDLE_EDGE, IDLE_S, begin, job_for, set_at_edges, standing, without_worker
from reuna.adapters.processes import family, part_of
from reuna.exchange.small import EVERY_S
from reuna.fleet.data import spread
from reuna.fleet.layout import make_fleet
from reuna.fleet.session import follow

PARAMS, ROUNDS = 10_000, 3
RESTS_S = int(5 * EVERY_S)  #: some looks at which it lets go of what it needed to begin
SOURCES = """
[sources.pump]
kind = "replay"
folder = "{folder}"
time = "second"
repeat = true
[sources.pump.tags]
pressure_bar = {{ unit = "bar" }}
"""


async def measure(nodes: int, reads: bool, rests_s: int, folder: Path) -> dict[str, Any]:
    """Start the fleet, let it train, and look at its first edge ``rests_s`` after its worker ended."""
    job = job_for(folder, PARAMS, nodes, ROUNDS, 1, 32, 32)
    fleet = make_fleet(folder / "fleet", "bench", spread(job.nodes, 1))
    set_at_edges(fleet, idle_s=IDLE_S, **(a_recording(folder) if reads else {}))
    async with standing(job, fleet) as (supervisor, operator, spec, parts):
        await begin(operator, spec, parts)
        await follow(operator, spec.run, lambda _event: None)
        await without_worker(supervisor)
        await asyncio.sleep(rests_s)
        pids = family(supervisor.pids[IDLE_EDGE])
        return {
            "reads": reads,
            "places_sharing": len(fleet.places),
            "alone_mib": round(alone_mib(pids), 1),
            "pss_mib": round(supervisor.pss(IDLE_EDGE), 1),
            "uss_mib": round(supervisor.uss(IDLE_EDGE), 1),
            "own_mib": {part_of(pid): round(own_mib(pid), 1) for pid in pids},
        }


def a_recording(folder: Path) -> dict[str, str]:
    """Settings of an edge that reads a machine."""
    recording = folder / "recording"
    recording.mkdir()
    lines = (f"2026-01-01T00:00:{second:02d}Z,{5 + second % 7}" for second in range(60))
    (recording / "pump.csv").write_text("\n".join(["second,pressure_bar", *lines]) + "\n")
    sources = folder / "sources.toml"
    sources.write_text(SOURCES.format(folder=recording))
    return {"sources": str(sources)}


def alone_mib(pids: Iterable[int]) -> float:
    """What these processes would take without others beside them."""
    own, files = 0.0, dict[str, int]()
    for pid in pids:
        own += own_mib(pid)
        for name, kib in shared_kib(Path(f"/proc/{pid}/smaps").read_text()):
            files[name] = max(kib, files.get(name, 0))
    return own + sum(files.values()) / 1024


def own_mib(pid: int) -> float:
    """What a process wrote to, and its part of what it shares of that with its forks."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss_Anon:")) / 1024


def shared_kib(smaps: str) -> Iterator[tuple[str, int]]:
    """File and offset of each part of a file in a map of memory, and how much of it is there unwritten, KiB."""
    name, resident = "", 0
    for line in smaps.splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            name = f"{rest[4]}@{rest[1]}" if len(rest) > 4 and rest[3] != "0" else ""
        elif first == "Rss:":
            resident = int(rest[0])
        elif first == "Anonymous:" and name:
            yield name, resident - int(rest[0])


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=at_least(1), default=1, help="edges under the fog")
    parser.add_argument("--reads", action="store_true", help="each edge also reads a machine")
    parser.add_argument(
        "--rests", type=at_least(0), default=RESTS_S, help="seconds that it is left alone before"
    )
    parser.add_argument("--json", action="store_true", help="accepted for scripts; the output is JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reuna-bench-") as folder:
        print(json.dumps(asyncio.run(measure(args.nodes, args.reads, args.rests, Path(folder)))))


if __name__ == "__main__":
    main()
