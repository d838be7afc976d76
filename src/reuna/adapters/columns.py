"""A copy of a node's folder of data with some columns of its tables, for code that may read no others.

Only tables are copied, under their own names: what else lies in the folder has no columns and is not
shown. Cells of a CSV file are copied as they are written. A table that has none of the columns is left
out. Which columns those are is decided elsewhere.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     whole, part = Path(folder, "whole"), Path(folder, "part")
...     whole.mkdir()
...     _ = (whole / "pump.csv").write_text("minute;leader;flow\\n0;Ann;1,5\\n1;Bob;\\n")
...     withheld = project_folder(whole, ("flow", "minute"), part)
...     withheld, (part / "pump.csv").read_text().split()
(('leader',), ['minute;flow', '0;1,5', '1;'])
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Collection
from pathlib import Path

from reuna.adapters.csv_rows import csv_copy, csv_rows
from reuna.adapters.files import storage_error
from reuna.core.errors import DataError, ExtraMissing

KINDS = (".csv", ".parquet")


def project_folder(source: Path, columns: Collection[str], target: Path) -> tuple[str, ...]:
    """Make ``target`` anew with those columns of every table below ``source``; the names withheld, sorted.

    Raises `DataError`, `ExtraMissing` for Parquet without pyarrow, `DiskFull`, `Corrupted`.
    """
    if not source.is_dir():
        raise DataError(f"there is no folder {source}")
    withheld: set[str] = set()
    try:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True, mode=0o700)
        for path in sorted(source.rglob("*")):
            place = target / path.relative_to(source)
            if path.is_dir():
                place.mkdir(exist_ok=True)
            elif path.suffix in KINDS and path.is_file():
                copy = _copy_parquet if path.suffix == ".parquet" else _copy_csv
                withheld |= copy(path, columns, place)
    except OSError as error:
        raise storage_error(error, target) from error
    return tuple(sorted(withheld))


def _copy_csv(path: Path, columns: Collection[str], place: Path) -> set[str]:
    """Names withheld. The first row names the columns; a shorter or longer row is the reader's to refuse."""
    try:
        with csv_rows(path) as (rows, separated):
            names = [name.strip() for name in next(rows, [])]
            kept = [index for index, name in enumerate(names) if name in columns]
            if kept:
                with csv_copy(place, [names[index] for index in kept], separated) as copy:
                    for row in filter(None, rows):
                        if len(row) != len(names):
                            raise DataError(f"{path}, line {rows.line_num}: {len(row)} cells of {len(names)}")
                        copy.writerow([row[index] for index in kept])
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return set(names) - set(columns)


def _copy_parquet(path: Path, columns: Collection[str], place: Path) -> set[str]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise ExtraMissing(f"{path} is Parquet", "Run `pip install 'reuna[parquet]'`.") from None
    try:
        names = parquet.read_schema(path).names
        kept = [name for name in names if name in columns]
        if kept:
            table = parquet.read_table(path, columns=kept, use_threads=False, partitioning=None)
            parquet.write_table(table.select(kept).replace_schema_metadata(), place)
    except (KeyError, UnicodeDecodeError, RuntimeError, arrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return set(names) - set(columns)
