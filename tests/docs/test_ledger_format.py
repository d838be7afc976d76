"""The page on the ledger's format says what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import msgspec

from reuna.adapters.ledger_file import SEGMENT_BYTES
from reuna.trust.ledger import FORMAT, HEAD_EVERY, MAX_REASON, MAX_RECORD, Entry, EntryKind
from reuna.trust.ledger_verify import FAULTS

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "ledger.md").read_text(encoding="utf-8")
TABLES = [re.findall(r"^\| `(\w+)` \| ([^|]*) \|", part, re.MULTILINE) for part in PAGE.split("\n\n")]
DEFAULTS: dict[Any, str] = {"": "empty", b"": "empty", (): "nothing in it", 0: "0", None: "nothing"}


def table(first: str) -> dict[str, str]:
    """First and second column of the table whose first row is named so."""
    return next(dict(rows) for rows in TABLES if rows and rows[0][0] == first)


def test_every_field_stands_there_in_order_with_its_default() -> None:
    said = {}
    for field in msgspec.structs.fields(Entry):
        default = field.default
        said[field.name] = "always there" if field.required else _default(default)
    assert list(table("time_ms").items()) == list(said.items())


def _default(value: Any) -> str:
    return "0.0" if isinstance(value, float) else DEFAULTS[value]


def test_every_kind_of_record_stands_there_in_order() -> None:
    assert list(table("begin")) == list(get_args(EntryKind))


def test_every_word_of_a_verdict_stands_there_in_order() -> None:
    assert list(table("empty")) == list(FAULTS)


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"Format {FORMAT}." in PAGE
    assert f"at most {MAX_RECORD:,} bytes" in PAGE
    assert f"At most {HEAD_EVERY} records" in PAGE
    assert f"At most {MAX_REASON} characters" in PAGE
    assert SEGMENT_BYTES == 4 * 1024 * 1024
    assert "4 MiB" in PAGE
