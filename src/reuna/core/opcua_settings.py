"""The source kind `opcua` in ``sources.toml``: options, records, and how a node is named.

    [sources.press]
    kind = "opcua"
    url = "opc.tcp://10.0.0.7:4840"
    certificate = "/etc/reuna/opcua/client.der"
    key = "/etc/reuna/opcua/client.key"
    server_certificate = "/etc/reuna/opcua/server.der"

    [sources.press.tags]
    oil_pressure = { node = "nsu=http://example.com/press;s=Oil.Pressure", unit = "bar" }

>>> node("nsu=http://example.com/press;s=Oil.Pressure")
Node(namespace='http://example.com/press', kind='s', identifier='Oil.Pressure')
>>> node("ns=2;i=1001"), node("i=2258").namespace
(Node(namespace=2, kind='i', identifier=1001), 0)
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from reuna.core.settings import TCP_PORT, Between, Option, between, one_of
from reuna.core.source_kinds import AS_IT_IS, SPEED, Kind, Peer, scaling_of
from reuna.core.sources import Scaling
from reuna.core.units import read_unit, same_unit

PORT = 4840  #: where a url names none
MAX_NODE = 4096  #: characters of a node's identifier, as the protocol has it
MAX_QUEUE = 100_000
QUEUED_S = 10.0  #: how long the server keeps readings while the line is slow, where `queue` says nothing
POLICIES = ("none", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss")
Mode = Literal["Sign", "SignAndEncrypt"]
Stamp = Literal["source", "server", "arrival"]
POSITIVE = Between(0, 1e300)


@dataclass(frozen=True)
class Node:
    """A node: its namespace as URI or index, kind ``i`` (number), ``s``, ``g`` (UUID) or ``b`` (bytes)."""

    namespace: str | int
    kind: str
    identifier: int | str | uuid.UUID | bytes

    def __str__(self) -> str:
        said: str = (
            base64.b64encode(self.identifier).decode()
            if isinstance(self.identifier, bytes)
            else str(self.identifier)
        )
        if isinstance(self.namespace, str):
            escaped = self.namespace.replace("%", "%25").replace(";", "%3B")
            return f"nsu={escaped};{self.kind}={said}"
        return f"ns={self.namespace};{self.kind}={said}" if self.namespace else f"{self.kind}={said}"


def node(text: str) -> Node:
    """The node that a text names, as in OPC UA part 6, 5.3.1.10. Raises `ValueError`, which says why."""
    namespace: str | int = 0
    head, separator, rest = text.partition(";")
    if separator and head.startswith("nsu="):
        namespace, text = _ESCAPED.sub(lambda found: _ESCAPES[found[0].upper()], head[4:]), rest
        if not namespace:
            raise ValueError("has no namespace after nsu=")
    elif separator and head.startswith("ns="):
        if not (head[3:].isascii() and head[3:].isdigit() and int(head[3:]) < 1 << 16):
            raise ValueError("has no index between 0 and 65535 after ns=")
        namespace, text = int(head[3:]), rest
    kind, equals, said = text.partition("=")
    if not equals or kind not in _IDENTIFIERS or len(said) > MAX_NODE:
        raise ValueError('is no node: write "nsu=URI;s=NAME", "ns=2;i=1001", or g= or b= instead')
    return Node(namespace, kind, _IDENTIFIERS[kind](said))


def _number(said: str) -> int:
    if not (said.isascii() and said.isdigit() and len(said) <= 10 and int(said) < 1 << 32):
        raise ValueError("has no number between 0 and 4294967295 after i=")
    return int(said)


def _name(said: str) -> str:
    if not said:
        raise ValueError("has no name after s=")
    return said


def _uuid(said: str) -> uuid.UUID:
    try:
        return uuid.UUID(said)
    except ValueError:
        raise ValueError("has no UUID after g=") from None


def _bytes(said: str) -> bytes:
    try:
        return base64.b64decode(said, validate=True)
    except binascii.Error:
        raise ValueError("has no base64 after b=") from None


_IDENTIFIERS: Mapping[str, Any] = {"i": _number, "s": _name, "g": _uuid, "b": _bytes}


_ESCAPED, _ESCAPES = re.compile("%25|%3b", re.IGNORECASE), {"%25": "%", "%3B": ";"}


def node_wrong(text: str) -> str:
    """What is wrong with the text of a node, or ''."""
    try:
        node(text)
    except ValueError as error:
        return str(error)
    return ""


_URL = re.compile(
    r"opc\.tcp://(\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^\s/:\[\]]+))(:(?P<port>\d{1,5}))?(/\S*)?"
)


def url_wrong(text: str) -> str:
    """What is wrong with the address of a server, or ''."""
    if "@" in text:
        return "must have no user in it: say `user` and `password_file`"
    found = _URL.fullmatch(text)
    good = found and not TCP_PORT(int(found["port"] or PORT))
    return "" if good else "must be opc.tcp://HOST:PORT, with a port between 1 and 65535"


OPTIONS: tuple[Option, ...] = (
    Option("every_s", float, 1.0, "how often it is looked at", "s", between(0.01, 86_400)),
    Option("url", str, "", "opcua: address of the server, opc.tcp://HOST:PORT", check=url_wrong),
    Option("security", str, "Basic256Sha256", "opcua: security policy", check=one_of(*POLICIES)),
    Option("mode", str, "SignAndEncrypt", "opcua: its mode", check=one_of("Sign", "SignAndEncrypt")),
    Option("certificate", str, "", "file of our certificate, where one is asked for (PEM, opcua also DER)"),
    Option("key", str, "", "file of its private key (PEM, opcua also DER)"),
    Option("server_certificate", str, "", "opcua: the one certificate that the server must show"),
    Option(
        "trust",
        str,
        "",
        "opcua: folder with servers' certificates and authorities that are trusted, and CRLs",
    ),
    Option("user", str, "", "name to sign in with"),
    Option("password_file", str, "", "file whose first line is the password"),
    Option("publish_s", float, 0.5, "opcua: how often the server sends what it has", "s", between(0.02, 60)),
    Option(
        "queue",
        int,
        0,
        "opcua: readings of a tag that the server keeps until it sends; 0: 10 s of them",
        check=between(0, MAX_QUEUE),
    ),
    Option(
        "unchanged_s",
        float,
        10.0,
        "opcua: a value that did not change is given again after so long; 0: never",
        "s",
        between(0, 86_400),
    ),
    Option("restamped", bool, False, "opcua: a value that did not change and has a newer time is sent too"),
    Option(
        "timestamps",
        str,
        "source",
        "opcua: whose time a reading has",
        check=one_of("source", "server", "arrival"),
    ),
    Option(
        "silence_s",
        float,
        10.0,
        "opcua: after so long without a sign of life the connection is lost",
        "s",
        between(1, 600),
    ),
    Option(
        "backfill_s",
        float,
        86_400.0,
        "opcua: how far back a gap is filled from the server's history; 0: never",
        "s",
        between(0, 31_622_400),
    ),
    Option(
        "clock_s",
        float,
        60.0,
        "opcua: how far the server's clock may be from this machine's; 0: not looked at",
        "s",
        between(0, 1e9),
    ),
    SPEED,
)
TAG: tuple[Option, ...] = (
    Option("node", str, "", "opcua: its node, as nsu=URI;s=NAME or ns=INDEX;i=NUMBER", check=node_wrong),
    Option("every_s", float, 0.0, "opcua: sampling of this tag alone", "s", between(0.001, 86_400)),
    Option("queue", int, 0, "opcua: queue of this tag alone", check=between(0, MAX_QUEUE)),
    Option("deadband", float, 0.0, "opcua: smaller changes are not sent, in the tag's unit", check=POSITIVE),
    Option(
        "deadband_percent",
        float,
        0.0,
        "opcua: the same in percent of the range that the server declares",
        "%",
        between(0, 100),
    ),
)


@dataclass(frozen=True)
class OpcUaTag:
    """One tag: ``every_s`` its sampling, ``queue`` readings kept by the server.

    ``deadband``: in the server's own numbers; ``percent``: of the server's range instead.
    """

    name: str
    node: Node
    unit: str = ""
    scaling: Scaling = AS_IT_IS
    every_s: float = 1.0
    queue: int = 1
    deadband: float = 0.0
    percent: bool = False

    def fits(self, unit: str) -> bool:
        """Whether the server's unit is what is declared, as far as both can be read.

        Scaling says that the raw unit is another.
        """
        if not unit or not self.unit or self.scaling != AS_IT_IS or same_unit(self.unit, unit):
            return True
        return read_unit(self.unit) is None or read_unit(unit) is None


@dataclass(frozen=True)
class OpcUaSettings:
    """One source of kind `opcua`."""

    name: str
    url: str
    tags: tuple[OpcUaTag, ...]
    security: str = "Basic256Sha256"
    mode: Mode = "SignAndEncrypt"
    certificate: str = ""
    key: str = ""
    server_certificate: str = ""
    trust: str = ""
    user: str = ""
    password_file: str = ""
    publish_s: float = 0.5
    unchanged_s: float = 10.0
    restamped: bool = False
    timestamps: Stamp = "source"
    silence_s: float = 10.0
    backfill_s: float = 86_400.0
    clock_s: float = 60.0
    speed: float = 1.0  #: of a simulated machine, against life
    kind: Literal["opcua"] = "opcua"

    @property
    def host(self) -> str:
        """Of the server, for messages and certificates."""
        found = _URL.fullmatch(self.url)
        return (found["six"] or found["host"]) if found else ""

    @property
    def port(self) -> int:
        """Of the server."""
        found = _URL.fullmatch(self.url)
        return int((found and found["port"]) or PORT)


def _wrong(name: str, table: Mapping[str, Any]) -> Iterator[str]:
    """What only the whole of a source can tell, each line beginning with a setting's name."""
    path = f"sources.{name}"
    yield from security_mistakes(path, table)
    for tag, said in table["tags"].items():
        if not said.get("node"):
            yield f"{path}.tags.{tag} has no node"
        if said.get("deadband") and said.get("deadband_percent"):
            yield f"{path}.tags.{tag}.deadband_percent: there is a deadband already, say one of the two"


def security_mistakes(path: str, table: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with how a server is to be reached; ``path`` is the table's name."""
    if table.get("security") == "none":
        for key in ("mode", "certificate", "key", "server_certificate", "trust", "password_file"):
            if table.get(key):
                yield f"{path}.{key}: its security is none"
        if table.get("user"):
            yield f"{path}.user: a password would travel where anyone can read it; its security is none"
        return
    for key in ("certificate", "key"):
        if not table.get(key):
            yield (
                f'{path} has no {key}: make one with `reuna source certificate`, or say security = "none" '
                "where the network itself is trusted"
            )
    if not table.get("server_certificate") and not table.get("trust"):
        yield f"{path} does not say whom it trusts: server_certificate or trust"
    if bool(table.get("user")) != bool(table.get("password_file")):
        yield f"{path}.user and password_file belong together"


def _made(name: str, table: Mapping[str, Any]) -> OpcUaSettings:
    """The source that a table without mistakes says."""
    own = {option.name: table[option.name] for option in OPTIONS if option.name in table}
    queue = own.pop("queue", 0)
    every_s = float(own.pop("every_s", 1.0))
    tags = tuple(_tag(tag, said, every_s, queue) for tag, said in table["tags"].items())
    return OpcUaSettings(name, own.pop("url"), tags, **own)


def _tag(name: str, said: Mapping[str, Any], every_s: float, queue: int) -> OpcUaTag:
    scaling = scaling_of(said)
    sampling = float(said.get("every_s", every_s))
    absolute = float(said.get("deadband", 0.0))
    return OpcUaTag(
        name,
        node(said["node"]),
        said.get("unit", ""),
        scaling,
        sampling,
        said.get("queue") or queue or min(MAX_QUEUE, max(2, round(QUEUED_S / sampling))),
        absolute / abs(scaling.scale) if absolute and scaling.scale else said.get("deadband_percent", 0.0),
        bool(said.get("deadband_percent")),
    )


def _peer(settings: OpcUaSettings) -> Peer:
    """Its security is the protocol's own: there is no TLS. A password leaves encrypted or not at all."""
    return Peer(settings.host, settings.port)


OPCUA = Kind("opcua", OPTIONS, TAG, ("url", "tags"), _made, _wrong, _peer)
