"""`reuna.adapters.tables` with CSV, and what a project asks of a table."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from fuzz.kit import attempt, scratch
from reuna.adapters.tables import Table, read_table
from reuna.core.errors import DataError


def seeds() -> Iterator[bytes]:
    yield b"minute;pressure;state\n0;1.5;ok\n1;;worn\n"
    yield b"\xef\xbb\xbfa,b\r\n1,2e300\r\n-7,inf\r\n"
    yield b'a,"b ""c"" d"\n1,"x\ny"\n'
    yield b'"name",1_000\n9223372036854775808,1e400\n'


def check(data: bytes) -> None:
    path = scratch() / "table.csv"
    path.write_bytes(data)
    table = attempt(lambda: read_table(path), DataError)
    if table is not None:
        use(table)


def use(table: Table) -> None:
    """Every column of one length; numbers stay the same or are refused."""
    assert {len(column) for column in table.columns.values()} == {len(table)}
    for name, column in table.columns.items():
        attempt(lambda name=name: table.matrix([name]), DataError)  # type: ignore[misc]
        whole = attempt(lambda name=name: table.whole(name), DataError)  # type: ignore[misc]
        if whole is not None:
            assert (whole.astype(np.float64) == column).all()
    with contextlib.suppress(DataError):
        table.matrix(["no such column"])
