"""Events of a fog at the cloud: decoded, read as a node or an alarm, kept in the log."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from msgspec.structs import replace

from fuzz.kit import EVENT, attempt, scratch
from reuna.adapters.events import EventLog
from reuna.adapters.register import Register
from reuna.cloud.hearing import learn
from reuna.core.errors import BadMessage
from reuna.core.records import Event
from reuna.exchange.admission import read_alarm, read_node
from reuna.wire import decode, encode


def seeds() -> Iterator[bytes]:
    node = {"name": "edge-1", "serial": "ab", "key": "cd", "issued": 1.0, "expires": 2.0, "revoked": -1.0}
    alarm = {"name": "edge-1", "at": 1.0, "boot": "b1", "what": "clone", "reason": "x"}
    yield encode(EVENT)
    yield encode(replace(EVENT, what="node", fields=node))
    yield encode(replace(EVENT, what="alarm", fields=alarm))


def check(data: bytes) -> None:
    event = attempt(lambda: decode(Event, data), BadMessage)
    if event is None:
        return
    attempt(lambda: read_node("fog-1", event.fields), BadMessage)
    attempt(lambda: read_alarm(event.fields), BadMessage)
    attempt(lambda: learn(_register(), event), BadMessage)
    if attempt(lambda: _log().record(event), BadMessage):
        assert _log().read(event.run)
        _log().prune(1e12)


@cache
def _log() -> EventLog:
    return EventLog(scratch() / "events.sqlite")


@cache
def _register() -> Register:
    return Register(scratch() / "register.sqlite")
