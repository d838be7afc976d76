"""What it costs an edge to keep its readings: 200 tags at 10 Hz, scan by scan, one append a second.

    python -m benchmarks.store --tags 200 --hertz 10 --seconds 600 --json

A scan is a batch with one reading of each tag, as a source that polls gives it; the scans of a second are joined
and appended as `reuna source record` does. Values wander, rounded to 2 decimals. The seconds are those of the
data: it runs as fast as it can, and ``core_share`` is the computing for each second of data. Making
the values is not counted. Then windows are read: the last 60 s of 20 tags.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arguments import at_least
from reuna.adapters.local_store import LocalStore
from reuna.core.source_settings import StoreSettings
from reuna.core.sources import NS, Batch, Tag, column, joined

BEGAN_NS = 1_800_000_000 * NS
WINDOW_S, WINDOW_TAGS, WINDOWS = 60, 20, 30


def scans(values: np.ndarray, names: list[str], start_ns: int) -> list[Batch]:
    """Batches of one second; ``values`` is (scans, tags)."""
    made = []
    for place, row in enumerate(values):
        moment = np.array([start_ns + place * NS // len(values)], np.int64)
        made.append(
            Batch({name: column(moment, row[at : at + 1]) for at, name in enumerate(names)}, start_ns)
        )
    return made


def measure(tags: int, hertz: int, seconds: int, mib: int, folder: Path) -> dict[str, Any]:
    """The figures."""
    before = rss_mib()
    store = LocalStore(StoreSettings(str(folder), 30.0, mib))
    known = [Tag(f"tag-{number:04d}", "bar") for number in range(tags)]
    names = [tag.name for tag in known]
    rng = np.random.default_rng(0)
    level = rng.uniform(0, 500, tags)
    joins, appends, computed = [], [], 0.0
    for second in range(seconds):
        values = np.round(level + np.cumsum(rng.normal(0, 0.1, (hertz, tags)), axis=0), 2)
        level = values[-1]
        batches = scans(values, names, BEGAN_NS + second * NS)
        used, began = time.process_time(), time.perf_counter()
        batch = joined(batches)
        joins.append(time.perf_counter() - began)
        store.append("bench", known, batch, BEGAN_NS + second * NS)
        appends.append(time.perf_counter() - began - joins[-1])
        computed += time.process_time() - used
    queries = []
    for number in range(WINDOWS):
        end = BEGAN_NS + seconds * NS
        began = time.perf_counter()
        store.stored.window("bench", names[number % 7 :][:WINDOW_TAGS], end - WINDOW_S * NS, end)
        queries.append(time.perf_counter() - began)
    state = store.stored.state()
    found = {
        "core_share": round(computed / seconds, 4),
        "readings_per_core_s": round(state.kept / computed),
        "join_ms": round(1000 * statistics.median(joins), 2),
        "append_ms": round(1000 * statistics.median(appends), 2),
        "append_p99_ms": round(1000 * statistics.quantiles(appends, n=100)[-1], 2),
        "window_ms": round(1000 * statistics.median(queries), 2),
        "bytes_per_reading": round(state.size / state.readings, 2),
        "store_mib": round(sum(path.stat().st_size for path in folder.iterdir()) / 2**20, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "started_mib": round(before, 1),
        "forgotten": state.forgotten_by_size,
        "tags": tags,
        "hertz": hertz,
        "seconds": seconds,
    }
    store.close()
    return found


def rss_mib() -> float:
    """What this process has in memory now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tags", type=at_least(1), default=200)
    parser.add_argument("--hertz", type=at_least(1), default=10)
    parser.add_argument("--seconds", type=at_least(2), default=600)
    parser.add_argument("--mib", type=at_least(16), default=1024, help="bound of the store")
    parser.add_argument("--json", action="store_true", help="accepted for scripts; the output is JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reuna-bench-") as folder:
        print(json.dumps(measure(args.tags, args.hertz, args.seconds, args.mib, Path(folder))))


if __name__ == "__main__":
    main()
