"""Make the folders of the nodes, one per group of engines, from C-MAPSS.

    python examples/cmapss/prepare.py SOURCE DEST --set FD001 --nodes 4

SOURCE is the folder with train_FD001.parquet, test_FD001.parquet and rul_FD001.csv (the same for
FD002). Engines are dealt to the nodes in turn; of a node's training engines one in six goes to
validation. The column ``rul`` is the remaining life in cycles, not capped; the detector caps it.
With ``--set both`` there are two sites, DEST/fd001 and DEST/fd002, with such nodes in each.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

SETS = ("FD001", "FD002")
IN_SIX = 6


def prepare(source: Path, dest: Path, name: str = "FD001", nodes: int = 4) -> None:
    """Write the nodes of one set, or of both, a site each."""
    if name != "both":
        write_set(source, dest, name, nodes)
        return
    for each in SETS:
        write_set(source, dest / each.lower(), each, nodes)


def write_set(source: Path, dest: Path, name: str, nodes: int) -> None:
    """Write ``nodes`` folders for the set ``name``."""
    train = with_life(parquet.read_table(source / f"train_{name}.parquet"), {})
    test = with_life(parquet.read_table(source / f"test_{name}.parquet"), read_life(source, name))
    units, tested = train.column("unit").to_numpy(), test.column("unit").to_numpy()
    for node in range(nodes):
        folder = dest / f"{name.lower()}-{node + 1}"
        engines = np.unique(units)[node::nodes]
        held_out = engines[::IN_SIX]
        write(train, np.isin(units, np.setdiff1d(engines, held_out)), folder / "train")
        write(train, np.isin(units, held_out), folder / "validation")
        write(test, np.isin(tested, np.unique(tested)[node::nodes]), folder / "test")


def read_life(source: Path, name: str) -> dict[int, int]:
    """Remaining life of each test engine at its last cycle."""
    with (source / f"rul_{name}.csv").open(newline="", encoding="utf-8") as file:
        return {int(row["unit"]): int(row["rul"]) for row in csv.DictReader(file)}


def with_life(table: pa.Table, at_end: dict[int, int]) -> pa.Table:
    """The table with a column ``rul``: cycles to the engine's last, and what is left after that."""
    unit, cycle = table.column("unit").to_numpy(), table.column("cycle").to_numpy()
    life = np.zeros(len(unit), np.int32)
    for engine in np.unique(unit):
        rows = unit == engine
        life[rows] = cycle[rows].max() - cycle[rows] + at_end.get(int(engine), 0)
    return table.append_column("rul", pa.array(life))


def write(table: pa.Table, rows: NDArray[np.bool_], folder: Path) -> None:
    """The rows as one Parquet file, its folder made."""
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table.filter(pa.array(rows)), folder / "engines.parquet")


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", type=Path)
    parser.add_argument("dest", type=Path)
    parser.add_argument("--set", choices=[*SETS, "both"], default="FD001")
    parser.add_argument("--nodes", type=int, default=4)
    given = parser.parse_args(argv)
    prepare(given.source, given.dest, given.set, given.nodes)


if __name__ == "__main__":
    main()
