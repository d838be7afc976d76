"""Ours, the physical limit, Flower and NVFlare on the same work, in turns; a table of how they compare.

    make bench                                             # their environments, then this
    python -m benchmarks.peers --work round --params 10000 --nodes 8 --repeat 2
    python -m benchmarks.peers --quick                     # ours and the limit, under three minutes

A peer takes part when its environment is there (`.venv-flower`, `.venv-nvflare`, made by make from the
locked versions beside this file). Each measurement is a process of its own with a time limit: one that
hangs is reported and ended with everything it started, and the next one goes on. Results go to
``--out`` as JSON, and as a table in Markdown beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.arguments import at_least
from benchmarks.peers import cells, looking, machine
from benchmarks.peers.cells import Cell
from benchmarks.peers.running import run, say
from benchmarks.peers.table import markdown, seconds

ROOT = Path(__file__).parents[2]
OUT = Path("runs/bench/peers.json")
PACKAGES = {"reuna": "reuna", "flower": "flwr", "nvflare": "nvflare"}
LARGEST = 200_000_000


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """What was asked for; a mistake ends with one line that says what is allowed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="ours and the limit only, few rounds, no file")
    parser.add_argument("--only", nargs="+", choices=cells.SYSTEMS, help="systems; default all that are here")
    parser.add_argument("--work", nargs="+", choices=cells.WORKS, default=list(cells.WORKS))
    parser.add_argument("--params", nargs="+", type=at_least(1), default=[10_000, 1_000_000, 25_000_000])
    parser.add_argument("--nodes", type=at_least(1), default=8)
    parser.add_argument(
        "--repeat",
        type=at_least(1),
        default=2,
        help="turns of rounds; of large models and of the other works half as many",
    )
    parser.add_argument("--limit", type=at_least(1), default=240, help="seconds of one measurement")
    parser.add_argument("--within", type=at_least(1), default=900, help="seconds after which none is begun")
    parser.add_argument("--out", type=Path, default=OUT, help="result file; a table goes beside it")
    parser.add_argument("--json", action="store_true", help="print the result, not the table")
    args = parser.parse_args(given)
    if max(args.params) > LARGEST:
        parser.error(f"argument --params: {max(args.params)} is more than {LARGEST}")
    if args.quick:
        args.only, args.repeat = ["reuna"], 1
        args.params = [size for size in args.params if size < cells.LARGE] or args.params
    return args


def python_of(who: str) -> Path:
    """The interpreter of a system's environment."""
    return Path(sys.executable) if who == "reuna" else ROOT / f".venv-{who}" / "bin" / "python"


def found(wanted: list[str] | None) -> dict[str, str]:
    """System -> version of those that are here; who is not is named."""
    versions = {}
    for who in wanted or cells.SYSTEMS:
        version = machine.version(python_of(who), PACKAGES[who])
        if version is None:
            say(f"no {who} here (make .venv-{who}/stamp makes its environment): without it")
        else:
            versions[who] = version
    return versions


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run everything; the result."""
    looking.end_when_told()
    versions = found(args.only)
    todo = cells.plan(args.work, list(versions), args.params, args.nodes, args.repeat)
    result: dict[str, Any] = {
        **machine.run_of("benchmarks.peers"),
        "machine": machine.described(),
        "versions": {**versions, "Python": machine.described()["python"]},
        "cells": [],
    }
    began = time.monotonic()
    for place, cell in enumerate(todo):
        say(f"[{place + 1}/{len(todo)}] {cell}")
        late = time.monotonic() - began > args.within
        done = skipped(cell, args.within) if late else one(cell, args.limit)
        result["cells"].append(done)
        say(f"        {shown(done)}")
        if not args.quick:
            keep(result, args.out)  # what was measured stays, whatever happens to the next
    return result


def skipped(cell: Cell, within: float) -> dict[str, Any]:
    """A cell that was not begun."""
    reason = f"not begun within {within:.0f} s"
    return {**described(cell), "load": os.getloadavg()[0], "took_s": 0.0, "failed": reason, "told": None}


def one(cell: Cell, limit_s: float) -> dict[str, Any]:
    """Measure a cell."""
    words = cells.words(cell, os.cpu_count() or 1)
    load = os.getloadavg()[0]
    outcome = run([str(python_of(cell.who)), "-m", *words], limit_s)
    told = cells.read_line(outcome.output)
    failed = cells.failure(told, outcome.status, outcome.errors, limit_s)
    if told is not None:
        told["processes_seen"] = outcome.processes
    return {
        **described(cell),
        "command": "python -m " + " ".join(words),
        "load": round(load, 2),
        "took_s": round(outcome.seconds, 1),
        "failed": failed,
        "told": None if failed else told,
    }


def described(cell: Cell) -> dict[str, Any]:
    """Its fields."""
    return dataclasses.asdict(cell)


def shown(done: dict[str, Any]) -> str:
    """A measurement in a line."""
    told = done["told"] or {}
    if done["failed"]:
        what = str(done["failed"])
    elif "clients_per_s" in told:
        what = f"{told['clients_per_s']:,.0f} clients a second"
    else:
        what = " · ".join(f"{key} {seconds(told[key])}" for key in ("median_s", "limit_s") if key in told)
    return f"{what} (took {done['took_s']:.0f} s)"


def keep(result: dict[str, Any], out: Path) -> None:
    """Write the result and its table."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(markdown(result), encoding="utf-8")


def main() -> int:
    """Measure; print the table. Status 1 when something of ours has no figure."""
    args = arguments()
    try:
        result = measure(args)
    finally:
        looking.end_below(os.getpid())
    print(json.dumps(result) if args.json else markdown(result), flush=True)
    if not args.quick:
        say(f"written to {args.out} and {args.out.with_suffix('.md')}")
    return int(any(cell["who"] == "reuna" and cell["failed"] for cell in result["cells"]))


if __name__ == "__main__":
    sys.exit(main())
