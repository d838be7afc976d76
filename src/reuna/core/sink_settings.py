"""Where answers go, as ``sinks.toml`` says it.

    [sinks.archive]
    kind = "file"
    folder = "/var/lib/reuna/answers"

    [sinks.alarms]
    kind = "webhook"
    url = "https://alarms.plant/reuna"
    what = "changes"

A site's policy knows a sink by its address, so that another one is another recipient.

>>> from reuna.core.settings import Source, parse
>>> alarms = {"kind": "webhook", "url": "https://alarms.plant/reuna"}
>>> sinks_of(parse(SINKS, [Source("sinks.toml", {"sinks": {"alarms": alarms}})]))[0].recipient
'https://alarms.plant/reuna'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from reuna.core.errors import SettingsError
from reuna.core.mqtt_settings import BROKER, NAMESPACE, Broker, broker_of, broker_wrong
from reuna.core.opcua_settings import OPTIONS as OPCUA_OPTIONS
from reuna.core.opcua_settings import OpcUaSettings, OpcUaTag, node, node_wrong, security_mistakes, url_wrong
from reuna.core.settings import Option, between, one_of
from reuna.core.sinks import WHATS, Chosen, What, wrong_address
from reuna.core.source_kinds import merged

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
OPCUA_KEYS = ("url", "security", "mode", "certificate", "key", "server_certificate", "trust", "user",
              "password_file")  # fmt: skip
VALUE_TYPES = ("Double", "Float", "Int32", "Boolean")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_URL = re.compile(r"(https?)://([A-Za-z0-9.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?(/[!-~]*)?")

FILE = (
    Option("folder", str, "", "file: folder of its files, an absolute path"),
    Option("format", str, "jsonl", "file: lines of JSON, or CSV", check=one_of("jsonl", "csv")),
    Option("mib", int, 256, "file: all files together; the oldest go first", "MiB", between(2, 1 << 24)),
    Option("file_mib", int, 16, "file: when the next one is begun", "MiB", between(1, 1 << 20)),
)
WEBHOOK = (
    Option("url", str, "", "webhook: https://HOST[:PORT]/PATH; http only on this machine itself"),
    Option("authority", str, "", "file of the authority whose certificate the other side must have (PEM)"),
    Option("certificate", str, "", "file of our certificate, where one is asked for (PEM)"),
    Option("key", str, "", "file of its private key (PEM)"),
    Option("token_file", str, "", "webhook: file whose first line is sent as a bearer token"),
)
OWN_BROKER = tuple(option for option in BROKER if option.name not in ("qos", "session"))
MQTT = (
    *OWN_BROKER,
    Option("topic", str, "", "mqtt: topic of each answer"),
    Option("retain", bool, False, "mqtt: the broker keeps the newest answer"),
)
SPARKPLUG = (
    *OWN_BROKER,
    Option("group", str, "", "sparkplug: the group of the node that tells answers"),
    Option("node", str, "", "sparkplug: the node; opcua: the one node that is written, as nsu=URI;s=NAME"),
)
OPCUA = (
    *(option for option in OPCUA_OPTIONS if option.name in OPCUA_KEYS),
    Option("node", str, "", "sparkplug: the node; opcua: the one node that is written, as nsu=URI;s=NAME"),
    Option("type", str, "Double", "opcua: the type of its value", check=one_of(*VALUE_TYPES)),
    Option("stamp", bool, False, "opcua: with status and source time, which not every server takes"),
)
KINDS: dict[str, tuple[tuple[Option, ...], tuple[str, ...]]] = {
    "file": (FILE, ("folder",)),
    "webhook": (WEBHOOK, ("url",)),
    "mqtt": (MQTT, ("host", "topic")),
    "sparkplug": (SPARKPLUG, ("host", "group", "node")),
    "opcua": (OPCUA, ("url", "node")),
}  #: their own keys, and those that are needed
COMMON = (
    Option(
        "what",
        str,
        "every",
        "every answer, only changes of answer or state, or the node's own alarms",
        check=one_of(*WHATS),
    ),
    Option("project", str, "", "whose answers; empty: those of every project"),
    Option(
        "every_s",
        float,
        10.0,
        "how often what is new goes out, together; each time is an entry of the ledger",
        "s",
        between(0.05, 86_400),
    ),
    Option(
        "keep_s",
        float,
        86_400.0,
        "how long an answer waits for a sink that is away; what is older is dropped and counted",
        "s",
        between(1, 31_536_000),
    ),
)


def _sound(table: Mapping[str, Any]) -> str:
    if "kind" not in table:
        return f"has no kind, expected one of {', '.join(KINDS)}"
    needed = KINDS[table["kind"]][1] if table["kind"] in KINDS else ()
    missing = next((name for name in needed if not table.get(name)), "")
    return f"has no {missing}" if missing else ""


SINKS: tuple[Option, ...] = (
    Option(
        "sinks",
        dict,
        {},
        "where answers go, each under a name of its own",
        check=_sound,
        each=(
            Option("kind", str, "", "how it is reached", check=one_of(*KINDS)),
            *COMMON,
            *merged(*(options for options, _ in KINDS.values())),
        ),
    ),
)


@dataclass(frozen=True)
class FileTarget:
    """Files in a folder."""

    folder: str
    format: str = "jsonl"
    mib: int = 256
    file_mib: int = 16

    @property
    def address(self) -> str:
        return f"file:{self.folder.rstrip('/')}"


@dataclass(frozen=True)
class WebhookTarget:
    """A server that takes JSON."""

    url: str
    authority: str = ""
    certificate: str = ""
    key: str = ""
    token_file: str = ""

    @property
    def address(self) -> str:
        """Without the query, in which a secret may stand."""
        return self.url.partition("?")[0]


@dataclass(frozen=True)
class MqttTarget:
    """A topic of a broker."""

    broker: Broker
    topic: str
    retain: bool = False

    @property
    def address(self) -> str:
        return f"{_at(self.broker)}/{self.topic}"


@dataclass(frozen=True)
class SparkplugTarget:
    """An edge node of its own at a broker."""

    broker: Broker
    group: str
    node: str

    @property
    def address(self) -> str:
        return f"{_at(self.broker)}/{NAMESPACE}/{self.group}/{self.node}"


@dataclass(frozen=True)
class OpcUaTarget:
    """A node of an OPC UA server, by the only tag of ``server``."""

    server: OpcUaSettings
    type: str = "Double"
    stamp: bool = False

    @property
    def address(self) -> str:
        return f"{self.server.url}#{self.server.tags[0].node}".replace(" ", "%20")


Target: TypeAlias = FileTarget | WebhookTarget | MqttTarget | SparkplugTarget | OpcUaTarget


@dataclass(frozen=True)
class SinkSettings:
    """One sink of `SINKS`."""

    name: str
    kind: str
    target: Target
    chosen: Chosen
    every_s: float

    @property
    def recipient(self) -> str:
        """Who it is in a site's policy."""
        return self.target.address


def sinks_of(values: Mapping[str, Any]) -> tuple[SinkSettings, ...]:
    """The sinks that settings of `SINKS` say. Raises `SettingsError` for all that is not whole."""
    mistakes = list(_mistakes(values["sinks"]))
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    found = tuple(_sink(name, table) for name, table in values["sinks"].items())
    first: dict[str, str] = {}
    for each in found:
        wrong = wrong_address(each.recipient)
        if wrong:
            raise SettingsError(f"sinks.{each.name}: its address {each.recipient!r:.220} {wrong}")
        if first.setdefault(each.recipient, each.name) != each.name:
            raise SettingsError(f"sinks.{each.name} and sinks.{first[each.recipient]} go to the same address")
    return found


def _mistakes(sinks: Mapping[str, Any]) -> Iterator[str]:
    """What only the whole can tell."""
    if not sinks:
        yield "sinks is empty, expected a table [sinks.NAME] for each"
    for name, table in sinks.items():
        kind, place = table["kind"], f"sinks.{name}"
        if not _NAME.fullmatch(name):
            yield f"{place}: a name is of a-z, 0-9 and -, at most 63"
        known = {"kind"} | {option.name for option in (*COMMON, *KINDS[kind][0])}
        yield from (f"{place}.{key} is not for a sink of kind {kind}" for key in table if key not in known)
        yield from WRONG[kind](place, table)


def _file_wrong(place: str, table: Mapping[str, Any]) -> Iterator[str]:
    if not table["folder"].startswith("/"):
        yield f"{place}.folder is {table['folder']!r}, expected an absolute path"
    if 2 * table.get("file_mib", 16) > table.get("mib", 256):
        yield f"{place}.mib must be at least twice file_mib, so that two files have room"


def _webhook_wrong(place: str, table: Mapping[str, Any]) -> Iterator[str]:
    found = _URL.fullmatch(table["url"])
    if found is None:
        yield f"{place}.url is {table['url']!r}, expected https://HOST[:PORT]/PATH"
    elif found[1] == "http" and found[2] not in LOOPBACK:
        yield f"{place}.url is {table['url']!r}: what goes to another machine goes by https"
    if bool(table.get("certificate")) != bool(table.get("key")):
        yield f"{place}: certificate and key go together"


def _mqtt_wrong(place: str, table: Mapping[str, Any]) -> Iterator[str]:
    yield from broker_wrong(place, table)
    if any(sign in table["topic"] for sign in "+#\0"):
        yield f"{place}.topic is {table['topic']!r}, and + and # cannot be in it"


def _sparkplug_wrong(place: str, table: Mapping[str, Any]) -> Iterator[str]:
    yield from broker_wrong(place, table)
    for key in ("group", "node"):
        if any(sign in table[key] for sign in "+#/"):
            yield f"{place}.{key} is {table[key]!r}, and +, # and / cannot be in it"


def _opcua_wrong(place: str, table: Mapping[str, Any]) -> Iterator[str]:
    if wrong := url_wrong(table["url"]):
        yield f"{place}.url is {table['url']!r}, {wrong}"
    if wrong := node_wrong(table["node"]):
        yield f"{place}.node is {table['node']!r}, {wrong}"
    yield from security_mistakes(place, table)


WRONG: dict[str, Callable[[str, Mapping[str, Any]], Iterator[str]]] = {
    "file": _file_wrong,
    "webhook": _webhook_wrong,
    "mqtt": _mqtt_wrong,
    "sparkplug": _sparkplug_wrong,
    "opcua": _opcua_wrong,
}


def _sink(name: str, table: Mapping[str, Any]) -> SinkSettings:
    said = {option.name: table.get(option.name, option.default) for option in COMMON}
    chosen = Chosen(cast("What", said["what"]), said["project"], said["keep_s"])
    return SinkSettings(name, table["kind"], _target(name, table), chosen, said["every_s"])


def _at(broker: Broker) -> str:
    return f"{'mqtts' if broker.tls else 'mqtt'}://{broker.host}:{broker.port}"


def _target(name: str, table: Mapping[str, Any]) -> Target:
    if table["kind"] == "opcua":
        own = {key: table[key] for key in OPCUA_KEYS if key in table}
        server = OpcUaSettings(name, tags=(OpcUaTag("answer", node(table["node"])),), **own)
        return OpcUaTarget(server, table.get("type", "Double"), table.get("stamp", False))
    if table["kind"] == "mqtt":
        return MqttTarget(broker_of(table), table["topic"], table.get("retain", False))
    if table["kind"] == "sparkplug":
        return SparkplugTarget(broker_of(table), table["group"], table["node"])
    options = KINDS[table["kind"]][0]
    said = {option.name: table[option.name] for option in options if option.name in table}
    return FileTarget(**said) if table["kind"] == "file" else WebhookTarget(**said)
