"""What it costs an edge to read an OPC UA server: 200 tags at 10 Hz by subscription, kept in the store.

    python -m benchmarks.opcua --tags 200 --hertz 10 --seconds 60 --json

The server is one of open62541 (o6) in a process of its own, whose tags all change that often; without o6, which runs ten
minutes without a licence, there is nothing to read. Time computed and memory are those of the reading process alone: the
source and the local store, as `reuna source record` has them. Then the server is killed and started again at the
same port: ``back_s`` is from the moment at which it listens to the first reading.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.arguments import at_least
from benchmarks.store import rss_mib
from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.adapters.local_store import LocalStore
from reuna.adapters.opcua.source import OpcUaSource
from reuna.core.opcua_settings import OpcUaSettings, OpcUaTag, node
from reuna.core.source_settings import StoreSettings
from reuna.edge.read import Recorder, Seen, begun
from reuna.fleet.ports import free_ports

BREAKS = 5
SERVER = """
import asyncio, sys, time
import o6
from datetime import datetime, UTC

async def main(port, tags, hertz):
    server = o6.Server(port=port)
    names = [f"ns=1;s=tag-{number:04d}" for number in range(tags)]
    for number, name in enumerate(names):
        await server.addVariable(f"tag-{number:04d}", server.objectsNode, 0.0, nodeId=name)
    server.start()
    await server.waitReady()
    print("> ready", time.time(), flush=True)
    count, due = 0, time.monotonic()
    while True:
        count += 1
        moment = o6.DateTime(datetime.now(UTC))
        for number, name in enumerate(names):
            value = o6.DataValue(float(count) + number / 1000, sourceTimestamp=moment)
            await server.write(name, value)
        due += 1 / hertz
        await asyncio.sleep(max(0.0, due - time.monotonic()))

asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
"""


def started(port: int, tags: int, hertz: int) -> tuple[subprocess.Popen[str], float]:
    """The server, and when it listened."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port), str(tags), str(hertz)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    for line in server.stdout:
        if line.startswith("> ready"):
            return server, float(line.split()[2])
    raise SystemExit("the server ended: is o6 installed?")


def total(seen: Seen) -> tuple[int, int]:
    """Readings of all tags, and how often the server has changed them."""
    return sum(live.readings for live in seen.live.values()), int(seen.live["tag-0000"].value)


async def measure(tags: int, hertz: int, seconds: float, breaks: int, folder: Path) -> dict[str, Any]:
    """The figures."""
    before = rss_mib()
    (port,) = free_ports(1)
    server, _ = await asyncio.to_thread(started, port, tags, hertz)
    known = tuple(
        OpcUaTag(f"tag-{number:04d}", node(f"ns=1;s=tag-{number:04d}"), every_s=0.5 / hertz, queue=100)
        for number in range(tags)
    )
    said = OpcUaSettings("bench", f"opc.tcp://127.0.0.1:{port}", known, security="none", backfill_s=0.0)
    store = LocalStore(StoreSettings(str(folder), 30.0, 1024))
    clock = SystemClock()
    try:
        seen = begun([OpcUaSource(said, clock, ThreadOffload())])
        work = asyncio.create_task(Recorder(store, clock).record(seen))
        while seen["bench"].live["tag-0000"].readings < 2 * hertz:  # it has begun
            await asyncio.sleep(0.1)
        first, sent = total(seen["bench"])
        used, began = time.process_time(), time.perf_counter()
        await asyncio.sleep(seconds)
        took, computed = time.perf_counter() - began, time.process_time() - used
        last, sent_last = total(seen["bench"])
        readings, sent = last - first, (sent_last - sent) * tags
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        back = []
        for _ in range(breaks):
            server.kill()
            server.wait()
            server, listened = await asyncio.to_thread(started, port, tags, hertz)
            while seen["bench"].live["tag-0000"].received_ns < listened * 1e9:
                await asyncio.sleep(0.005)
            back.append(seen["bench"].live["tag-0000"].received_ns / 1e9 - listened)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    finally:
        server.kill()
        server.communicate()
        store.close()
    return {
        "readings_per_s": round(readings / took, 1),
        "sent_per_s": round(sent / took, 1),
        "share_received": round(readings / sent, 4),
        "core_share": round(computed / took, 4),
        "readings_per_core_s": round(readings / computed),
        "started_mib": round(before, 1),
        "peak_mib": round(peak, 1),
        "back_s": [round(each, 2) for each in back],
        "tags": tags,
        "hertz": hertz,
        "seconds": seconds,
    }


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tags", type=at_least(1), default=200)
    parser.add_argument("--hertz", type=at_least(1), default=10)
    parser.add_argument("--seconds", type=at_least(1), default=60)
    parser.add_argument("--breaks", type=at_least(0), default=BREAKS, help="how often the server is killed")
    parser.add_argument("--json", action="store_true", help="accepted for scripts; the output is JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reuna-bench-") as folder:
        found = measure(args.tags, args.hertz, args.seconds, args.breaks, Path(folder))
        print(json.dumps(asyncio.run(found)))


if __name__ == "__main__":
    main()
