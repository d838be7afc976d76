"""`reuna.adapters.tables` with Parquet: a damaged file is one clear message."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pyarrow as arrow
from pyarrow import parquet

from fuzz.kit import attempt, scratch
from fuzz.parsers.csv_tables import use
from reuna.adapters.tables import read_table
from reuna.core.errors import DataError


def seeds() -> Iterator[bytes]:
    yield _file({"a": [1.5, None], "b": ["x", None]})
    yield _file({"a": [1, 2**62], "ok": [True, None]})
    yield _file({"nested": [[1, 2], None]})
    yield _file({"raw": [b"\xff", b""]})


def check(data: bytes) -> None:
    path = scratch() / "table.parquet"
    path.write_bytes(data)
    table = attempt(lambda: read_table(path), DataError)
    if table is not None:
        use(table)


def _file(columns: dict[str, list[Any]]) -> bytes:
    out = BytesIO()
    parquet.write_table(arrow.table(columns), out, compression="none")
    return out.getvalue()
