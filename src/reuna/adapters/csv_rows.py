"""Rows of a CSV file of a node's folder, as all that read one take them.

UTF-8 with a header. The separator is ``,``, or ``;`` where the header has more of them outside of quotes.

>>> separator('minute;"pressure, absolute";flow'), separator("pressure")
(';', ',')
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _csv import Reader

_QUOTED = re.compile(r'"[^"]*"')


def separator(header: str) -> str:
    """What stands between the cells, by a file's first line."""
    bare = _QUOTED.sub("", header)
    return ";" if bare.count(";") > bare.count(",") else ","


@contextmanager
def csv_rows(path: Path) -> Iterator[tuple[Reader, str]]:
    """The rows, the header first and empty lines as empty rows, and what separates their cells.

    Raises `OSError`; reading the rows raises `csv.Error` and `UnicodeDecodeError` too.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        found = separator(file.readline())
        file.seek(0)
        yield csv.reader(file, delimiter=found, skipinitialspace=True, strict=True), found


@contextmanager
def csv_copy(path: Path, names: Sequence[str], separated: str) -> Iterator[Any]:
    """A writer of rows below those names, separated as before wherever that can be told from the names.

    Of a single name it cannot: then ``,`` separates, and a cell that has one is quoted.
    """
    told = separated if len(names) > 1 else ","
    doubtful = any(mark in name for name in names for mark in ",;")
    with path.open("w", newline="", encoding="utf-8") as file:
        plain = csv.writer(file, delimiter=told, lineterminator="\n")
        quoted = csv.writer(file, delimiter=told, lineterminator="\n", quoting=csv.QUOTE_ALL)
        (quoted if doubtful else plain).writerow(names)
        yield plain
