"""The cost of a round without learning: real processes, TLS, durable spools, all through fogs.

    python -m benchmarks.round --params 1000000 --nodes 8 --rounds 20 --json

``limit_s`` is the physical limit measured in the same run: N bodies up and N down over one
loopback socket pair and their mean in numpy. ``disk_limit_s`` is one write and fsync of each body
that a round makes durable (N at the edges, N at the fogs, one partial a fog twice, one model).

Updates are random, dense and new each round, and fill the grid: the worst case, since an update
whose values are small is sent in fewer bytes (`reuna.learn.grid.needed_width`). ``--value-bits``
makes them smaller; the limits stay those of the whole grid. They are plain integers, neither packed nor with
error feedback: what those save is measured by `benchmarks.encodings`.

What the line says of the fleet was observed, not copied from the arguments (`benchmarks.observed`):
``bits`` is the widest integer in the committed updates, ``topology`` who gave to every counted round,
``durable`` whether every nats-server and every open database and spool forced what it wrote.

``edge_idle_pss_mib`` is the larger of an edge before its first run and after its last, once the worker
has ended. Pages shared with other places count in part, by how many share them: ``places_sharing``
says how many places there were. ``edge_idle_uss_mib`` counts only pages that no other process has.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.arguments import at_least, between
from benchmarks.observed import committed, is_durable, said, servers_sync, topology
from reuna.adapters.toml_file import read_toml
from reuna.core.project import project_settings
from reuna.core.records import RunSpec
from reuna.core.settings import Source, flags
from reuna.core.tree import MOST_LEVELS
from reuna.exchange.small import EVERY_S
from reuna.fleet.client import Operator
from reuna.fleet.data import DataNode, spread
from reuna.fleet.layout import Fleet, make_fleet, write_toml
from reuna.fleet.session import Job, follow, prepare, ready
from reuna.fleet.supervise import Supervisor
from reuna.learn.grid import sum_width
from reuna.learn.strategies import TAKES

NOOP = Path(__file__).parent / "noop"
RUN = "r-bench"
WARM_UP = 2  #: rounds not counted: processes, connections and caches warm up
IDLE_S = 2.0  #: until an edge's worker ends, where idle memory is measured: nobody waits a minute for it
SETTLED_S = 30.0  #: by then it has ended
IDLE_EDGE = "edge-1"
EDGE_PARTS = ("main", "egress", "worker")


def job_for(
    folder: Path,
    params: int,
    nodes: int,
    rounds: int,
    fogs: int,
    bits: int,
    value_bits: int,
    busy_s: float = 0.0,
) -> Job:
    """A run of the no-op project over ``nodes`` edges, each busy for so long in a fit or evaluation."""
    wanted = [f"train.params={params}", f"strategy.rounds={rounds + WARM_UP}", f"round.grid_bits={bits}"]
    exponent = -20 if bits > 16 else -12
    wanted += ["round.max_weight=1", f"round.grid_exponent={exponent}"]
    wanted += ["round.packed=never", "round.feedback=false"]
    wanted += [f"train.amplitude={0.99 * 2.0 ** (value_bits - 1 + exponent)}"]
    wanted += [f"train.busy_s={busy_s}"]
    sources: list[Source] = [read_toml(NOOP / "reuna.toml"), flags(wanted)]
    listed = [DataNode(f"edge-{i + 1}", f"edge-{i + 1}", folder) for i in range(nodes)]
    return Job(NOOP, project_settings(sources, TAKES), listed, folder / "runs", fogs)


async def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Start the fleet, run the rounds, stop it; the figures."""
    job = job_for(folder, args.params, args.nodes, args.rounds, args.fogs, args.bits, args.value_bits)
    fogs, above = raised(spread(job.nodes, job.fogs), args.depth)
    fleet = make_fleet(folder / "fleet", "bench", fogs, above=above)
    if args.idle:
        set_at_edges(fleet, idle_s=IDLE_S)
    async with standing(job, fleet) as (supervisor, operator, spec, parts):
        idle = [memory(supervisor)] if args.idle else []
        await begin(operator, spec, parts)
        events: list[dict[str, Any]] = []
        spent: list[dict[str, float]] = []

        def hear(event: dict[str, Any]) -> None:
            events.append(event)
            if event["what"] == "round" and event["fields"]["round"] in (WARM_UP - 1, spec.rounds - 1):
                spent.append(cpu_s(supervisor.processes()))

        await follow(operator, spec.run, hear)
        supervisor.sample()
        if args.idle:
            await without_worker(supervisor)
            idle.append(memory(supervisor))
        running, servers = supervisor.processes(), servers_sync(supervisor)
    rounds = sorted((e["fields"] for e in events if e["what"] == "round"), key=lambda f: f["round"])[WARM_UP:]
    seconds, gave = [fields["seconds"] for fields in rounds], committed(fleet, RUN, WARM_UP)
    return {
        "median_s": round(statistics.median(seconds), 5),
        "p90_s": round(float(np.quantile(seconds, 0.9)), 5),
        **limits(args, folder),
        "bits": gave.bits,
        "value_bits": args.value_bits,
        "topology": topology(fleet, running, gave),
        "durable": is_durable(fleet, servers, said(fleet)),
        "update_sha256": hashlib.sha256("".join(f["updates"] for f in rounds).encode()).hexdigest(),
        "distinct_updates": len({f["updates"] for f in rounds}),
        "params": args.params,
        "nodes": gave.edges,
        "rounds": len(seconds),
        "cpu_ms_a_round": per_round(spent, args.rounds),
        **peaks(supervisor.peaks),
        **idle_figures(idle, len(fleet.places)),
    }


def raised(
    fogs: Mapping[str, Mapping[str, Path]], depth: int
) -> tuple[dict[str, Mapping[str, Path]], dict[str, str]]:
    """The same fogs under a chain of fogs without edges, so that they stand ``depth`` levels deep."""
    found, above, below = dict(fogs), dict[str, str](), list(fogs)
    for level in range(1, depth):
        top = f"fog-over-{level}"
        found[top] = {}
        above |= dict.fromkeys(below, top)
        below = [top]
    return found, above


def set_at_edges(fleet: Fleet, **settings: str | float) -> None:
    """Settings of each edge, before it starts."""
    for place in fleet.of("edge"):
        write_toml(place.settings, {**read_toml(place.settings).values, **settings})


@asynccontextmanager
async def standing(
    job: Job, fleet: Fleet
) -> AsyncIterator[tuple[Supervisor, Operator, RunSpec, Sequence[bytes]]]:
    """A fleet whose places are all there, as long as the context lasts; the run, and what it is made of.

    It runs without evaluation, and waits for whoever is slow.
    """
    supervisor = Supervisor(fleet)
    await supervisor.start()
    try:
        spec, parts = await asyncio.to_thread(prepare, job, fleet, RUN)
        operator = Operator.of(fleet)
        await ready(fleet, operator, supervisor)
        yield supervisor, operator, msgspec.structs.replace(spec, evaluate=False, deadline_s=300.0), parts
    finally:
        await supervisor.stop()


async def begin(operator: Operator, spec: RunSpec, parts: Iterable[bytes]) -> None:
    """Begin the run."""
    for part in parts:
        await asyncio.to_thread(operator.put_blob, part)
    await asyncio.to_thread(operator.submit, spec)


async def without_worker(supervisor: Supervisor) -> None:
    """Until the edge's worker has ended, and the others gave back what they freed. Raises `TimeoutError`."""
    async with asyncio.timeout(SETTLED_S):
        while f"{IDLE_EDGE}/worker" in dict(supervisor.processes()):
            await asyncio.sleep(0.1)
    await asyncio.sleep(1.2 * EVERY_S)


def memory(supervisor: Supervisor) -> tuple[float, float]:
    """Proportional and unique set size of an edge, MiB."""
    return supervisor.pss(IDLE_EDGE), supervisor.uss(IDLE_EDGE)


def idle_figures(idle: list[tuple[float, float]], places: int) -> dict[str, float | int | None]:
    """Of an edge before the run and after it; null where it was not asked for."""
    shared: list[float | None] = [round(pss, 1) for pss, _ in idle] or [None, None]
    return {
        "edge_idle_pss_mib": max((pss for pss in shared if pss is not None), default=None),
        "edge_idle_before_pss_mib": shared[0],
        "edge_idle_after_pss_mib": shared[1],
        "edge_idle_uss_mib": max((round(uss, 1) for _, uss in idle), default=None),
        "places_sharing": places,
    }


def peaks(found: dict[str, float]) -> dict[str, float]:
    """Largest resident size by what the process is."""

    def largest(*ends: str) -> float:
        return round(max((v for k, v in found.items() if k.endswith(ends)), default=0.0), 1)

    return {
        "cloud_peak_mib": round(found.get("cloud/main", 0.0), 1),
        "fog_peak_mib": round(
            max((v for k, v in found.items() if k.startswith("fog-") and k.endswith("/main")), default=0.0), 1
        ),
        "nats_peak_mib": largest("/nats"),
        **{f"edge_{part}_peak_mib": largest_of_edges(found, part) for part in EDGE_PARTS},
    }


def largest_of_edges(found: Mapping[str, float], part: str) -> float:
    """Largest resident size of one of the processes that every edge has, MiB."""
    sizes = (size for name, size in found.items() if name.startswith("edge-") and name.endswith(f"/{part}"))
    return round(max(sizes, default=0.0), 1)


def cpu_s(processes: Iterable[tuple[str, int]]) -> dict[str, float]:
    """Seconds that each process has computed so far, by its name."""
    ticks = os.sysconf("SC_CLK_TCK")
    found = {}
    for name, pid in processes:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        found[name] = (int(fields[11]) + int(fields[12])) / ticks
    return found


def per_round(spent: Sequence[Mapping[str, float]], rounds: int) -> dict[str, float]:
    """Milliseconds of CPU in a round by what the process is, all places of a kind together."""
    before, after = spent
    found: dict[str, float] = {}
    for name, seconds in after.items():
        place, _, part = name.partition("/")
        kind = f"{place.partition('-')[0]} {part}"
        found[kind] = found.get(kind, 0.0) + 1000 * (seconds - before.get(name, 0.0)) / rounds
    return {
        "all": round(sum(found.values()), 1),
        **{kind: round(ms, 1) for kind, ms in sorted(found.items())},
    }


def limits(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The physical limits, in this very run; the best of three each."""
    body = np.random.default_rng(0).integers(-1000, 1000, args.params, dtype=f"i{args.bits // 8}")
    sums = args.params * sum_width(_grid(args.bits), 1, args.nodes)
    loopback = min(_loopback(body, args.nodes) for _ in range(3))
    fogs = args.fogs + args.depth - 1
    disk = min(_disk(folder, body.nbytes, sums, args.nodes, fogs, 4 * args.params) for _ in range(3))
    return {"limit_s": round(loopback, 5), "disk_limit_s": round(disk, 5)}


def _grid(bits: int) -> Any:
    from reuna.core.records import Grid

    return Grid(bits, -12)


def _loopback(body: np.ndarray, nodes: int) -> float:
    """Mean of N bodies in numpy, N bodies up and N float32 models down over one loopback TCP pair."""
    down = bytes(4 * body.size)
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    began = time.perf_counter()
    for data in (body.tobytes(), down):
        thread = threading.Thread(target=lambda d=data: [client.sendall(d) for _ in range(nodes)])
        thread.start()
        left = nodes * len(data)
        while left:
            left -= len(server.recv(min(left, 1 << 20)))
        thread.join()
    total = np.zeros(body.size, np.int64)
    for _ in range(nodes):
        total += body
    (total * (1.0 / nodes)).astype(np.float32)
    taken = time.perf_counter() - began
    for sock in (client, server, listener):
        sock.close()
    return taken


def _disk(folder: Path, update: int, partial: int, nodes: int, fogs: int, model: int) -> float:
    sizes = [update] * (2 * nodes) + [partial] * (2 * fogs) + [model]
    data = os.urandom(max(sizes))
    began = time.perf_counter()
    for index, size in enumerate(sizes):
        path = folder / f"disk-{index}"
        with path.open("wb") as file:
            file.write(data[:size])
            file.flush()
            os.fsync(file.fileno())
    taken = time.perf_counter() - began
    for index in range(len(sizes)):
        (folder / f"disk-{index}").unlink()
    return taken


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What was asked for; a mistake ends with one line that says what is allowed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", type=at_least(1), default=10_000)
    parser.add_argument("--nodes", type=at_least(1), default=8)
    parser.add_argument("--rounds", type=at_least(1), default=20)
    parser.add_argument("--fogs", type=at_least(1), default=2, help="at most as many as nodes")
    parser.add_argument("--depth", type=between(1, MOST_LEVELS), default=1, help="levels of fogs")
    parser.add_argument("--bits", type=int, default=32, choices=(8, 16, 32))
    parser.add_argument(
        "--value-bits", type=between(2, 32), help="bits the largest values take; default all of the grid"
    )
    parser.add_argument("--idle", action="store_true", help="also measure an idle edge")
    parser.add_argument("--json", action="store_true", help="accepted for scripts; the output is JSON")
    args = parser.parse_args(words)
    args.fogs = min(args.fogs, args.nodes)
    args.value_bits = args.value_bits or args.bits
    if args.value_bits > args.bits:
        parser.error(f"argument --value-bits: {args.value_bits} do not fit a grid of {args.bits} bits")
    return args


def main() -> None:
    """Measure and print one JSON line."""
    args = arguments()
    with tempfile.TemporaryDirectory(prefix="reuna-bench-") as folder:
        print(json.dumps(asyncio.run(measure(args, Path(folder)))))


if __name__ == "__main__":
    main()
