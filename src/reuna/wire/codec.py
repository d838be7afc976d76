"""Bytes of a message: one version byte, then msgpack of the record with a tag for its type.

The byte is the oldest protocol that reads the message rightly, so what is said as before is written as
before: its bytes do not depend on who reads them, and an agent one protocol behind understands it. Which
protocols a node speaks stands in its hello, which every protocol reads; `agreed` judges it.

The length is judged before anything is decoded, so a hostile message cannot make us allocate
more than `LIMITS` says. Fields are only ever added, with a default; a published field keeps
its name and meaning, so older bytes stay readable. Golden bytes: ``tests/golden/wire``.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TypeVar, cast

import msgspec

from reuna.core.errors import BadMessage
from reuna.core.foreign import UNREADABLE
from reuna.core.records import Contribution, Event, Hello, News, Plan, Receipt, RunSpec, ShownHead
from reuna.core.roster import Roster, RosterAsked
from reuna.core.second import Doubtful, Opinions

VERSION = 3  #: protocol number. 2: a hello says which its node speaks; plans of the task check; packed ones.
#: 3: encoded updates (`reuna.core.records.Encoding`); differences of models; fogs under fogs;
#: rounds that some are enough for
OLDEST = VERSION - 1  #: the oldest protocol that is still spoken; nodes are upgraded from the top down
CHECKS = 2  #: the protocol from which on a node understands plans of the task ``check``
PACKS = 2  #: the same of plans that come packed (`reuna.wire.packing`)
ENCODES = 3  #: the same of plans with an encoding
TREES = 3  #: the same of plans for fogs under fogs
#: The oldest protocol whose bytes are read.
FIRST = 1

#: Largest encoded message of each type, in bytes. NATS carries at most 1 MB; those of windows go over HTTPS.
LIMITS: dict[type[msgspec.Struct], int] = {
    Plan: 1_000_000,
    Contribution: 1_000_000,
    Receipt: 4_096,
    Event: 65_536,
    Hello: 262_144,
    RunSpec: 1_000_000,
    ShownHead: 16_384,
    News: 64,
    Doubtful: 3_500_000,
    Opinions: 4_000_000,
    Roster: 600_000,
    RosterAsked: 16,
}

_TAGS: dict[type[msgspec.Struct], int] = {
    Plan: 1,
    Contribution: 2,
    Receipt: 3,
    Event: 4,
    Hello: 5,
    RunSpec: 6,
    ShownHead: 7,
    News: 8,
    Doubtful: 9,
    Opinions: 10,
    Roster: 11,
    RosterAsked: 12,
}
#: Since which protocol each type of message is as it is now, but for what `since` says.
SINCE: dict[type[msgspec.Struct], int] = dict.fromkeys(_TAGS, 1)
_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECODERS = {kind: msgspec.msgpack.Decoder(kind) for kind in LIMITS}

M = TypeVar("M", bound=msgspec.Struct)


def since(message: msgspec.Struct) -> int:
    """The oldest protocol that reads a message rightly."""
    if isinstance(message, Plan | RunSpec) and message.encoding is not None:
        return ENCODES
    if (isinstance(message, Plan) and message.tree) or (isinstance(message, RunSpec) and message.above):
        return TREES
    if isinstance(message, Plan) and (message.enough or message.buffer):
        return ENCODES
    if isinstance(message, Contribution) and message.packed:
        return ENCODES
    return SINCE[type(message)]


def asks_for(plan: Plan) -> int:
    """The oldest protocol whose nodes know what a plan asks."""
    return max(since(plan), CHECKS if plan.task == "check" else FIRST)


def encode(message: msgspec.Struct) -> bytes:
    """The message's bytes: version, tag, body. Equal records give equal bytes.

    Raises `BadMessage` when it would be larger than its limit.
    """
    kind = type(message)
    data = bytes((since(message), _TAGS[kind])) + _ENCODER.encode(message)
    if len(data) > LIMITS[kind]:
        raise BadMessage(f"{kind.__name__} of {len(data)} bytes is over its limit of {LIMITS[kind]}")
    return data


def decode(kind: type[M], data: bytes) -> M:
    """Read a message of the type expected here.

    Raises `BadMessage` for too many bytes, another version or type, or a malformed body.
    """
    if len(data) > LIMITS[kind]:
        raise BadMessage(f"{kind.__name__} of {len(data)} bytes is over its limit of {LIMITS[kind]}")
    if len(data) < 2 or not FIRST <= data[0] <= VERSION:
        spoken = f"{FIRST} to {VERSION}"
        raise BadMessage(f"expected {kind.__name__} of protocol {spoken}, got {data[:1].hex() or 'nothing'}")
    if data[1] != _TAGS[kind]:
        raise BadMessage(f"expected {kind.__name__}, got a message of type {data[1]}")
    try:
        return cast("M", _DECODERS[kind].decode(memoryview(data)[2:]))
    except UNREADABLE as error:
        raise BadMessage(f"malformed {kind.__name__}: {error}") from error


def agreed(oldest: int, newest: int) -> int | None:
    """The protocol that we and a node that speaks ``oldest`` to ``newest`` speak; None when there is none.

    >>> agreed(1, 1), agreed(2, 7), agreed(VERSION + 1, VERSION + 2)
    (None, 3, None)
    """
    best = min(newest, VERSION)
    return best if best >= max(oldest, OLDEST) else None


@lru_cache(maxsize=4)
def decode_plan(data: bytes) -> Plan:
    """The plan of a round, whose bytes a node reads again at each step. Raises `BadMessage`."""
    return decode(Plan, data)


@lru_cache(maxsize=4)  # it is made of a plan's bytes again at each step of a round
def message_digest(data: bytes) -> str:
    """SHA-256 of a message's bytes, hexadecimal; binds an answer to its plan."""
    return hashlib.sha256(data).hexdigest()
