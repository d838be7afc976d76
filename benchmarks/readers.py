"""What it costs an edge to read a device or a broker: 200 tags at 10 Hz, as the source gives them.

    python -m benchmarks.readers --kind modbus --tags 200 --hertz 10 --seconds 30 --json

The counterpart runs in processes of its own: pyModbusTCP's server, or mosquitto with a publisher. ``modbus`` reads
all tags once in a tenth of a second; ``mqtt`` gets one JSON message for each scan, ``topics`` one plain number for each
tag, ``sparkplug`` one NDATA with aliases for each scan. The first second is not counted. ``late_ms`` is how much
older than its arrival here a reading is; MQTT's batches of 0.1 s are in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.arguments import at_least
from benchmarks.store import rss_mib
from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.core.modbus import Register
from reuna.core.modbus_settings import ModbusSettings
from reuna.core.mqtt_settings import Broker, MqttSettings, MqttTag, SparkplugSettings, SparkplugTag
from reuna.core.source_settings import AnySource
from reuna.core.sources import NS
from reuna.edge.read import opened

KINDS = ("modbus", "mqtt", "topics", "sparkplug")
WARM_S = 1.0


def settings_of(kind: str, tags: int, hertz: int, port: int) -> AnySource:
    """A source of that kind."""
    names = [f"tag-{number:04d}" for number in range(tags)]
    broker = Broker("127.0.0.1", port)
    if kind == "modbus":
        registers = tuple(
            Register(name, "bar", "holding", 2 * at, "float32") for at, name in enumerate(names)
        )
        return ModbusSettings("bench", "127.0.0.1", registers, port, every_s=1 / hertz)
    if kind == "sparkplug":
        metrics = tuple(SparkplugTag(name, "bar", name) for name in names)
        return SparkplugSettings("bench", broker, "plant", "bench", metrics)
    if kind == "topics":
        return MqttSettings("bench", broker, tuple(MqttTag(name, "bar", f"plant/{name}") for name in names))
    one = tuple(MqttTag(name, "bar", "plant/scan", (name,), ("t",)) for name in names)
    return MqttSettings("bench", broker, one)


@contextmanager
def counterpart(kind: str, tags: int, hertz: int, folder: Path) -> Iterator[int]:
    """Its port, while it runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    commands = [
        [sys.executable, "-m", "benchmarks.readers", "--serve", kind, str(port), str(tags), str(hertz)]
    ]
    if kind != "modbus":
        program = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
        if program is None:
            sys.exit("error: no mosquitto here: apt-get install mosquitto")
        file = folder / "mosquitto.conf"
        file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nlog_type none\n")
        commands.insert(0, [program, "-c", str(file)])
    processes = []
    try:
        for command in commands:
            processes.append(subprocess.Popen(command))
            _wait_for(port)
        yield port
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    sys.exit(f"error: nothing listens on port {port}")


def serve(kind: str, port: int, tags: int, hertz: int) -> None:
    """Be the device, or what publishes."""
    if kind == "modbus":
        from pyModbusTCP.server import ModbusServer

        ModbusServer("127.0.0.1", port).start()
        return
    from paho.mqtt.client import CallbackAPIVersion, Client

    client = Client(CallbackAPIVersion.VERSION2)
    client.max_queued_messages_set(0)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for number in range(10**9):
        for topic, payload in _messages(kind, tags, number):
            client.publish(topic, payload)
        time.sleep(max(0.0, 1 / hertz - time.time() % (1 / hertz)))


def _messages(kind: str, tags: int, number: int) -> Iterator[tuple[str, bytes]]:
    from reuna.adapters.mqtt.sparkplug import encode
    from reuna.core.sparkplug import Metric, Payload

    names = [f"tag-{at:04d}" for at in range(tags)]
    now = time.time()
    if kind == "mqtt":
        values = {name: round(number + at / 100, 2) for at, name in enumerate(names)}
        yield "plant/scan", json.dumps({"t": now, **values}).encode()
    elif kind == "topics":
        yield from ((f"plant/{name}", f"{number + at / 100:.2f}".encode()) for at, name in enumerate(names))
    else:
        birth, ms = number % 100 == 0, int(now * 1000)
        metrics = tuple(
            Metric(name if birth else "", at, ms, 10 if birth else 0, number + at / 100)
            for at, name in enumerate(names)
        )
        yield (
            f"spBv1.0/plant/{'NBIRTH' if birth else 'NDATA'}/bench",
            encode(Payload(ms, number % 100, metrics)),
        )


async def measure(kind: str, tags: int, hertz: int, seconds: float, port: int) -> dict[str, Any]:
    """The figures."""
    started = rss_mib()
    source = opened(settings_of(kind, tags, hertz, port), SystemClock(), ThreadOffload())
    readings = batches = bad = gaps = 0
    late: list[float] = []
    began = used = 0.0
    async with aclosing(source.batches()) as given:
        async for batch in given:
            now = time.monotonic()
            if not began and batch.readings:
                began = now
            if not began or now - began < WARM_S:
                used, readings = time.process_time(), 0
                continue
            batches += 1
            gaps += len(batch.gaps)
            for each in batch.columns.values():
                readings += len(each)
                bad += int((each.quality > 0).sum())
                late.append((time.time_ns() - int(each.times[0])) / NS * 1000)
            if now - began - WARM_S >= seconds:
                break
        computed, took = time.process_time() - used, time.monotonic() - began - WARM_S
    return {
        "core_share": round(computed / took, 4),
        "readings_per_s": round(readings / took),
        "readings_per_core_s": round(readings / computed),
        "late_ms": round(statistics.median(late), 1),
        "late_p99_ms": round(statistics.quantiles(late, n=100)[-1], 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "started_mib": round(started, 1),
        "batches": batches,
        "bad": bad,
        "gaps": gaps,
        "kind": kind,
        "tags": tags,
        "hertz": hertz,
        "seconds": seconds,
    }


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", choices=KINDS, default="modbus")
    parser.add_argument("--tags", type=at_least(1), default=200)
    parser.add_argument("--hertz", type=at_least(1), default=10)
    parser.add_argument("--seconds", type=at_least(2), default=30)
    parser.add_argument("--json", action="store_true", help="accepted for scripts; the output is JSON")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve[0], *map(int, args.serve[1:]))
        return
    with (
        tempfile.TemporaryDirectory(prefix="reuna-bench-") as folder,
        counterpart(args.kind, args.tags, args.hertz, Path(folder)) as port,
    ):
        print(json.dumps(asyncio.run(measure(args.kind, args.tags, args.hertz, args.seconds, port))))


if __name__ == "__main__":
    main()
