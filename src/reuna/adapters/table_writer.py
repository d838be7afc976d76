"""Tables written piece by piece, as `reuna.adapters.tables` reads them: CSV, or Parquet with pyarrow.

A table is whole under its name or not there. Numbers are float64, NaN for no value; texts are '' for none.
Units stand in brackets behind a CSV column's name, and in the metadata of a Parquet field.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reuna.adapters.files import storage_error, sync_folder
from reuna.core.errors import DataError, ExtraMissing

Piece = Mapping[str, NDArray[Any]]  #: columns of one length, float64 or text


def write_table(path: Path, pieces: Iterable[Piece], units: Mapping[str, str]) -> int:
    """Write pieces of the same columns one after the other, by the file's suffix; how many rows there are.

    Raises `DataError` when it is there already, `ExtraMissing` for Parquet without pyarrow, `StorageError`.
    """
    if path.exists():
        raise DataError(f"{path} is there already", "Name another folder, or move it away.")
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = (_parquet if path.suffix == ".parquet" else _csv)(part, pieces, units)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        part.unlink(missing_ok=True)
    return rows


def _csv(path: Path, pieces: Iterable[Piece], units: Mapping[str, str]) -> int:
    rows = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for piece in pieces:
            if not rows:
                writer.writerow([f"{name} [{units[name]}]" if units.get(name) else name for name in piece])
            lines = list(zip(*map(_texts, piece.values()), strict=True))
            writer.writerows(lines)
            rows += len(lines)
    return rows


def _texts(column: NDArray[Any]) -> list[str]:
    """Cells as they are written: a number so that the same one is read."""
    if column.dtype.kind == "U":
        return [str(cell) for cell in column.tolist()]
    return ["" if math.isnan(cell) else repr(cell) for cell in column.astype(np.float64).tolist()]


def _parquet(path: Path, pieces: Iterable[Piece], units: Mapping[str, str]) -> int:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise ExtraMissing(f"{path.name} is Parquet", "Run `pip install 'reuna[parquet]'`.") from None
    writer, rows = None, 0
    try:
        for piece in pieces:
            arrays = [_array(arrow, column) for column in piece.values()]
            fields = [
                arrow.field(name, array.type, metadata={"unit": units[name]} if units.get(name) else None)
                for name, array in zip(piece, arrays, strict=True)
            ]
            table = arrow.Table.from_arrays(arrays, schema=arrow.schema(fields))
            if writer is None:
                writer = parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
            rows += table.num_rows
    finally:
        if writer is not None:
            writer.close()
    return rows


def _array(arrow: Any, column: NDArray[Any]) -> Any:
    """No value is a null."""
    if column.dtype.kind == "U":
        return arrow.array([cell or None for cell in column.tolist()], arrow.string())
    return arrow.array(column.astype(np.float64), arrow.float64(), from_pandas=True)
