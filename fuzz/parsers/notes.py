"""Where a node goes on with its ledger, and where an export does: notes that lie on a disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec

from fuzz.kit import attempt, scratch
from reuna.adapters.ledger_file import Mark, Place
from reuna.core.errors import LedgerProblem
from reuna.exchange.flows import Memory
from reuna.exchange.ledger_export import last_line, parse_note
from reuna.exchange.resume import KIND, NOTE, Resume, resume
from reuna.trust.dsse import authenticated
from reuna.trust.ledger import State
from reuna.trust.publish import public_of
from reuna.trust.requests import State as Spent
from tests.unit.trust.books import NODE, OWNER

STATE = State(OWNER, 3, bytes(32), 5)
MEMORY = Memory(Spent(), [("metric", "ab" * 32, "", 1)], "ab" * 32, "", {})


def seeds() -> Iterator[bytes]:
    body = msgspec.msgpack.encode(Resume(Mark(Place("1.ledger", 10, 3), STATE, None), MEMORY))
    yield b"\0" + body
    yield b"\1" + msgspec.msgpack.encode([body, NODE.sign(authenticated(KIND, body))])
    yield b"\2" + json.dumps({"seq": 7, "digest": "ab" * 32}).encode()


def check(data: bytes) -> None:
    kind, rest = (data[0] % 3, data[1:]) if data else (0, b"")
    if kind == 2:
        file = scratch() / "export.jsonl"
        file.write_bytes(rest)
        attempt(lambda: parse_note(rest, Path("note")), LedgerProblem)
        attempt(lambda: last_line(file), LedgerProblem)
        return
    if kind == 0:  # any body with a good signature
        rest = msgspec.msgpack.encode([rest, NODE.sign(authenticated(KIND, rest))])
    folder = scratch() / "noted"
    folder.mkdir(exist_ok=True)
    (folder / NOTE).write_bytes(rest)
    assert resume(folder, public_of(NODE)) is None, "there is no such ledger"
