"""`reuna.trust.ledger`: a ledger's file, judged by us and by the stand-alone verifier alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from fuzz.kit import attempt
from reuna.adapters import ledger_verifier as alone
from reuna.core.errors import Untrusted
from reuna.trust import heads, ledger
from reuna.trust.dsse import authenticated
from reuna.trust.heads import countersign, known_heads, open_head, read_head
from reuna.trust.ledger_verify import verify
from tests.unit.trust.books import CLOUD, KEYS, NODE, NOW_MS, book, file_of


def seeds() -> Iterator[bytes]:
    made = book(2)
    yield b"\0" + file_of(made.records)
    for raw in made.records[:4]:
        yield b"\1" + raw[ledger.HASH :]
    yield b"\2" + made.heads[0]
    yield b"\2" + made.countersign()
    yield b"\3" + msgspec.msgpack.decode(made.heads[0])[1]


def check(data: bytes) -> None:
    kind, rest = (data[0] & 3, data[1:]) if data else (0, b"")
    if kind == 0:
        _file(rest)
    elif kind == 1:  # any record with a good hash
        good = book(0).records
        _judged([*good, hashlib.sha256(rest).digest() + rest])
        _judged([hashlib.sha256(rest).digest() + rest])
    elif kind == 2:
        _statement(rest)
    else:  # any head with a good signature
        signature = NODE.sign(authenticated(heads._type("head"), rest))
        _statement(msgspec.msgpack.encode(("head", rest, signature)))


def _file(data: bytes) -> None:
    found = ledger.split(data)
    assert file_of(found.records) + found.rest == data
    ledger.is_torn(found.rest, len(data) - len(found.rest))
    _judged(found.records)


def _judged(records: list[bytes]) -> None:
    verdict = verify(records, KEYS)
    other = alone.Ledger({"node": list(KEYS.node), "cloud": list(KEYS.cloud)}, [])
    try:
        other.judge(records)
        good = True
    except alone.Wrong:
        good = False
    assert good or not verdict.good, verdict


def _statement(statement: bytes) -> None:
    attempt(lambda: read_head(statement), Untrusted)
    attempt(lambda: known_heads([statement], KEYS), Untrusted)
    head = attempt(lambda: open_head(statement, KEYS.node), Untrusted)
    seen = attempt(lambda: countersign(statement, KEYS.node, CLOUD, None, NOW_MS), Untrusted)
    assert (head is None) == (seen is None)
