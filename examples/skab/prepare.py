"""Make the folders of three nodes, one per rig group, from SKAB.

    python examples/skab/prepare.py SOURCE DEST

SOURCE is the folder with skab.parquet. A run is one file. Of a group's runs in order, two go to
train, the next to validation, the next to test, and so on. The anomaly-free run is left out: it
belongs to no group.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pyarrow import parquet

GROUPS = ("valve1", "valve2", "other")
TURNS = ("train", "train", "validation", "test")


def prepare(source: Path, dest: Path) -> None:
    """Write ``dest/valve1``, ``valve2`` and ``other``."""
    table = parquet.read_table(source / "skab.parquet")
    files = np.array(table.column("file").to_pylist())
    for group in GROUPS:
        runs = sorted({file for file in files if file.startswith(f"{group}/")}, key=_number)
        for place, run in enumerate(runs):
            folder = dest / group / TURNS[place % len(TURNS)]
            folder.mkdir(parents=True, exist_ok=True)
            rows = table.take(np.flatnonzero(files == run))
            parquet.write_table(rows, folder / f"run-{_number(run):02d}.parquet")


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
