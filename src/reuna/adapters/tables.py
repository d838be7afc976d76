"""Tables of a node's folder: CSV with the standard library, Parquet with pyarrow.

    FOLDER/train/*.csv|*.parquet   FOLDER/validation/…   FOLDER/test/…
    FOLDER/*.csv|*.parquet         without splits: everything under the split "all"

Numbers are float64 with NaN where a cell is empty, anything else is text: from either kind of file
the same table. The convention in full: docs/reference/data-folder.md.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     path = Path(folder) / "pump.csv"
...     _ = path.write_text("minute;pressure;state\\n0;1.5;ok\\n1;;worn\\n")
...     table = read_table(path)
>>> table.columns["pressure"].tolist(), table.columns["state"].tolist()
([1.5, nan], ['ok', 'worn'])
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import DataError, ExtraMissing

SPLITS = ("train", "validation", "test")
KINDS = (".csv", ".parquet")
MAX_NAMED = 12  #: columns that an error lists
Column = NDArray[Any]


@dataclass(frozen=True)
class Table:
    """Columns by name, all of one length: numbers as float64, anything else as text.

    ``lines`` is the line of each row in a CSV file, for errors; empty for Parquet.
    """

    path: Path
    columns: Mapping[str, Column]
    lines: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def matrix(self, names: Sequence[str]) -> NDArray[np.float32]:
        """(rows, names) float32, NaN where a cell is empty.

        Raises `DataError` for a missing column, one that holds text, a number beyond float32.
        """
        found = self._numbers(names)
        with np.errstate(over="ignore"):  # what is too large becomes infinite, which is refused below
            columns = [column.astype(np.float32) for column in found]
        for name, exact, column in zip(names, found, columns, strict=True):
            wrong = np.flatnonzero(np.isinf(column) & np.isfinite(exact))
            if len(wrong):
                place = self.place(int(wrong[0]), name)
                raise DataError(f"{place}: {exact[wrong[0]]} is larger than float32 holds")
        return np.stack(columns, axis=1)

    def whole(self, name: str) -> NDArray[np.int64]:
        """(rows,) int64, for labels and counters.

        Raises `DataError` for an empty cell, a fraction, a number beyond int64.
        """
        (values,) = self._numbers([name])
        wrong = np.flatnonzero(~((np.abs(values) < 2.0**63) & (values == np.floor(values))))
        if len(wrong):
            place = self.place(int(wrong[0]), name)
            raise DataError(f"{place}: {values[wrong[0]]} where a whole number is needed")
        return values.astype(np.int64)

    def place(self, row: int, name: str) -> str:
        """Where a cell stands, for an error: file, line (or row, from 1) and column."""
        at = f"line {self.lines[row]}" if len(self.lines) else f"row {row + 1}"
        return f"{self.path}, {at}, column {name!r}"

    def _numbers(self, names: Sequence[str]) -> list[NDArray[np.float64]]:
        require(self, names)
        for name in names:
            if self.columns[name].dtype.kind not in "fiub":
                raise self._textual(name)
        return [self.columns[name].astype(np.float64) for name in names]

    def _textual(self, name: str) -> DataError:
        cells = self.columns[name]
        row = next((row for row, cell in enumerate(cells) if _number(str(cell)) is None), 0)
        comma = "," in str(cells[row]) and _number(str(cells[row]).replace(",", ".")) is not None
        advice = (
            "Write the decimal sign as a point." if comma else "Leave a cell empty where there is no value."
        )
        return DataError(f"{self.place(row, name)}: {str(cells[row])!r} where a number is needed", advice)


def require(table: Table, names: Iterable[str]) -> None:
    """Raises `DataError` that names the missing columns, the likely meant, and those present."""
    missing = [name for name in names if name not in table.columns]
    if not missing:
        return
    said = ", ".join(_with_likely(name, table.columns) for name in missing[:5])
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    present = ", ".join(sorted(table.columns)[:MAX_NAMED])
    rest = ", …" if len(table.columns) > MAX_NAMED else ""
    raise DataError(f"{table.path} has no column {said}{more}; it has {present}{rest}")


def _with_likely(name: str, present: Iterable[str]) -> str:
    """A missing name, and the one that may have been meant; case does not count."""
    folded = {there.casefold(): there for there in present}
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f"{name!r} (did you mean {folded[close[0]]!r}?)" if close else repr(name)


def read_folder(folder: Path) -> dict[str, list[Table]]:
    """Tables by split, in the order of their names.

    Raises `DataError` for a folder that is empty, or holds tables both with and without a split.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    found = {split: read_tables(folder / split) for split in SPLITS if (folder / split).is_dir()}
    loose = _files(folder)
    if loose and any(found.values()):
        raise DataError(
            f"{folder} has {loose[0].name} beside its folders {' and '.join(found)}",
            "Move it into one of them: it is not clear what it is for.",
        )
    if not any(found.values()):
        found = {"all": [read_table(path) for path in loose]}
    if not any(found.values()):
        raise DataError(f"{folder} holds no CSV or Parquet file")
    return found


def read_tables(folder: Path) -> list[Table]:
    """Every table directly in a folder."""
    return [read_table(path) for path in _files(folder)]


def _files(folder: Path) -> list[Path]:
    """Tables in a folder by name; hidden files are left alone."""
    return sorted(path for path in folder.iterdir() if path.suffix in KINDS and not path.name.startswith("."))


def read_table(path: Path) -> Table:
    """One file. Raises `DataError` that names file, line and column, `ExtraMissing` for Parquet."""
    table = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    if not len(table):
        raise DataError(f"{path} has no rows")
    return table


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise ExtraMissing(f"{path} is Parquet", "Run `pip install 'reuna[parquet]'`.") from None
    try:
        table = parquet.read_table(path, use_threads=False, partitioning=None)
        columns = {name: _from_arrow(arrow, table.column(name)) for name in table.column_names}
    except (OSError, KeyError, UnicodeDecodeError, arrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return Table(path, columns)


def _from_arrow(arrow: Any, column: Any) -> Column:
    """Float64 with NaN for nulls, or text with "" for nulls; a time is text as ISO 8601 has it."""
    types = arrow.types
    if types.is_boolean(column.type):
        column = column.cast(arrow.int8())
    if types.is_integer(column.type) or types.is_floating(column.type) or types.is_decimal(column.type):
        return np.asarray(column.cast(arrow.float64(), safe=False).to_numpy())
    return np.array(["" if cell is None else cell for cell in column.cast(arrow.string()).to_pylist()], str)


def _read_csv(path: Path) -> Table:
    rows, lines = [], []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            separator = ";" if first.count(";") > first.count(",") else ","
            reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
            for row in reader:
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error.reason}", "Save it as UTF-8.") from error
    if not rows:
        raise DataError(f"{path} is empty")
    return Table(path, _columns(path, rows, lines), np.array(lines[1:], np.int64))


def _columns(path: Path, rows: list[list[str]], lines: list[int]) -> dict[str, Column]:
    """The first row names them."""
    names = [name.strip() for name in rows[0]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}, line {lines[0]}: the column {twice[0]!r} stands twice in the header")
    for line, row in zip(lines, rows, strict=True):
        if len(row) < len(names):
            last = f"after column {names[len(row) - 1]!r}"
            raise DataError(f"{path}, line {line}: ends {last}, {len(row)} cells of {len(names)}")
        if len(row) > len(names):
            beyond = f"{row[len(names)]!r} beyond the last column {names[-1]!r}"
            raise DataError(f"{path}, line {line}: {beyond}, {len(row)} cells of {len(names)}")
    return {name: _column([row[place].strip() for row in rows[1:]]) for place, name in enumerate(names)}


def _column(cells: list[str]) -> Column:
    """Numbers where every filled cell is one (empty cells become NaN), else text."""
    numbers = [_number(cell) for cell in cells]
    if None in numbers:
        return np.array(cells)
    return np.array(numbers, np.float64)


def _number(cell: str) -> float | None:
    """The number that a cell holds, NaN when it is empty, None when it is text.

    Python would read "1_000" as a number; in a table that is a name.
    """
    if not cell:
        return float("nan")
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None
