"""The fog's own MQTT listener for machines of its site: who signs in there, and which topics are whose.

    [mqtt]
    listen_port = 8883
    [mqtt.users.press-3]
    password_file = "/etc/reuna/press-3.password"
    publish = ["plant/press-3/#"]

Users live in an account of their own: no subject of Reuna's is in it, so none can be named.

>>> subjects("plant/+/oil"), subjects("plant/#"), subjects("spBv1.0/a/NDATA/b")
(('plant.*.oil',), ('plant', 'plant.>'), ('spBv1//0.a.NDATA.b',))
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reuna.core.errors import SettingsError
from reuna.core.settings import Option
from reuna.core.topics import wrong_filter

MOST_USERS = 256
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_LEVEL = re.compile(r"[A-Za-z0-9_.:-]+|\+|#")

USER = (
    Option("password_file", str, "", "file with the password, or its bcrypt hash, on its first line"),
    Option("publish", list, [], "topics that it may say something on, with + and #"),
    Option("subscribe", list, [], "topics that it may read, with + and #"),
)


@dataclass(frozen=True)
class MachineUser:
    """Who may sign in. ``publish`` and ``subscribe`` are MQTT filters; without any nothing is allowed."""

    name: str
    password: str
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()


@dataclass(frozen=True)
class MqttListener:
    """Bounds hold for all its clients together, ``payload`` for each message."""

    port: int
    users: tuple[MachineUser, ...]
    connections: int = 64
    payload: int = 65_536
    store_mib: int = 32


def wrong_user(name: str, said: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a user of the settings."""
    place = f"mqtt.users.{name}"
    if not _NAME.fullmatch(name):
        yield f"{place}: a name is of letters, digits, _ and -, at most 63"
    if not said.get("password_file"):
        yield f"{place} has no password_file"
    if not said.get("publish") and not said.get("subscribe"):
        yield f"{place} may neither publish nor subscribe to anything"
    for key in ("publish", "subscribe"):
        for each in said.get(key, ()):
            if wrong := _wrong_topic(each):
                yield f"{place}.{key} has {each!r}, {wrong}"


def _wrong_topic(topic: Any) -> str:
    if not isinstance(topic, str):
        return "expected text"
    if wrong := wrong_filter(topic):
        return wrong
    levels = topic.split("/")
    if levels[0] in {"+", "#"}:
        return "must begin with a name: not with + or #"
    return "" if all(map(_LEVEL.fullmatch, levels)) else "has signs other than letters, digits and _ . : -"


def check_users(users: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises `SettingsError` with everything that is wrong."""
    mistakes = [each for name, said in users.items() for each in wrong_user(name, said)]
    if not users:
        mistakes.append("mqtt.listen_port is set, and mqtt.users names nobody")
    if len(users) > MOST_USERS:
        mistakes.append(f"mqtt.users names {len(users)}, at most {MOST_USERS}")
    if mistakes:
        raise SettingsError("\n".join(mistakes))


def subjects(topic: str) -> tuple[str, ...]:
    """The subjects of nats-server that a filter stands for there; a dot in a level is two slashes."""
    levels = [{"+": "*", "#": ">"}.get(level, level.replace(".", "//")) for level in topic.split("/")]
    whole = ".".join(levels)
    return (".".join(levels[:-1]), whole) if levels[-1] == ">" else (whole,)
