"""Folding the updates of a round robustly: seconds and memory of each fold.

    python -m benchmarks.robust --params 1000000 --nodes 32 --json

Median and trimmed mean are of single precision numbers and compared bit by bit with their plain
definitions; the others are of integers of the grid. ``limit_s`` is reading all updates once, in the same
run. Numpy runs with one thread, as it does in a fleet. The best of ``--times`` tries, by the clock and (``cpu``)
computed; memory in MiB, at most, beside the updates, with the result.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from reuna.adapters.processes import ONE_THREAD

os.environ.update(ONE_THREAD)

import numpy as np  # after the threads are settled
from numpy.typing import NDArray

from benchmarks.arguments import at_least
from reuna.core.records import Grid
from reuna.learn.order import median, trimmed_mean
from reuna.learn.robust import FOLDS

GRID = Grid(32, -24)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", type=at_least(1), default=1_000_000)
    parser.add_argument("--nodes", type=at_least(5), default=32)
    parser.add_argument("--times", type=at_least(1), default=5)
    parser.add_argument("--json", action="store_true", help="accepted for scripts; the output is JSON")
    return parser.parse_args(words)


def plain_trimmed_mean(rows: NDArray[np.float32], trim: int) -> NDArray[np.float64]:
    """The definition of `trimmed_mean`."""
    kept = np.sort(rows + np.float32(0), axis=0)[trim : len(rows) - trim]
    total = kept[0].astype(np.float64)
    for row in kept[1:]:
        total += row
    return total / len(kept)


def seconds(work: Callable[[], Any], times: int) -> tuple[float, float]:
    """The best of so many tries: by the clock, and computed."""
    walls, computed = [], []
    for _ in range(times):
        began, before = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - began)
        computed.append(time.process_time() - before)
    return round(min(walls), 4), round(min(computed), 4)


def timed(name: str, work: Callable[[], Any], times: int) -> dict[str, float]:
    """Two keys of the line."""
    wall, computed = seconds(work, times)
    return {f"{name}_s": wall, f"{name}_cpu_s": computed}


def memory(work: Callable[[], Any]) -> float:
    """The most that was taken on the way, MiB."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return round(peak / 2**20, 1)


def steps(name: str, rows: NDArray[np.int32]) -> Callable[[], int]:
    """Everything that a round does with the updates, block by block."""
    fold = FOLDS[name]

    def work() -> int:
        blocks = fold.steps(
            lambda start, count: rows[:, start : start + count],
            len(rows),
            rows.shape[1],
            GRID,
            fold.settings,
            lambda _start, count: np.zeros(count, np.float32),
        )
        return sum(map(len, blocks))

    return work


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The figures."""
    trim = (args.nodes - 1) // 8
    rows = np.random.default_rng(1).normal(size=(args.nodes, args.params)).astype(np.float32)
    found: dict[str, Any] = {"params": args.params, "nodes": args.nodes, "trim": trim}
    plain_median = np.median(rows + np.float32(0), axis=0)
    found["same_bits"] = (
        median(rows).tobytes() == plain_median.tobytes()
        and trimmed_mean(rows, trim).tobytes() == plain_trimmed_mean(rows, trim).tobytes()
    )
    found |= timed("limit", rows.sum, args.times)
    found |= timed("numpy_median", lambda: np.median(rows, axis=0), 1)
    for name, work in (("median", lambda: median(rows)), ("trimmed_mean", lambda: trimmed_mean(rows, trim))):
        found |= timed(name, work, args.times) | {f"{name}_mib": memory(work)}
    on_grid = np.rint(rows * 2.0**10).astype(np.int32)  # updates of size 2^-14, as late in training
    for name in ("krum", "multi-krum", "geometric-median", "centred-clipping"):
        key = name.replace("-", "_")
        found |= timed(key, steps(name, on_grid), args.times) | {f"{key}_mib": memory(steps(name, on_grid))}
    return found


def main() -> None:
    """Measure and print one JSON line."""
    print(json.dumps(measure(arguments())))


if __name__ == "__main__":
    main()
