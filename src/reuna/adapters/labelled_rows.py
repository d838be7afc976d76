"""Which labelled rows a node's tables have: a digest of each, and no row for longer than that takes.

Two rows with equal cells, in whatever files, are one. CSV files are read row by row, so that a large folder
takes no more memory than its digests.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence, Set
from hashlib import blake2b
from pathlib import Path

from reuna.adapters.csv_rows import csv_rows
from reuna.adapters.data_folder import folder_tables
from reuna.core.errors import DataError
from reuna.core.units import split_name

MOST = 1_000_000  #: rows; with more nothing is counted
SIZE = 8  #: bytes of a digest


def labelled_rows(folder: Path, label: str) -> Set[bytes]:
    """Digests of the labelled rows that a node trains on.

    Raises `DataError` for tables that cannot be read, that have no such column, or too many labelled rows.
    """
    tables = folder_tables(folder)
    found = set[bytes]()
    for path in tables.get("train", tables.get("all", ())):
        for digest in _digests(path, label):
            found.add(digest)
            if len(found) > MOST:
                raise DataError(f"{folder} has more than {MOST} labelled rows, which are not counted")
    return found


def _digests(path: Path, label: str) -> Iterator[bytes]:
    rows = _of_parquet(path) if path.suffix == ".parquet" else _of_csv(path)
    try:
        names = next(rows, [])
        at = _place(path, names, label)
        for row in rows:
            if len(row) > at and row[at] and row[at].lower() != "nan":
                yield blake2b("\x1f".join(row).encode("utf-8", "replace"), digest_size=SIZE).digest()
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error.reason}", "Save it as UTF-8.") from error


def _of_csv(path: Path) -> Iterator[Sequence[str]]:
    with csv_rows(path) as (rows, _):
        for row in rows:
            yield [cell.strip() for cell in row]


def _of_parquet(path: Path) -> Iterator[Sequence[str]]:
    from reuna.adapters.tables import read_table  # CSV needs no numpy

    columns = read_table(path).columns
    yield list(columns)
    for cells in zip(*columns.values(), strict=True):
        yield [str(cell) for cell in cells]


def _place(path: Path, names: Iterable[str], label: str) -> int:
    every = list(names)
    found = [at for at, name in enumerate(every) if name == label or split_name(name)[0] == label]
    if not found:
        raise DataError(f"{path} has no column {label!r}")
    return every.index(label) if label in every else found[0]
