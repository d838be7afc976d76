"""A source of kind ``modbus``: where the device is, and which registers its tags are.

[sources.press]
kind = "modbus"
host = "192.0.2.10"

[sources.press.tags]
oil_pressure = { unit = "bar", table = "input", address = 100, type = "float32", word_order = "little" }
door_open = { table = "discrete", address = 7 }
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reuna.core.modbus import TABLES, TYPES, Register
from reuna.core.settings import Option, between, one_of
from reuna.core.source_kinds import HOST, PORT, Kind, Peer, scaling_of

ORDERS = ("big", "little")
PORT_MODBUS = 502

OPTIONS = (
    HOST,
    PORT,
    Option("device_id", int, 1, "modbus: the device behind the address (unit id)", check=between(0, 255)),
    Option("every_s", float, 1.0, "how often it is looked at", "s", between(0.01, 86_400)),
    Option("timeout_s", float, 3.0, "how long an answer may take", "s", between(0.05, 600)),
    Option("bridge", int, 0, "modbus: registers without a tag that may be read along", check=between(0, 120)),
    Option("word_order", str, "big", "modbus: which register of a number comes first", check=one_of(*ORDERS)),
    Option("byte_order", str, "big", "modbus: which byte of a register comes first", check=one_of(*ORDERS)),
)
TAG = (
    Option("table", str, "holding", "modbus: what kind of register", check=one_of(*TABLES)),
    Option("address", int, 0, "modbus: its address as on the wire, from 0", check=between(0, 65_535)),
    Option("type", str, "", "modbus: what stands there; empty: uint16 or bool", check=one_of("", *TYPES)),
    Option("bit", int, 0, "modbus: which bit of the register, 0 the lowest", check=between(0, 15)),
    Option("word_order", str, "", "modbus: as the source's, for this tag", check=one_of("", *ORDERS)),
    Option("byte_order", str, "", "modbus: as the source's, for this tag", check=one_of("", *ORDERS)),
)


@dataclass(frozen=True)
class ModbusSettings:
    """One source of kind ``modbus``."""

    name: str
    host: str
    tags: tuple[Register, ...]
    port: int = PORT_MODBUS
    device_id: int = 1
    every_s: float = 1.0
    timeout_s: float = 3.0
    bridge: int = 0

    @property
    def kind(self) -> str:
        return "modbus"


def _wrong(name: str, table: Mapping[str, Any]) -> Iterator[str]:
    for tag, said in table["tags"].items():
        place, bits = f"sources.{name}.tags.{tag}", said.get("table") in {"coil", "discrete"}
        kind = said.get("type") or ("bool" if bits else "uint16")
        if "address" not in said:
            yield f"{place} has no address"
        if bits and kind != "bool":
            yield f"{place}.type is {kind}, and a {said['table']} is only ever a bool"
        if ("bit" in said) != (kind == "bit"):
            yield f'{place}: type = "bit" and bit = NUMBER go together'
        if said.get("address", 0) + TYPES[kind].registers > 65_536:
            yield f"{place}.address is {said['address']}, and a {kind} there ends beyond 65535"


def _made(name: str, table: Mapping[str, Any]) -> ModbusSettings:
    tags = tuple(_register(tag, said, table) for tag, said in table["tags"].items())
    rest = {key: table[key] for key in ("device_id", "every_s", "timeout_s", "bridge") if key in table}
    return ModbusSettings(name, table["host"], tags, table.get("port") or PORT_MODBUS, **rest)


def _register(name: str, said: Mapping[str, Any], source: Mapping[str, Any]) -> Register:
    table = said.get("table", "holding")
    kind = said.get("type") or ("bool" if table in {"coil", "discrete"} else "uint16")
    words, octets = (said.get(key) or source.get(key, "big") for key in ("word_order", "byte_order"))
    return Register(
        name,
        said.get("unit", ""),
        table,
        said["address"],
        kind,
        said.get("bit", 0),
        words == "little",
        octets == "little",
        scaling_of(said),
    )


def _peer(settings: ModbusSettings) -> Peer:
    return Peer(settings.host, settings.port)


def _period_s(settings: ModbusSettings) -> float:
    return settings.every_s


MODBUS = Kind("modbus", OPTIONS, TAG, ("host", "tags"), _made, _wrong, _peer, _period_s)
