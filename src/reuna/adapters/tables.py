"""Tables of a node's folder: CSV with the standard library, Parquet with pyarrow.

    FOLDER/train/*.csv|*.parquet   FOLDER/validation/…   FOLDER/test/…
    FOLDER/*.csv|*.parquet         without splits: everything under the split "all"
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import DataError, ExtraMissing

SPLITS = ("train", "validation", "test")
KINDS = (".csv", ".parquet")
Column = NDArray[Any]


@dataclass(frozen=True)
class Table:
    """Columns by name, all of one length: numbers as float64, anything else as text."""

    path: Path
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def matrix(self, names: Sequence[str]) -> NDArray[np.float32]:
        """(rows, names) float32. Raises `DataError` for a missing or textual column."""
        require(self, names)
        textual = [name for name in names if self.columns[name].dtype.kind not in "fiub"]
        if textual:
            raise DataError(f"{self.path}: column {textual[0]!r} holds text where numbers are needed")
        return np.stack([self.columns[name].astype(np.float32) for name in names], axis=1)


def require(table: Table, names: Iterable[str]) -> None:
    """Raises `DataError` that names missing columns, the likely meant, and those present."""
    missing = [name for name in names if name not in table.columns]
    if not missing:
        return
    close = difflib.get_close_matches(missing[0], table.columns, n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    present = ", ".join(sorted(table.columns)[:12])
    raise DataError(f"{table.path} has no column {', '.join(missing[:5])}{meant}; it has {present}")


def read_folder(folder: Path) -> dict[str, list[Table]]:
    """Tables by split, in the order of their names. Raises `DataError` for an empty folder."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    found = {split: read_tables(folder / split) for split in SPLITS if (folder / split).is_dir()}
    if not found:
        found = {"all": read_tables(folder)}
    if not any(found.values()):
        raise DataError(f"{folder} holds no CSV or Parquet file")
    return found


def read_tables(folder: Path) -> list[Table]:
    """Every table directly in a folder."""
    return [read_table(path) for path in sorted(folder.iterdir()) if path.suffix in KINDS]


def read_table(path: Path) -> Table:
    """One file. Raises `DataError`, `ExtraMissing`."""
    return _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise ExtraMissing(f"{path} is Parquet", "Run `pip install 'reuna[parquet]'`.") from None
    try:
        table = parquet.read_table(path, use_threads=False)
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return Table(path, {name: _from_arrow(table.column(name)) for name in table.column_names})


def _from_arrow(column: Any) -> Column:
    values = column.to_numpy()
    if values.dtype.kind in "fiub":
        return np.asarray(values)
    return np.asarray([str(value) for value in values])


def _read_csv(path: Path) -> Table:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            separator = ";" if first.count(";") > first.count(",") else ","
            file.seek(0)
            rows = list(csv.reader(file, delimiter=separator))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    rows = [row for row in rows if row]
    if len(rows) < 2:
        raise DataError(f"{path} has no rows below its header")
    return Table(path, _columns(path, rows[0], rows[1:]))


def _columns(path: Path, names: list[str], rows: list[list[str]]) -> dict[str, Column]:
    names = [name.strip() for name in names]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise DataError(f"{path}: the column {sorted(twice)[0]!r} stands twice in the header")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise DataError(f"{path}, line {line}: {len(row)} cells where the header has {len(names)}")
    return {name: _column([row[index].strip() for row in rows]) for index, name in enumerate(names)}


def _column(cells: list[str]) -> Column:
    """Numbers where every filled cell is one (empty cells become NaN), else text."""
    try:
        return np.array([float(cell) if cell else np.nan for cell in cells], np.float64)
    except ValueError:
        return np.array(cells)
