"""Make the folders of three nodes, one per product type, from the AI4I 2020 table.

    python examples/ai4i/prepare.py SOURCE DEST

SOURCE is the folder with ai4i2020.parquet. Rows are drawn into train, validation and test
(50, 20, 30 %) with a fixed seed, failures and other rows apart, so that each split has both.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

TYPES = ("L", "M", "H")
SHARES = {"train": 0.5, "validation": 0.2, "test": 0.3}
SEED = 1


def prepare(source: Path, dest: Path) -> None:
    """Write ``dest/type-l``, ``type-m`` and ``type-h``."""
    table = parquet.read_table(source / "ai4i2020.parquet")
    kinds = np.array(table.column("Type").to_pylist())
    failed = table.column("Machine failure").to_numpy()
    rng = np.random.default_rng(SEED)
    for kind in TYPES:
        parts = [deal(np.flatnonzero((kinds == kind) & (failed == each)), rng) for each in (0, 1)]
        for split in SHARES:
            rows = np.sort(np.concatenate([part[split] for part in parts]))
            write(table.take(rows), dest / f"type-{kind.lower()}" / split / "rows.parquet")


def deal(rows: NDArray[np.int64], rng: np.random.Generator) -> dict[str, NDArray[np.int64]]:
    """The rows in random order, cut by the shares."""
    ends = np.cumsum([round(share * len(rows)) for share in SHARES.values()])[:-1]
    return dict(zip(SHARES, np.split(rng.permutation(rows), ends), strict=True))


def write(table: pa.Table, path: Path) -> None:
    """One Parquet file, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", type=Path)
    parser.add_argument("dest", type=Path)
    given = parser.parse_args(argv)
    prepare(given.source, given.dest)


if __name__ == "__main__":
    main()
