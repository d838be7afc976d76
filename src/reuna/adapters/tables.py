"""Tables of a node's folder: CSV with the standard library, Parquet with pyarrow.

    FOLDER/train/*.csv|*.parquet   FOLDER/validation/…   FOLDER/test/…
    FOLDER/*.csv|*.parquet         without splits: everything under the split "all"

Numbers are float64 with NaN where a cell is empty, anything else is text: from either kind of file
the same table. A column's unit is that of its Parquet field (metadata ``unit``), else what its name
has in brackets: ``temperature [degC]``. The convention in full: docs/reference/data-folder.md.

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
import functools
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from reuna.adapters.csv_rows import csv_rows
from reuna.adapters.data_folder import folder_tables
from reuna.core.errors import DataError, ExtraMissing
from reuna.core.units import split_name

MAX_NAMED = 12  #: columns that an error lists
FILL = "Fill it, or have the project's `load` leave such rows out: those where `matrix` gives NaN."
MAX_TABLE = 1 << 30  #: bytes of a Parquet table in memory
BATCH = 65_536  #: rows
NUMBER, CHARACTER = 8, 4  #: bytes in memory
Column = NDArray[Any]
MOST_KEPT = 16  #: results of one table
P = ParamSpec("P")
T = TypeVar("T")
_stuck: dict[str, Counter[str]] = {}
_instead: dict[Path, Table] = {}
_of_tables: dict[int, dict[Hashable, Any]] = {}


@dataclass(frozen=True)
class Table:
    """Columns by name, all of one length: numbers as float64, anything else as text.

    ``lines`` is the line of each row in a CSV file, for errors; empty for Parquet. ``units`` are those
    that the fields of a Parquet file have.
    """

    path: Path
    columns: Mapping[str, Column]
    lines: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    units: Mapping[str, str] = field(default_factory=dict)

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

    def filled(self, names: Sequence[str]) -> NDArray[np.float32]:
        """As `matrix`, but raises `DataError` for an empty cell too: it names the first, and counts them."""
        values = self.matrix(names)
        empty = np.argwhere(np.isnan(values))
        if len(empty):
            row, column = empty[0]
            more = f"; {len(empty)} cells of {self.path.name} are empty" if len(empty) > 1 else ""
            raise DataError(f"{self.place(int(row), names[column])}: an empty cell{more}", FILL)
        return values

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

    def find(self, name: str) -> str | None:
        """The column of that name, or the only one that is called so before its unit in brackets."""
        if name in self.columns:
            return name
        found = [column for column in self.columns if split_name(column)[0] == name]
        return found[0] if len(found) == 1 else None

    def unit(self, column: str) -> str:
        """The unit that the file says, '' when it says none."""
        return self.units.get(column) or split_name(column)[1]

    def place(self, row: int, name: str) -> str:
        """Where a cell stands, for an error: file, line (or row, from 1) and column."""
        at = f"line {self.lines[row]}" if len(self.lines) else f"row {row + 1}"
        return f"{self.path}, {at}, column {name!r}"

    def _numbers(self, names: Sequence[str]) -> list[NDArray[np.float64]]:
        require(self, names)
        columns = [self.find(name) or name for name in names]
        for name in columns:
            if self.columns[name].dtype.kind not in "fiub":
                raise self._textual(name)
        return [self.columns[name].astype(np.float64) for name in columns]

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
    missing = [name for name in names if table.find(name) is None]
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
    return {split: [read_table(path) for path in paths] for split, paths in folder_tables(folder).items()}


def read_table(path: Path) -> Table:
    """One file. Raises `DataError` that names file, line and column, `ExtraMissing` for Parquet."""
    if path in _instead:
        return _instead[path]
    table = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    if not len(table):
        raise DataError(f"{path} has no rows")
    for sensor in _stuck:
        table = _with_stuck(table, sensor)
    return table


def per_table(work: Callable[Concatenate[Table, P], T]) -> Callable[Concatenate[Table, P], T]:
    """A function of a table, and of what else can be hashed, that is called once for each table in memory.

    What it gave is given again as long as the table is there, and must not be changed. A release that
    answers live keeps the node's own tables, so their features are made once and not for every window.
    """

    def kept(table: Table, /, *args: P.args, **kwargs: P.kwargs) -> T:
        key = (work, args, tuple(sorted(kwargs.items())))
        known = _of_tables.get(id(table))
        if known is None:
            known = _of_tables[id(table)] = {}
            weakref.finalize(table, _of_tables.pop, id(table), None)
        if key not in known:
            if len(known) >= MOST_KEPT:  # somebody's arguments are new each time
                known.clear()
            known[key] = work(table, *args, **kwargs)
        found: T = known[key]
        return found

    return functools.wraps(work)(kept)


@contextmanager
def stuck(sensor: str) -> Iterator[Counter[str]]:
    """As if a sensor had stopped: all that `read_table` reads meanwhile has its first value in every row.

    Counts the tables in which that was so; one without the column stays as it is.
    """
    _stuck[sensor] = Counter()
    try:
        yield _stuck[sensor]
    finally:
        del _stuck[sensor]


@contextmanager
def instead(tables: Iterable[Table]) -> Iterator[None]:
    """Meanwhile `read_table` gives these tables for their paths, and does not look into the files."""
    _instead.update({table.path: table for table in tables})
    try:
        yield
    finally:
        _instead.clear()


def _with_stuck(table: Table, sensor: str) -> Table:
    name = table.find(sensor)
    if name is None:
        return table
    _stuck[sensor][str(table.path)] += 1
    column = table.columns[name]
    first = next((cell for cell in column if cell == cell), column[0])  # noqa: PLR0124 - an empty cell is NaN
    return replace(table, columns={**table.columns, name: np.full_like(column, first)})


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise ExtraMissing(f"{path} is Parquet", "Run `pip install 'reuna[parquet]'`.") from None
    try:
        with parquet.ParquetFile(path) as file:
            schema = _judged(path, arrow, file)
        texts = [field.name for field in schema if not _is_numeric(arrow, field.type)]
        with parquet.ParquetFile(path, read_dictionary=texts) as file:
            return Table(path, _arrow_columns(path, arrow, file), units=_units(schema))
    except (OSError, KeyError, UnicodeDecodeError, RuntimeError, arrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _judged(path: Path, arrow: Any, file: Any) -> Any:
    """The file's schema, once its footer says that the table is flat and small enough.

    A file of some kilobytes can hold a number a billion times. Raises `DataError`.
    """
    schema, footer = file.schema_arrow, file.metadata
    nested = [field for field in schema if arrow.types.is_nested(field.type)]
    if nested:
        raise DataError(f"{path} cannot be read: column {nested[0].name!r} holds {nested[0].type}")
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise DataError(f"{path}: there are two columns {twice[0]!r}")
    groups = [footer.row_group(place) for place in range(footer.num_row_groups)]
    packed = sum(group.total_byte_size for group in groups)  # what a footer says of a column may end us
    _bound(path, max(packed, footer.num_rows * sum(_width(arrow, field.type) for field in schema)))
    return schema


def _width(arrow: Any, kind: Any) -> int:
    """Bytes of a cell in memory, at least; how long texts are, the footer does not say."""
    return max(NUMBER, kind.byte_width) if arrow.types.is_fixed_size_binary(kind) else NUMBER


def _bound(path: Path, size: int) -> None:
    if size > MAX_TABLE:
        raise DataError(
            f"{path} takes {size >> 20} MiB when it is read; a table may take {MAX_TABLE >> 20} MiB",
            "Split it into several files, or leave out columns that nobody needs.",
        )


def _arrow_columns(path: Path, arrow: Any, file: Any) -> dict[str, Column]:
    """Batch by batch, so that no more than the table itself and one batch are in memory."""
    parts: dict[str, list[Column]] = {name: [] for name in file.schema_arrow.names}
    rows, width = 0, dict.fromkeys(parts, NUMBER)
    for batch in file.iter_batches(BATCH, use_threads=False):
        rows += batch.num_rows
        _bound(path, rows * sum(width.values()))  # a footer may say fewer rows than there are
        for name, cells in zip(parts, batch.columns, strict=True):
            if _is_numeric(arrow, cells.type):
                parts[name].append(_as_numbers(arrow, cells))
                continue
            words, places = _as_words(arrow, cells)
            width[name] = max(width[name], CHARACTER * max(map(len, words)))
            _bound(path, rows * sum(width.values()))
            parts[name].append(np.array(words, object)[places].astype(str))
    return {name: np.concatenate(chunks or [np.empty(0)]) for name, chunks in parts.items()}


def _units(schema: Any) -> dict[str, str]:
    """What the fields' metadata says under ``unit``."""
    said = {field.name: (field.metadata or {}).get(b"unit", b"") for field in schema}
    return {name: unit.decode(errors="replace") for name, unit in said.items() if unit}


def _is_numeric(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    plain = types.is_boolean(kind) or types.is_integer(kind)
    return bool(plain or types.is_floating(kind) or types.is_decimal(kind))


def _as_numbers(arrow: Any, cells: Any) -> Column:
    """Float64 with NaN for nulls."""
    if arrow.types.is_boolean(cells.type):
        cells = cells.cast(arrow.int8())
    return np.asarray(cells.cast(arrow.float64(), safe=False).to_numpy(zero_copy_only=False))


def _as_words(arrow: Any, cells: Any) -> tuple[list[str], NDArray[np.int64]]:
    """The different texts, the last of them "" for nulls, and which one each cell holds.

    A time is text as ISO 8601 has it.
    """
    if not arrow.types.is_dictionary(cells.type):
        cells = cells.cast(arrow.string()).dictionary_encode()
    words = ["" if word is None else word for word in cells.dictionary.cast(arrow.string()).to_pylist()]
    places = np.asarray(
        cells.indices.cast(arrow.int64()).fill_null(len(words)).to_numpy(zero_copy_only=False)
    )
    if places.size and not (places.min() >= 0 and places.max() <= len(words)):  # Arrow does not look
        raise arrow.ArrowInvalid("a cell names a text that its dictionary does not have")
    return [*words, ""], places


def _read_csv(path: Path) -> Table:
    rows, lines = [], []
    try:
        with csv_rows(path) as (reader, _):
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
    return Table(path, columns_of(path, rows, lines), np.array(lines[1:], np.int64))


def columns_of(path: Path, rows: list[list[str]], lines: list[int]) -> dict[str, Column]:
    """Columns of the rows of a CSV file; the first of them names the columns. Raises `DataError`."""
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
