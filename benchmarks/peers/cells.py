"""What is measured, in which order and by which command; and what came of it. Pure: nothing is run here."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SYSTEMS = ("reuna", "flower", "nvflare")
WORKS = ("round", "round16", "simulate", "robust")
#: a round on a grid of 32 bits, and on one of 16
GRIDS = {"round": 32, "round16": 16}
#: who does which work; the others have no such thing, or none that can be run here
DOES = {
    "round": SYSTEMS,
    "round16": ("reuna",),
    "simulate": ("reuna", "flower"),
    "robust": ("reuna", "flower"),
}
LARGE = 10_000_000  #: values from which on a measurement takes a minute or more
CLIENTS = 1000  #: of a simulation
ROBUST_NODES = 32
ROBUST_PARAMS = 1_000_000


@dataclass(frozen=True)
class Cell:
    """One measurement: a system does a work once."""

    work: str
    who: str
    params: int
    nodes: int
    repetition: int

    def __str__(self) -> str:
        what = {
            "round": f"rounds of {self.params:,} values with {self.nodes} nodes",
            "round16": f"rounds of {self.params:,} values in 16 bits with {self.nodes} nodes",
            "simulate": f"simulation of {self.nodes} clients",
            "robust": f"robust folds of {self.nodes} x {self.params:,} values",
        }[self.work]
        return f"{self.who}: {what}"


def plan(
    works: Sequence[str], who: Sequence[str], params: Sequence[int], nodes: int, repeat: int
) -> list[Cell]:
    """Cells of the same work stand together, systems take turns, and ours is the first and the last of each.

    Rounds of large models, simulations and folds are repeated half as often.
    """
    found: list[Cell] = []
    for work in works:
        sizes = params if work in GRIDS else [ROBUST_PARAMS if work == "robust" else 0]
        for size in sizes:
            times = repeat if work in GRIDS and size < LARGE else max(1, repeat // 2)
            among = nodes if work in GRIDS else CLIENTS if work == "simulate" else ROBUST_NODES
            order = [name for name in DOES[work] if name in who]
            turns = [(name, turn) for turn in range(times) for name in order]
            if len(order) > 1 and order[0] == "reuna":
                turns.append(("reuna", times))
            found += [Cell(work, name, size, among, turn) for name, turn in turns]
    return found


def rounds_of(cell: Cell) -> int:
    """Rounds that are counted: a peer's take seconds each, ours do not."""
    if cell.who == "reuna":
        return 4 if cell.params >= LARGE else 10 if cell.params > 100_000 else 20
    return 2 if cell.params >= LARGE else 3


def words(cell: Cell, processes: int) -> list[str]:
    """Module and arguments of the command, without the interpreter."""
    size = ["--params", str(cell.params), "--nodes", str(cell.nodes)]
    match cell.work, cell.who:
        case "round", "reuna":
            idle = ["--idle"] if cell.repetition == 0 and cell.params < LARGE else []
            return ["benchmarks.round", *size, "--rounds", str(rounds_of(cell)), *idle, "--json"]
        case "round16", _:
            bits = ["--bits", str(GRIDS[cell.work])]
            return ["benchmarks.round", *size, *bits, "--rounds", str(rounds_of(cell)), "--json"]
        case "round", peer:
            return [f"benchmarks.peers.{peer}_fleet", *size, "--rounds", str(rounds_of(cell))]
        case "simulate", "reuna":
            several = ["--clients", str(cell.nodes), "--rounds", "5", "--processes", str(processes)]
            return ["benchmarks.simulate", *several, "--json"]
        case "simulate", peer:
            several = ["--clients", str(cell.nodes), "--rounds", "2", "--processes", str(processes)]
            return [f"benchmarks.peers.{peer}_simulate", *several]
        case "robust", "reuna":
            return ["benchmarks.robust", *size, "--json"]
        case _, peer:
            return [f"benchmarks.peers.{peer}_robust", *size]


def read_line(output: str) -> dict[str, Any] | None:
    """The last line that is a JSON object; None when there is none."""
    for line in reversed(output.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return None


def failure(told: Mapping[str, Any] | None, status: int | None, errors: str, limit_s: float) -> str | None:
    """Why a measurement does not count, in a few words; None when it does. ``status`` is None at the limit."""
    if status is None:
        return f"no answer within {limit_s:.0f} s"
    if status or told is None:
        last = [line for line in errors.splitlines() if line.strip()][-1:]
        return f"ended with status {status}: {last[0][-160:] if last else 'it said nothing'}"
    if told.get("right") is False:
        return "its model is not the mean of the updates"
    return None


def of(cells: Iterable[Mapping[str, Any]], work: str, who: str, params: int | None = None) -> list[Any]:
    """Finished measurements of one system and work, as they stand in a result file."""
    return [
        cell
        for cell in cells
        if cell["work"] == work and cell["who"] == who and params in (None, cell["params"])
    ]


def middle(cells: Iterable[Mapping[str, Any]], key: str) -> float | None:
    """Median of a figure over those that counted and have it; None when there is none."""
    values = [cell["told"][key] for cell in cells if cell.get("told") and cell["told"].get(key) is not None]
    return statistics.median(values) if values else None


def why_not(cells: Iterable[Mapping[str, Any]]) -> str | None:
    """The first reason for which a measurement did not count."""
    return next((str(cell["failed"]) for cell in cells if cell.get("failed")), None)


def sizes(cells: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, int]]:
    """(values, nodes) of the rounds that were measured, each once, in order."""
    yield from dict.fromkeys((cell["params"], cell["nodes"]) for cell in cells if cell["work"] in GRIDS)


def grids(cells: Iterable[Mapping[str, Any]], params: int) -> Iterator[tuple[str, str]]:
    """Which rounds of so many values were measured, and what a title says of their grid."""
    works = {cell["work"] for cell in cells if cell["params"] == params}
    for work, bits in GRIDS.items():
        if work in works:
            yield work, "" if work == "round" else f", {bits} bits"
