"""Sources of kind ``mqtt`` and ``sparkplug``: the broker, and in which messages their tags are.

[sources.line]
kind = "mqtt"
host = "broker.plant"
authority = "ca.pem"
time = "/t"

[sources.line.tags]
oil_pressure = { unit = "bar", topic = "plant/press/hydraulics", value = "/oil/pressure" }
room = { unit = "degC", topic = "plant/+/room" }

[sources.robot]
kind = "sparkplug"
host = "broker.plant"
group = "plant"
node = "robot"

[sources.robot.tags]
torque = { unit = "N.m", device = "axis-1", metric = "Drive/Torque" }
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reuna.core.json_pointer import parsed, wrong_pointer
from reuna.core.settings import Option, one_of
from reuna.core.source_kinds import AS_IT_IS, HOST, PORT, Kind, Peer, scaling_of
from reuna.core.sources import Scaling
from reuna.core.topics import wrong_filter

NAMESPACE = "spBv1.0"  #: of Sparkplug B
PORT_PLAIN, PORT_TLS = 1883, 8883
TIME_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}

BROKER = (
    HOST,
    PORT,
    Option("tls", bool, False, "mqtt: TLS with the machine's authorities; those below switch it on too"),
    Option("authority", str, "", "file of the authority whose certificate the other side must have (PEM)"),
    Option("certificate", str, "", "file of our certificate, where one is asked for (PEM)"),
    Option("key", str, "", "file of its private key (PEM)"),
    Option("user", str, "", "name to sign in with"),
    Option("password_file", str, "", "file whose first line is the password"),
    Option("client_id", str, "", "mqtt: name towards the broker; empty: another one each time"),
    Option("session", bool, False, "mqtt: the broker keeps messages while we are away"),
    Option("qos", int, 0, "mqtt: 0 at most once, 1 at least once, 2 exactly once", check=one_of(0, 1, 2)),
)
OPTIONS = (
    *BROKER,
    Option("time", str, "", "time of a message"),
    Option("time_unit", str, "s", "mqtt: unit of times that are numbers", check=one_of(*TIME_UNITS)),
)
TAG = (
    Option("topic", str, "", "mqtt: topic of its messages, with + and #"),
    Option("value", str, "", "mqtt: JSON pointer to its value; empty: the message is the value"),
    Option("time", str, "", "mqtt: JSON pointer to its time; empty: as the source's"),
    Option("quality", str, "", "column, or JSON pointer, that says how good each value is"),
    Option("good", list, [], "what is said of good values"),
    Option("uncertain", list, [], "what is said of uncertain values"),
)
SPARKPLUG_OPTIONS = (
    *BROKER,
    Option("group", str, "", "sparkplug: the group of the node"),
    Option("node", str, "", "sparkplug: the edge node"),
    Option("rebirth", bool, False, "sparkplug: ask the node for its birth when needed: a write"),
)
SPARKPLUG_TAG = (
    Option("device", str, "", "sparkplug: the device; empty: the node itself"),
    Option("metric", str, "", "sparkplug: the metric; empty: as the tag is called"),
)


@dataclass(frozen=True)
class Broker:
    """How a broker is reached."""

    host: str
    port: int = PORT_PLAIN
    tls: bool = False
    authority: str = ""
    certificate: str = ""
    key: str = ""
    user: str = ""
    password_file: str = ""
    client_id: str = ""
    session: bool = False
    qos: int = 0


@dataclass(frozen=True)
class MqttTag:
    """One tag: its messages, and where in them value, time and quality are; None: the message says none."""

    name: str
    unit: str
    topic: str
    value: tuple[str, ...] = ()
    time: tuple[str, ...] | None = None
    quality: tuple[str, ...] | None = None
    good: tuple[str, ...] = ()
    uncertain: tuple[str, ...] = ()
    scaling: Scaling = AS_IT_IS


@dataclass(frozen=True)
class MqttSettings:
    """One source of kind ``mqtt``. ``time_unit_ns``: of times that are numbers."""

    name: str
    broker: Broker
    tags: tuple[MqttTag, ...]
    time_unit_ns: int = TIME_UNITS["s"]

    @property
    def kind(self) -> str:
        return "mqtt"


@dataclass(frozen=True)
class SparkplugTag:
    """One tag: a metric of the node, or of one of its devices."""

    name: str
    unit: str
    metric: str
    device: str = ""
    scaling: Scaling = AS_IT_IS


@dataclass(frozen=True)
class SparkplugSettings:
    """One source of kind ``sparkplug``."""

    name: str
    broker: Broker
    group: str
    node: str
    tags: tuple[SparkplugTag, ...]
    rebirth: bool = False

    @property
    def kind(self) -> str:
        return "sparkplug"


def broker_wrong(place: str, table: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with how a broker is to be reached; ``place`` is the table's name."""
    if bool(table.get("certificate")) != bool(table.get("key")):
        yield f"{place}: certificate and key go together"
    if table.get("password_file") and not table.get("user"):
        yield f"{place}.password_file is set, and there is no user"
    if table.get("session") and not (table.get("client_id") and table.get("qos")):
        yield f"{place}.session needs a client_id, by which the broker knows us again, and qos = 1 or 2"


def _wrong(name: str, table: Mapping[str, Any]) -> Iterator[str]:
    yield from broker_wrong(f"sources.{name}", table)
    if wrong := wrong_pointer(table.get("time", "")):
        yield f"sources.{name}.time is {table['time']!r}, {wrong}"
    for tag, said in table["tags"].items():
        place = f"sources.{name}.tags.{tag}"
        if wrong := wrong_filter(said.get("topic", "")):
            yield f"{place}.topic is {said.get('topic', '')!r}, {wrong}"
        for key in ("value", "time", "quality"):
            if wrong := wrong_pointer(said.get(key, "")):
                yield f"{place}.{key} is {said[key]!r}, {wrong}"


def _sparkplug_wrong(name: str, table: Mapping[str, Any]) -> Iterator[str]:
    yield from broker_wrong(f"sources.{name}", table)
    named = [(f"sources.{name}.{key}", table[key]) for key in ("group", "node")]
    named += [
        (f"sources.{name}.tags.{tag}.device", said.get("device", "")) for tag, said in table["tags"].items()
    ]
    for place, value in named:
        if any(sign in value for sign in "+#/"):
            yield f"{place} is {value!r}, and +, # and / cannot be in it"
    seen: dict[tuple[str, str], str] = {}
    for tag, said in table["tags"].items():
        key = (said.get("device", ""), said.get("metric") or tag)
        if seen.setdefault(key, tag) != tag:
            yield f"sources.{name}.tags.{tag} is the same metric as {seen[key]}"


def broker_of(table: Mapping[str, Any]) -> Broker:
    """The broker of a table with the keys of `BROKER`."""
    said = {option.name: table[option.name] for option in BROKER if option.name in table}
    secure = any(said.get(key) for key in ("tls", "authority", "certificate"))
    port = said.get("port") or (PORT_TLS if secure else PORT_PLAIN)
    return Broker(**{**said, "port": port, "tls": secure})


def _made(name: str, table: Mapping[str, Any]) -> MqttSettings:
    tags = tuple(_tag(tag, said, table.get("time", "")) for tag, said in table["tags"].items())
    return MqttSettings(name, broker_of(table), tags, TIME_UNITS[table.get("time_unit", "s")])


def _tag(name: str, said: Mapping[str, Any], time: str) -> MqttTag:
    time = said.get("time") or time
    return MqttTag(
        name,
        said.get("unit", ""),
        said["topic"],
        parsed(said.get("value", "")),
        parsed(time) if time else None,
        parsed(said["quality"]) if said.get("quality") else None,
        tuple(map(str, said.get("good", ()))),
        tuple(map(str, said.get("uncertain", ()))),
        scaling_of(said),
    )


def _sparkplug(name: str, table: Mapping[str, Any]) -> SparkplugSettings:
    tags = tuple(
        SparkplugTag(
            tag,
            said.get("unit", ""),
            said.get("metric") or tag,
            said.get("device", ""),
            scaling_of(said),
        )
        for tag, said in table["tags"].items()
    )
    return SparkplugSettings(
        name, broker_of(table), table["group"], table["node"], tags, table.get("rebirth", False)
    )


def _peer(settings: MqttSettings | SparkplugSettings) -> Peer:
    broker = settings.broker
    readable = bool(broker.password_file) and not broker.tls
    return Peer(
        broker.host, broker.port, readable, broker.tls, broker.authority, broker.certificate, broker.key
    )


MQTT = Kind("mqtt", OPTIONS, TAG, ("host", "tags"), _made, _wrong, _peer)
SPARKPLUG = Kind(
    "sparkplug",
    SPARKPLUG_OPTIONS,
    SPARKPLUG_TAG,
    ("host", "group", "node", "tags"),
    _sparkplug,
    _sparkplug_wrong,
    _peer,
)
