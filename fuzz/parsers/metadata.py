"""`reuna.trust.parse` and `reuna.trust.metadata`: files of a fleet, as they come and rightly signed.

The first byte says which role, and whether those who hold its keys have signed what follows: what
only the signature would stop is judged too.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from tuf.api.metadata import Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import SerializationError

from fuzz.kit import attempt
from reuna.core.errors import Untrusted
from reuna.trust import publish
from reuna.trust.gate import plan_gate
from reuna.trust.metadata import Refresh, TrustState, begin, complete, refresh, take, update, wanted
from reuna.trust.parse import parse
from reuna.trust.targets import target
from tests.unit.trust.house import FLEET, NOW, House

ROLES = ("root", "timestamp", "snapshot", "targets", "code", "plans")
KINDS: dict[str, type[Any]] = {"root": Root, "timestamp": Timestamp, "snapshot": Snapshot}


def seeds() -> Iterator[bytes]:
    for number, role in enumerate(ROLES):
        data = _house().newest[role]
        yield bytes((number,)) + data
        signed = json.dumps(json.loads(data)["signed"], separators=(",", ":")).encode()
        yield bytes((number | 8,)) + signed


def check(data: bytes) -> None:
    first, body = (data[0], data[1:]) if data else (0, b"")
    role = ROLES[(first & 7) % len(ROLES)]
    if first & 8:
        body = attempt(lambda: _signed(role, body), Untrusted) or b""
    if role == "root":
        attempt(lambda: begin(FLEET, body), Untrusted)
    if attempt(lambda: parse(KINDS.get(role, Targets), role, body), Untrusted) is None:
        return
    attempt(lambda: take(_step(role), body), Untrusted)
    state = attempt(lambda: _walk(role, body), Untrusted)
    if state is not None and complete(state):
        attempt(lambda: plan_gate(state), Untrusted)
        attempt(lambda: target(state, "releases/pump", NOW), Untrusted)


@cache
def _house() -> House:
    return House()


@cache
def _step(role: str) -> Refresh:
    """A walk that has come to ``role``."""
    house, step = _house(), refresh(_house().begin(), NOW)
    while step.stage != role:
        file = wanted(step)
        assert file is not None
        step = take(step, house.files.get(file.name))
    return step


def _signed(role: str, body: bytes) -> bytes:
    """What the role's keys would sign: the parts of ``body`` that a reader would see."""
    whole = b'{"signatures":[],"signed":' + body + b"}"
    metadata = parse(KINDS.get(role, Targets), role, whole)
    try:
        return publish.sign(metadata, _house().signers(role))
    except SerializationError:
        return whole


def _walk(role: str, body: bytes) -> TrustState:
    """The whole walk over a fleet in which ``body`` is the role's file, named by those above it."""
    house = copy.copy(_house())
    house.versions, house.files, house.newest = dict(house.versions), dict(house.files), dict(house.newest)
    name = f"{house.versions[role]}.{role}.json"
    if role == "root":
        house.files["2.root.json"] = body
    elif role == "timestamp":
        house.files["timestamp.json"] = body
    else:
        house.newest[role] = house.files[name] = body
        if role != "snapshot":
            house.snapshot()
        house.timestamp()
    return update(house.begin(), house.files.get, NOW)
