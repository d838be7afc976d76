"""A roster as a person writes it for `reuna trust add`, and as it comes down signed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from fuzz.kit import attempt
from reuna.core.errors import KeyProblem, Untrusted
from reuna.fleet.trust import _roster
from reuna.trust.targets import read_roster


def seeds() -> Iterator[bytes]:
    yield json.dumps({"press-1": "acme", "press-2": "acme", "oven-1": "borg"}).encode()
    yield b"{}"
    yield b'{"press-1": 1}'


def check(data: bytes) -> None:
    found = attempt(lambda: _roster(Path("nodes.json"), data), KeyProblem)
    if found is not None:
        assert found
        assert attempt(lambda: read_roster(dict(found)), Untrusted) == found
