"""`reuna.adapters.audit`: a trail's file, and any line with a good hash at its end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from fuzz.kit import attempt, scratch
from reuna.adapters import audit
from reuna.adapters.audit import BEGIN, AuditTrail
from reuna.core.errors import Corrupted

SAID = {"number": 0, "at": 1.5, "who": "anna", "via": "session", "what": "runs.submit", "verdict": "allowed"}


def seeds() -> Iterator[bytes]:
    line = audit._line({**SAID, "previous": BEGIN})
    yield b"\0" + line
    yield b"\0" + line + line
    yield b"\0" + line + line[:40]
    yield b"\1" + json.dumps({**SAID, "previous": BEGIN}).encode()


def check(data: bytes) -> None:
    kind, rest = (data[0] & 1, data[1:]) if data else (0, b"")
    if kind:
        rest = rest[:-1] + audit._HASH % hashlib.sha256(rest).hexdigest().encode()
    trail = AuditTrail(scratch() / "audit.jsonl")
    trail.path.write_bytes(rest)
    read = attempt(lambda: list(trail.read()), Corrupted)
    attempt(lambda: trail.append(2.0, "ben", "session", "session.begin", "denied"), Corrupted)
    if read:
        assert list(trail.read())[: len(read)] == read
        assert len(list(trail.read())) == len(read) + 1
