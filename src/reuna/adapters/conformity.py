"""A node's folder held against the data contract: counts by rule, and for its own people where.

found = judge_folder(folder, agreed)       # counts, which may be told
found.refuse(agreed)                       # raises `ContractBroken`, which names files
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reuna.adapters.data_folder import folder_tables
from reuna.adapters.tables import Table, read_table, require
from reuna.core import bins
from reuna.core.bins import Counted
from reuna.core.conformity import Columns, judge, odd_unit, range_of, together
from reuna.core.contract import Breach, Contract, Line, breaches
from reuna.core.errors import ContractBroken, DataError
from reuna.core.units import split_name

LEARNT = ("train", "all")  #: splits that a model learns from
MAX_NAMED = 12  #: breaches that an error lists


@dataclass(frozen=True)
class Judged:
    """What came of it. ``where``: for a rule and column, the first table that fails it and how.

    ``bins``: how the values of the tables for training are spread.
    """

    lines: tuple[Line, ...] = ()
    where: Mapping[tuple[str, str], str] = field(default_factory=dict)
    bins: tuple[Counted, ...] = ()

    def refuse(self, agreed: Contract) -> None:
        """Raises `ContractBroken` when a rule failed more often than the contract allows."""
        broken = breaches(agreed, self.lines)
        if broken:
            more = [f"and {len(broken) - MAX_NAMED} more"] if len(broken) > MAX_NAMED else []
            raise ContractBroken("\n".join([*map(self.said, broken[:MAX_NAMED]), *more]))

    def said(self, breach: Breach) -> str:
        """A breach, and where it begins."""
        place = self.where.get((breach.line.rule, breach.line.signal), "")
        return f"{breach}; {place}" if place else str(breach)


def judge_folder(folder: Path, agreed: Contract) -> Judged:
    """Hold every table of a node's folder against the contract, one at a time.

    Raises `DataError` for what cannot be read, `ExtraMissing`.
    """
    return judge_tables(folder_tables(folder), agreed) if agreed.looks else Judged()


def judge_tables(tables: Mapping[str, Sequence[Path]], agreed: Contract) -> Judged:
    """The same for tables by split. Raises as `judge_folder`."""
    found: list[tuple[Line, ...]] = []
    where: dict[tuple[str, str], str] = {}
    counted: list[tuple[Counted, ...]] = []
    for split, paths in tables.items():
        for path in paths:
            table = read_table(path)
            columns = columns_of(table, agreed)
            found.append(judge(agreed, columns))
            if split in LEARNT:
                counted.append(bins.count(agreed, columns))
            for line in found[-1]:
                if line.failed and (line.rule, line.signal) not in where:
                    where[line.rule, line.signal] = _place(table, agreed, line)
    return Judged(together(found), where, bins.together(counted))


def columns_of(table: Table, agreed: Contract) -> Columns:
    """The columns that a contract names, and the units that the file says of them."""
    called = {name: _find(table, name) for name in agreed.names}
    there = {name: column for name, column in called.items() if column is not None}
    return Columns(
        len(table),
        {name: table.columns[column] for name, column in there.items()},
        {name: table.unit(column) for name, column in there.items()},
    )


def _find(table: Table, name: str) -> str | None:
    return table.find(name) or table.find(split_name(name)[0])


def _place(table: Table, agreed: Contract, line: Line) -> str:
    """The table and what is wrong in it, for this node's people."""
    if line.rule == "present":
        try:
            require(table, [line.signal])
        except DataError as error:
            return error.message
    signal = next((each for each in agreed.signals if each.name == line.signal), None)
    column = _find(table, line.signal) or line.signal
    at = f"{table.path}, column {column!r}"
    if signal is not None and line.rule == "unit":
        numbers = table.columns[column]
        known = numbers.astype(np.float64) if numbers.dtype.kind != "U" else np.empty(0)
        return f"{at}: {odd_unit(signal, table.unit(column), known) or 'another unit'}"
    if signal is not None and line.rule == "range":
        return f"{at}: {line.failed} outside of {range_of(signal)}"
    if line.rule == "missing":
        cells = table.columns[column]
        empty = cells == "" if cells.dtype.kind == "U" else np.isnan(cells)
        return f"{table.place(int(np.argmax(empty)), column)}: an empty cell"
    return f"{at}: {line.failed}"
