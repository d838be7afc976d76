"""Subjects of the bus and who may use them: the one list that servers and the fake both obey.

    plan.<node>     parent to node      what a round asks
    news.<node>     parent to node      newer metadata is there; a hint, at most once
    event.<node>    node to parent      what happened, stored until the parent took it
    hello.<node>    node to parent      the node is there
    roster.<node>   fog to parent       who came and went below it (`reuna.exchange.roster`)
    whole.<node>    parent to fog       it is to tell that anew
    _INBOX.<node>   private             acknowledgements to that node

Nothing here does I/O. A name is one token, so no name can widen a subject.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

STREAM = "EVENTS"
STORED = "event.>"
MAX_PAYLOAD = 1_000_000  # bytes of one message
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True)
class Rights:
    """Subjects an identity may publish to and subscribe to; everything else is refused."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def is_name(name: str) -> bool:
    """Whether ``name`` may stand as one token of a subject and in a certificate."""
    return _NAME.fullmatch(name) is not None


def inbox(name: str) -> str:
    """Prefix of the private subjects of a node."""
    return f"_INBOX.{name}"


def child_rights(name: str) -> Rights:
    """An edge at its fog, or a fog at the cloud: speaks under its own name only."""
    says, hears = ("event", "hello", "roster"), ("plan", "news", "whole")
    return Rights(
        tuple(f"{word}.{name}" for word in says),
        (*(f"{word}.{name}" for word in hears), f"{inbox(name)}.>"),
    )


def parent_rights(name: str) -> Rights:
    """A fog's gateway or the cloud: plans and news go down; events, hellos and rosters come up."""
    return Rights(
        ("plan.>", "news.>", "whole.>", *_stream_api()),
        ("event.>", "hello.>", "roster.>", f"{inbox(name)}.>"),
    )


CONNECTIONS = "$SYS.REQ.SERVER.PING.CONNZ"  #: asks a hub who is connected
KICK = "$SYS.REQ.SERVER.{server}.KICK"  #: asks it to end one connection


def keeper_rights(name: str) -> Rights:
    """The cloud at its own hub: it also ends connections, for a reload leaves leaf links open."""
    rights = parent_rights(name)
    return Rights((*rights.publish, CONNECTIONS, KICK.format(server="*")), rights.subscribe)


def _stream_api() -> tuple[str, ...]:
    """What keeping and following the one stream takes; deleting and purging are not in it."""
    return (
        f"$JS.API.STREAM.CREATE.{STREAM}",
        f"$JS.API.STREAM.UPDATE.{STREAM}",
        f"$JS.API.STREAM.INFO.{STREAM}",
        f"$JS.API.CONSUMER.DURABLE.CREATE.{STREAM}.*",
        f"$JS.API.CONSUMER.INFO.{STREAM}.*",
        "$JS.ACK.>",
    )


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject falls under a pattern: ``*`` is one token, a last ``>`` one or more."""
    wanted, given = pattern.split("."), subject.split(".")
    for position, wild in enumerate(wanted):
        if wild == ">":
            return len(given) > position
        if position >= len(given) or wild not in ("*", given[position]):
            return False
    return len(wanted) == len(given)


def covers(outer: str, inner: str) -> bool:
    """Whether every subject under ``inner`` also falls under ``outer``."""
    wide, narrow = outer.split("."), inner.split(".")
    for position, wild in enumerate(wide):
        if wild == ">":
            return len(narrow) > position
        if position >= len(narrow) or narrow[position] == ">":
            return False
        if wild not in ("*", narrow[position]):
            return False
    return len(wide) == len(narrow)
