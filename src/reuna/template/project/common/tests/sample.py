"""Sample data: `python tests/sample.py` writes them into data/, the same ones each time.

Made of sines and noise, not of a real pump. Replace them by recordings of your own machines.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from recordings import COLUMNS, DIGITS, PUMPS, recordings

SPLITS = ("train", "validation", "test")


def write(folder: Path) -> None:
    """A sub-folder of CSV files for each pump."""
    for pump in range(PUMPS):
        for split in SPLITS:
            place = folder / f"pump-{pump + 1}" / split
            place.mkdir(parents=True, exist_ok=True)
            for name, rows in recordings(pump, split):
                _write(place / f"{name}.csv", rows)


def _write(path: Path, rows: np.ndarray) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([f"{v:.{d}f}" for v, d in zip(row, DIGITS, strict=True)] for row in rows)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "data")
