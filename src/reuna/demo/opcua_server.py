"""The demo's plants as an OPC UA server: what they recorded, as if it were measured now.

    python -m reuna.demo.opcua_server --port 4840 --speed 180 --run train/normal-1 --run test/fault-01-0

Each plant has its 53 signals with their units. A row of a recording stands for 3 minutes; ``--speed 180``
gives one a second. The recordings named by ``--run`` are played one after the other, then again. ``--sources
FILE`` writes the settings with which `reuna source` reads the plants. It has no security and listens on this
machine alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reuna.demo.plants import FOLDERS, MINUTES, PLANTS, Signal, load_plant, read_archive

HOST = "127.0.0.1"
NAMESPACE = "urn:reuna:demo:plants"
RUN = "train/normal-1"
SPLIT = 0


@dataclass(frozen=True)
class Played:
    """What a plant plays: (rows, signals) float32 in the signals' units, a row every 3 minutes."""

    plant: int
    rows: NDArray[np.float32]


def node_name(plant: int, signal_name: str) -> str:
    """What a signal of a plant is called in the namespace."""
    return f"plant-{plant}.{signal_name}"


def played(plants: Sequence[int], runs: Sequence[str]) -> tuple[tuple[Signal, ...], list[Played]]:
    """The signals, and the rows of each plant. Raises `ValueError` for a run that a plant does not have."""
    archive = read_archive()
    found = []
    for plant in plants:
        data = load_plant(plant, SPLIT, archive)
        known = {f"{part}/{run.name}": run.values for part in FOLDERS for run in getattr(data, part)}
        missing = [run for run in runs if run not in known]
        if missing:
            raise ValueError(f"plant {plant} has no run {missing[0]}; it has {', '.join(known)}")
        found.append(Played(plant, np.concatenate([known[run] for run in runs])))
    return archive.signals, found


def due(elapsed_s: float, speed: float, rows: int) -> int:
    """Which row is on, that many seconds after the begin; after the last comes the first.

    >>> due(0.0, 180, 5), due(0.9, 180, 5), due(1.0, 180, 5), due(5.0, 180, 5)
    (0, 0, 1, 0)
    """
    return int(elapsed_s * speed / (60 * MINUTES)) % rows


def sources_toml(url: str, plant: int, signals: Sequence[Signal], every_s: float) -> str:
    """Settings of a source that reads a plant."""
    lines = [
        f"[sources.plant-{plant}]",
        'kind = "opcua"',
        f"url = {json.dumps(url)}",
        'security = "none"',
        f"every_s = {every_s}",
        "",
        f"[sources.plant-{plant}.tags]",
    ]
    for each in signals:
        node = json.dumps(f"nsu={NAMESPACE};s={node_name(plant, each.name)}")
        lines.append(f"{json.dumps(each.name)} = {{ node = {node}, unit = {json.dumps(each.unit)} }}")
    return "\n".join([*lines, ""])


async def serve(port: int, speed: float, signals: Sequence[Signal], plants: Sequence[Played]) -> None:
    """Until it is cancelled. It says on its output when it listens."""
    from asyncua import Server, ua

    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://{HOST}:{port}")
    server.set_server_name("Reuna demo plants")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace(NAMESPACE)
    nodes = [await _plant(server, index, each, signals) for each in plants]
    async with server:
        print(f"serving opc.tcp://{HOST}:{port}", flush=True)
        began, shown = time.monotonic(), [0] * len(plants)
        while True:
            elapsed = time.monotonic() - began
            step_s = 60 * MINUTES / speed
            await asyncio.sleep(step_s - elapsed % step_s)
            now = datetime.now(UTC)
            for place, each in enumerate(plants):
                row = due(time.monotonic() - began + step_s / 1000, speed, len(each.rows))
                if row != shown[place]:
                    shown[place] = row
                    await _show(server, nodes[place], each.rows[row], now)


async def _plant(server: Any, index: int, plant: Played, signals: Sequence[Signal]) -> list[Any]:
    """The nodes of a plant's signals, with their first values."""
    from asyncua import ua

    name = f"plant-{plant.plant}"
    folder = await server.nodes.objects.add_object(ua.NodeId(name, index), name)
    nodes = []
    for each, value in zip(signals, plant.rows[0].tolist(), strict=True):
        node = ua.NodeId(node_name(plant.plant, each.name), index)
        made = await folder.add_variable(node, each.name, value, ua.VariantType.Float)
        unit = ua.EUInformation(
            DisplayName=ua.LocalizedText(each.unit), Description=ua.LocalizedText(each.tag)
        )
        await made.add_property(
            ua.NodeId(f"{node_name(plant.plant, each.name)}.unit", index), "0:EngineeringUnits", unit
        )
        nodes.append(made.nodeid)
    return nodes


async def _show(server: Any, nodes: Sequence[Any], row: NDArray[np.float32], now: datetime) -> None:
    from asyncua import ua

    for node, value in zip(nodes, row.tolist(), strict=True):
        variant = ua.Variant(value, ua.VariantType.Float)
        await server.write_attribute_value(node, ua.DataValue(variant, SourceTimestamp=now))


def main(words: Sequence[str] | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=4840)
    parser.add_argument("--speed", type=float, default=180.0, help="how many times faster than the plants")
    parser.add_argument("--plant", type=int, action="append", choices=range(PLANTS), help="default: all")
    parser.add_argument("--run", action="append", help=f"recording to play, default {RUN}")
    parser.add_argument("--sources", type=Path, help="write settings that read the plants to this file")
    args = parser.parse_args(words)
    if not 0 < args.port < 1 << 16 or not 0 < args.speed <= 36_000:
        parser.error("--port is between 1 and 65535, --speed between 0 and 36000")
    try:
        signals, plants = played(args.plant or range(PLANTS), args.run or [RUN])
    except ValueError as error:
        parser.error(str(error))
    if args.sources:
        every_s = max(0.01, 60 * MINUTES / args.speed / 2)
        url = f"opc.tcp://{HOST}:{args.port}"
        args.sources.write_text(
            "\n".join(sources_toml(url, each.plant, signals, every_s) for each in plants), encoding="utf-8"
        )
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(_until_told(serve(args.port, args.speed, signals, plants)))


async def _until_told(work: Any) -> None:
    # The library takes seconds to close; there is nothing to be saved.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    await work


if __name__ == "__main__":
    main(sys.argv[1:])
