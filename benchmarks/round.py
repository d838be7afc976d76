"""The cost of a round without learning: real processes, TLS, durable spools, all through fogs.

    python -m benchmarks.round --params 1000000 --nodes 8 --rounds 20 --json

``limit_s`` is the physical limit measured in the same run: N bodies up and N down over one
loopback socket pair and their mean in numpy. ``disk_limit_s`` is one write and fsync of each body
that a round makes durable (N at the edges, N at the fogs, one partial a fog twice, one model).

Updates are random, dense and new each round, and fill the grid: the worst case, since an update
whose values are small is sent in fewer bytes (`reuna.learn.grid.needed_width`). ``--value-bits``
makes them smaller; the limits stay those of the whole grid.
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
from pathlib import Path
from typing import Any

import numpy as np

from reuna.adapters.toml_file import read_toml
from reuna.core.project import project_settings
from reuna.core.settings import Source, flags
from reuna.fleet.client import Operator
from reuna.fleet.data import DataNode, spread
from reuna.fleet.layout import make_fleet
from reuna.fleet.session import Job, follow, prepare, ready
from reuna.fleet.supervise import Supervisor
from reuna.learn.grid import sum_width

NOOP = Path(__file__).parent / "noop"
WARM_UP = 2  #: rounds not counted: processes, connections and caches warm up


def job_for(folder: Path, params: int, nodes: int, rounds: int, fogs: int, bits: int, value_bits: int) -> Job:
    """A run of the no-op project over ``nodes`` edges."""
    wanted = [f"train.params={params}", f"strategy.rounds={rounds + WARM_UP}", f"round.grid_bits={bits}"]
    exponent = -20 if bits > 16 else -12
    wanted += ["round.max_weight=1", f"round.grid_exponent={exponent}"]
    wanted += [f"train.amplitude={0.99 * 2.0 ** (value_bits - 1 + exponent)}"]
    sources: list[Source] = [read_toml(NOOP / "reuna.toml"), flags(wanted)]
    listed = [DataNode(f"edge-{i + 1}", f"edge-{i + 1}", folder) for i in range(nodes)]
    return Job(NOOP, project_settings(sources), listed, folder / "runs", fogs)


async def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Start the fleet, run the rounds, stop it; the figures."""
    job = job_for(folder, args.params, args.nodes, args.rounds, args.fogs, args.bits, args.value_bits)
    fleet = make_fleet(folder / "fleet", "bench", spread(job.nodes, job.fogs))
    supervisor = Supervisor(fleet)
    await supervisor.start()
    try:
        spec, parts = await asyncio.to_thread(prepare, job, fleet, "r-bench")
        operator = Operator.of(fleet)
        await ready(fleet, operator, supervisor)
        idle = supervisor.pss("edge-1") if args.idle else None
        for part in parts:
            await asyncio.to_thread(operator.put_blob, part)
        import msgspec

        spec = msgspec.structs.replace(spec, evaluate=False, deadline_s=300.0)
        await asyncio.to_thread(operator.submit, spec)
        events: list[dict[str, Any]] = []
        await follow(operator, spec.run, events.append)
        supervisor.sample()
    finally:
        await supervisor.stop()
    rounds = sorted((e["fields"] for e in events if e["what"] == "round"), key=lambda f: f["round"])[WARM_UP:]
    seconds = [fields["seconds"] for fields in rounds]
    return {
        "median_s": round(statistics.median(seconds), 5),
        "p90_s": round(float(np.quantile(seconds, 0.9)), 5),
        **limits(args, folder),
        "bits": args.bits,
        "value_bits": args.value_bits,
        "topology": f"{args.nodes} edges, {args.fogs} fogs, 1 cloud",
        "durable": True,
        "update_sha256": hashlib.sha256("".join(f["updates"] for f in rounds).encode()).hexdigest(),
        "distinct_updates": len({f["updates"] for f in rounds}),
        "params": args.params,
        "nodes": args.nodes,
        "rounds": len(seconds),
        **peaks(supervisor.peaks),
        "edge_idle_pss_mib": None if idle is None else round(idle, 1),
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
    }


def limits(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The physical limits, in this very run; the best of three each."""
    body = np.random.default_rng(0).integers(-1000, 1000, args.params, dtype=f"i{args.bits // 8}")
    sums = args.params * sum_width(_grid(args.bits), 1, args.nodes)
    loopback = min(_loopback(body, args.nodes) for _ in range(3))
    disk = min(_disk(folder, body.nbytes, sums, args.nodes, args.fogs, 4 * args.params) for _ in range(3))
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


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--fogs", type=int, default=2)
    parser.add_argument("--bits", type=int, default=32, choices=(8, 16, 32))
    parser.add_argument(
        "--value-bits", type=int, help="bits the largest values take; default all of the grid"
    )
    parser.add_argument("--idle", action="store_true", help="also measure an idle edge")
    parser.add_argument("--json", action="store_true", help="accepted for scripts; the output is JSON")
    args = parser.parse_args()
    args.value_bits = args.value_bits or args.bits
    with tempfile.TemporaryDirectory(prefix="reuna-bench-") as folder:
        print(json.dumps(asyncio.run(measure(args, Path(folder)))))


if __name__ == "__main__":
    main()
