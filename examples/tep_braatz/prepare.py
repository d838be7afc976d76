"""Make the folders of three plants that have seen different faults, from Braatz's Tennessee Eastman runs.

    python examples/tep_braatz/prepare.py SOURCE DEST

SOURCE is the folder with tep.parquet. The 18 faults that can be told from normal operation are
dealt to the plants in turn, six each; every plant has the normal run. The last fifth of each
training run is validation. Every plant is tested on all the test runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

FAULTS = (1, 2, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21)
NORMAL = 0
PLANTS = 3
TRAIN = 0.8  # of a training run; the rest is validation


def prepare(source: Path, dest: Path) -> None:
    """Write ``dest/plant-1`` to ``plant-3``."""
    table = parquet.read_table(source / "tep.parquet")
    runs = table.column("fault_run").to_numpy()
    splits = np.array(table.column("split").to_pylist())
    for plant in range(PLANTS):
        folder = dest / f"plant-{plant + 1}"
        for fault in (NORMAL, *FAULTS[plant::PLANTS]):
            rows = table.take(np.flatnonzero((runs == fault) & (splits == "train")))
            cut = round(TRAIN * len(rows))
            write(rows.slice(0, cut), folder / "train", fault)
            write(rows.slice(cut), folder / "validation", fault)
        for fault in (NORMAL, *FAULTS):
            write(table.take(np.flatnonzero((runs == fault) & (splits == "test"))), folder / "test", fault)


def write(rows: pa.Table, folder: Path, fault: int) -> None:
    """One run as a file, its folder made."""
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(rows, folder / f"fault-{fault:02d}.parquet")


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", type=Path)
    parser.add_argument("dest", type=Path)
    given = parser.parse_args(argv)
    prepare(given.source, given.dest)


if __name__ == "__main__":
    main()
