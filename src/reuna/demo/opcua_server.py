"""The demo's plants as an OPC UA server: what they recorded, as if it were measured now.

    python -m reuna.demo.opcua_server --speed 180 --run train/normal-1 --run test/fault-01-0
    python -m reuna.demo.opcua_server --port 4840 --speed 600 --mix 1 --now now.json --truth truth

Each plant has its 53 signals with their units. A row of a recording stands for 3 minutes; ``--speed 180``
gives one a second. The recordings named by ``--run`` are played one after the other, then again. ``--mix
SEED`` plays 2 hours of a test recording at a time instead, a quarter of them with a fault that the plant has
seen in training; which, the seed says. ``--now FILE`` says in which operating mode each plant is, before
each row; the plants stand still until it is there. ``--truth FOLDER`` is told what was true when. ``--sources
FILE`` writes the settings with which `reuna source` reads the plants. The server has no security and listens
on this machine alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from reuna.adapters.files import replace_file
from reuna.demo.plants import FOLDERS, MINUTES, PLANTS, Archive, PlantData, Signal, load_plant, read_archive

HOST = "127.0.0.1"
NAMESPACE = "urn:reuna:demo:plants"
RUN = "train/normal-1"
SPLIT = 0
STRETCH = 40  #: rows of `--mix` that are of one recording: 2 hours
FAULTY = 0.25  #: share of them with a fault
SETTLED = 5  #: rows after its onset from which on a fault is played
STANDS_S = 0.1  #: between two looks whether plants that stand still begin
BUSY = 3  #: exit status when something else has the port


class Now(msgspec.Struct, frozen=True):
    """What ``--now`` holds: plant -> the plant whose operating mode it is in, and the split of its data."""

    modes: tuple[int, ...] = tuple(range(PLANTS))
    split: int = SPLIT


def write_now(file: Path, now: Now) -> None:
    """From the next row on the plants are so."""
    replace_file(file, msgspec.json.encode(now), 0o644)


@dataclass(frozen=True)
class Row:
    """One row: (signals,) float32, the fault that is there (0: none), and the number of its stretch."""

    values: NDArray[np.float32]
    fault: int = 0
    stretch: int = 0


@dataclass(frozen=True)
class Played:
    """What a plant plays: (rows, signals) float32 in the signals' units, a row every 3 minutes."""

    plant: int
    rows: NDArray[np.float32]

    def feed(self) -> Iterator[Row]:
        """Row after row; after the last comes the first."""
        while True:
            yield from map(Row, self.rows)


@dataclass(frozen=True)
class Mixed:
    """What a plant plays with ``--mix``."""

    plant: int
    archive: Archive
    seed: int
    now: Path | None

    def feed(self) -> Iterator[Row]:
        """Row after row, for ever; a stretch ends when the plant is not as it was."""
        rng, number = default_rng([self.seed, self.plant]), 0
        while True:
            now = self._look()
            data = load_plant(now.modes[self.plant], now.split, self.archive)
            values, fault = stretch(data, rng)
            for row in values:
                if self._look() != now:
                    break
                yield Row(row, fault, number)
            number += 1

    def _look(self) -> Now:
        if self.now is None or not self.now.is_file():
            return Now()
        return msgspec.json.decode(self.now.read_bytes(), type=Now)


def stretch(data: PlantData, rng: Generator) -> tuple[NDArray[np.float32], int]:
    """(`STRETCH`, signals) rows of one test recording, all normal or all with one fault, and which."""
    faults = [run for run in data.test if run.fault in data.faults]
    normal = [run for run in data.test if not run.fault]
    fits = [run for run in faults if np.count_nonzero(run.labels) >= STRETCH + SETTLED]
    chosen = fits if fits and rng.random() < FAULTY else normal
    run = chosen[int(rng.integers(len(chosen)))]
    first = int(np.flatnonzero(run.labels)[0]) + SETTLED if run.fault else 0
    at = int(rng.integers(first, len(run.values) - STRETCH + 1))
    return run.values[at : at + STRETCH], run.fault


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


def due(elapsed_s: float, speed: float) -> int:
    """The number of the row that is on, that many seconds after the begin.

    >>> due(0.0, 180), due(0.9, 180), due(1.0, 180), due(5.0, 180)
    (0, 0, 1, 5)
    """
    return int(elapsed_s * speed / (60 * MINUTES) + 1e-6)


def sources_toml(url: str, plant: int, signals: Sequence[Signal], speed: float) -> str:
    """Settings of a source that reads a plant which runs so many times faster than life."""
    every_s = max(0.01, 60 * MINUTES / speed / 2)
    lines = [
        f"[sources.plant-{plant}]",
        'kind = "opcua"',
        f"url = {json.dumps(url)}",
        'security = "none"',
        f"every_s = {every_s}",
        f"publish_s = {max(0.02, min(0.5, every_s))}",
        "restamped = true",  # a plant's analysers say the same for minutes, and each row has all signals
        "silence_s = 60",
        f"speed = {speed}",
        "",
        f"[sources.plant-{plant}.tags]",
    ]
    for each in signals:
        node = json.dumps(f"nsu={NAMESPACE};s={node_name(plant, each.name)}")
        lines.append(f"{json.dumps(each.name)} = {{ node = {node}, unit = {json.dumps(each.unit)} }}")
    return "\n".join([*lines, ""])


async def serve(
    port: int,
    speed: float,
    signals: Sequence[Signal],
    plants: Sequence[Played | Mixed],
    now: Path | None = None,
    truth: Path | None = None,
) -> None:
    """Until it is cancelled. It says on its output when it listens. Raises `OSError` when it cannot.

    Each row has the time at which it was due, also when the machine is slow and it comes late.
    """
    from asyncua import Server, ua

    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://{HOST}:{port}")
    server.set_server_name("Reuna demo plants")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace(NAMESPACE)
    feeds = [each.feed() for each in plants]
    nodes = [
        await _plant(server, index, each.plant, next(feed).values, signals)
        for each, feed in zip(plants, feeds, strict=True)
    ]
    async with server:
        print(f"serving opc.tcp://{HOST}:{port}", flush=True)
        while now is not None and not now.is_file():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(STANDS_S)
        began, began_at, shown = time.monotonic(), time.time(), 0
        step_s = 60 * MINUTES / speed
        while True:
            await asyncio.sleep(max(0.0, began + (shown + 1) * step_s - time.monotonic()))
            while shown < due(time.monotonic() - began, speed):
                shown += 1
                at = began_at + shown * step_s
                rows = [next(feed) for feed in feeds]
                for each, row in zip(nodes, rows, strict=True):
                    await _show(server, each, row.values, datetime.fromtimestamp(at, UTC))
                if truth is not None:
                    _tell(truth, plants, rows, at)
                await asyncio.sleep(0)  # who listens is answered, also while late rows are caught up with


def _tell(truth: Path, plants: Sequence[Played | Mixed], rows: Sequence[Row], at: float) -> None:
    """A line for each plant: when (ns since the epoch), number of the stretch, fault."""
    for plant, row in zip(plants, rows, strict=True):
        with (truth / f"plant-{plant.plant}.csv").open("a", encoding="utf-8") as file:
            file.write(f"{round(at * 1e9)},{row.stretch},{row.fault}\n")


async def _plant(
    server: Any, index: int, plant: int, first: NDArray[np.float32], signals: Sequence[Signal]
) -> list[Any]:
    """The nodes of a plant's signals, with their first values."""
    from asyncua import ua

    name = f"plant-{plant}"
    folder = await server.nodes.objects.add_object(ua.NodeId(name, index), name)
    nodes = []
    for each, value in zip(signals, first.tolist(), strict=True):
        node = ua.NodeId(node_name(plant, each.name), index)
        made = await folder.add_variable(node, each.name, value, ua.VariantType.Float)
        unit = ua.EUInformation(
            DisplayName=ua.LocalizedText(each.unit), Description=ua.LocalizedText(each.tag)
        )
        await made.add_property(
            ua.NodeId(f"{node_name(plant, each.name)}.unit", index), "0:EngineeringUnits", unit
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
    parser.add_argument("--mix", type=int, metavar="SEED", help="play 2 hours of one after the other instead")
    parser.add_argument("--now", type=Path, help="with --mix: file that says how the plants are now")
    parser.add_argument("--truth", type=Path, help="folder that is told what was true when")
    parser.add_argument("--sources", type=Path, help="write settings that read the plants to this file")
    args = parser.parse_args(words)
    if not 0 < args.port < 1 << 16 or not 0 < args.speed <= 36_000:
        parser.error("--port is between 1 and 65535, --speed between 0 and 36000")
    chosen: Sequence[int] = args.plant or range(PLANTS)
    plants: Sequence[Played | Mixed]
    try:
        signals, plants = played(chosen, args.run or [RUN])
    except ValueError as error:
        parser.error(str(error))
    if args.mix is not None:
        archive = read_archive()
        plants = [Mixed(plant, archive, args.mix, args.now) for plant in chosen]
    if args.sources:
        url = f"opc.tcp://{HOST}:{args.port}"
        args.sources.write_text(
            "\n".join(sources_toml(url, each.plant, signals, args.speed) for each in plants), encoding="utf-8"
        )
    if args.truth:
        args.truth.mkdir(parents=True, exist_ok=True)
    try:
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # that it has no security is known
        with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
            asyncio.run(_until_told(serve(args.port, args.speed, signals, plants, args.now, args.truth)))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        print(
            f"error: something else listens on port {args.port} of {HOST}; give another --port",
            file=sys.stderr,
        )
        raise SystemExit(BUSY) from None


async def _until_told(work: Any) -> None:
    # The library takes seconds to close; there is nothing to be saved.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    await work


if __name__ == "__main__":
    main(sys.argv[1:])
