"""Make the folders of three nodes, one per rig group, from SKAB.

    python examples/skab/prepare.py SOURCE DEST

SOURCE is the folder with skab.parquet. A run is one file. Some runs of the group `other` overlap in
time and hold the same seconds twice; such runs stay together. Of a group's stretches of runs in
order, two go to train, the next to validation, the next to test, and so on. The anomaly-free run is
left out: it belongs to no group.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pyarrow import parquet

GROUPS = ("valve1", "valve2", "other")
TURNS = ("train", "train", "validation", "test")


def prepare(source: Path, dest: Path) -> None:
    """Write ``dest/valve1``, ``valve2`` and ``other``."""
    table = parquet.read_table(source / "skab.parquet")
    files, times = np.array(table.column("file").to_pylist()), table.column("datetime").to_numpy()
    for group in GROUPS:
        runs = sorted({file for file in files if file.startswith(f"{group}/")}, key=_number)
        spans = {run: (times[files == run].min(), times[files == run].max()) for run in runs}
        for place, stretch in enumerate(stretches(spans)):
            folder = dest / group / TURNS[place % len(TURNS)]
            folder.mkdir(parents=True, exist_ok=True)
            for run in stretch:
                rows = table.take(np.flatnonzero(files == run))
                parquet.write_table(rows, folder / f"run-{_number(run):02d}.parquet")


def stretches(spans: Mapping[str, tuple[np.datetime64, np.datetime64]]) -> list[list[str]]:
    """Runs by their first and last instant, those that overlap together; in the order given."""
    found: list[list[str]] = []
    for run, (first, last) in spans.items():
        joined = [each for each in found if any(_meet(spans[other], (first, last)) for other in each)]
        found = [each for each in found if each not in joined]
        found.append([*(other for each in joined for other in each), run])
    return found


def _meet(one: tuple[np.datetime64, np.datetime64], two: tuple[np.datetime64, np.datetime64]) -> bool:
    return bool(one[0] <= two[1] and two[0] <= one[1])


def _number(file: str) -> int:
    return int(file.rpartition("/")[2])


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", type=Path)
    parser.add_argument("dest", type=Path)
    given = parser.parse_args(argv)
    prepare(given.source, given.dest)


if __name__ == "__main__":
    main()
