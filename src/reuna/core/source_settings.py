"""Sources and the store that keeps what they read, as ``sources.toml`` says them.

    [sources.press]
    kind = "files"
    folder = "/data/press"
    time = "time"

    [sources.press.tags.oil_pressure]
    unit = "bar"

    [store]
    folder = "/var/lib/reuna/store"

>>> from reuna.core.settings import Source, parse
>>> press = {"kind": "files", "folder": "/data", "time": "time", "tags": {"oil": {"unit": "bar"}}}
>>> sources_of(parse(SOURCES, [Source("sources.toml", {"sources": {"press": press}})]))[0].tags[0].unit
'bar'
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from reuna.core.errors import SettingsError
from reuna.core.label_settings import LABELS
from reuna.core.label_settings import odd as odd_labels
from reuna.core.modbus_settings import MODBUS, ModbusSettings
from reuna.core.mqtt_settings import MQTT, SPARKPLUG, MqttSettings, SparkplugSettings
from reuna.core.opcua_settings import OPCUA, OpcUaSettings
from reuna.core.settings import Option, between, one_of
from reuna.core.source_kinds import AS_IT_IS, SPEED, Peer, merged, scaling_of, strays, tag_strays
from reuna.core.sources import MAX_NAME, Scaling
from reuna.core.units import same_unit

FURTHER = {kind.name: kind for kind in (OPCUA, MODBUS, MQTT, SPARKPLUG)}  #: kinds that have keys of their own
KINDS = ("files", "replay", *FURTHER)
MIB = 1 << 20
LEAST_MIB = 16  #: of a store: its log of what is not yet in its place takes some of that

TAG: tuple[Option, ...] = (
    Option("unit", str, "", "unit of its values"),
    Option("scale", float, 1.0, "what a raw number is multiplied by"),
    Option("offset", float, 0.0, "what is added then"),
    Option("column", str, "", "column of the file; empty: as the tag is called"),
    Option("quality", str, "", "column, or JSON pointer, that says how good each value is"),
    Option("good", list, [], "what that says of good values; all else is bad"),
    Option("uncertain", list, [], "what it says of uncertain values"),
)


def _sound(table: Mapping[str, Any]) -> str:
    if "kind" not in table:
        return f"has no kind, expected one of {', '.join(KINDS)}"
    needed = FURTHER[table["kind"]].needed if table["kind"] in FURTHER else ("folder", "tags")
    missing = next((name for name in needed if not table.get(name)), "")
    return f"has no {missing}" if missing else ""


def _tag_sound(table: Mapping[str, Any]) -> str:
    if table.get("quality") and not table.get("good"):
        return "names a column of quality but no good values"
    stray = next((name for name in ("good", "uncertain") if table.get(name) and not table.get("quality")), "")
    return f"says what is {stray} but names no column of quality" if stray else ""


EVERY_TAG = merged(TAG, *(kind.tag for kind in FURTHER.values()))
OPTIONS: tuple[Option, ...] = (
    Option("folder", str, "", "folder with its CSV and Parquet files"),
    Option("time", str, "", "column of time, or JSON pointer to it: numbers since the epoch, or ISO 8601"),
    Option("every_s", float, 1.0, "how often it is looked at", "s", between(0.01, 86_400)),
    SPEED,
    Option("repeat", bool, False, "replay: begin again at the end"),
)
SOURCES: tuple[Option, ...] = (
    Option(
        "sources",
        dict,
        {},
        "what is read, each under a name of its own",
        check=_sound,
        each=(
            Option("kind", str, "", "how it is read", check=one_of(*KINDS)),
            *merged(OPTIONS, *(kind.options for kind in FURTHER.values())),
            Option("tags", dict, {}, "its tags", check=_tag_sound, each=EVERY_TAG),
        ),
    ),
    LABELS,
    Option("store.folder", str, "", "folder of the local store; empty: nothing is kept"),
    Option("store.days", float, 30.0, "how long a reading is kept", "days", between(0.001, 36_500)),
    Option("store.mib", int, 1024, "how much the store's files may take", "MiB", between(LEAST_MIB, 1 << 24)),
)


@dataclass(frozen=True)
class TagSettings:
    """One tag of `SOURCES`."""

    name: str
    column: str
    unit: str = ""
    scaling: Scaling = AS_IT_IS
    quality: str = ""
    good: tuple[str, ...] = ()
    uncertain: tuple[str, ...] = ()

    def fits(self, unit: str) -> bool:
        """Whether a column in that unit is what is declared; scaling says that the raw unit is another."""
        return not unit or not self.unit or self.scaling != AS_IT_IS or same_unit(self.unit, unit)


@dataclass(frozen=True)
class SourceSettings:
    """One source of `SOURCES`."""

    name: str
    kind: str
    folder: str
    time: str
    tags: tuple[TagSettings, ...]
    every_s: float = 1.0
    speed: float = 1.0
    repeat: bool = False


@dataclass(frozen=True)
class StoreSettings:
    """How much the local store keeps."""

    folder: str
    days: float = 30.0
    mib: int = 1024


AnySource: TypeAlias = SourceSettings | ModbusSettings | MqttSettings | OpcUaSettings | SparkplugSettings


def sources_of(values: Mapping[str, Any]) -> tuple[AnySource, ...]:
    """The sources that settings of `SOURCES` say. Raises `SettingsError` for all that is not whole."""
    mistakes = [*_mistakes(values["sources"]), *odd_labels(values["labels"])]
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    return tuple(
        FURTHER[table["kind"]].made(name, table) if table["kind"] in FURTHER else _source(name, table)
        for name, table in values["sources"].items()
    )


def peer_of(settings: AnySource) -> Peer | None:
    """Where the other side of a source is; None where it has none."""
    return FURTHER[settings.kind].peer(settings) if settings.kind in FURTHER else None


def period_of(settings: AnySource) -> float | None:
    """Seconds from one reading of a tag to the next, where that is declared."""
    return FURTHER[settings.kind].period_s(settings) if settings.kind in FURTHER else None


def store_of(values: Mapping[str, Any]) -> StoreSettings | None:
    """The store that settings of `SOURCES` say, None where there is none."""
    if not values["store.folder"]:
        return None
    return StoreSettings(values["store.folder"], values["store.days"], values["store.mib"])


def _mistakes(sources: Mapping[str, Any]) -> Iterator[str]:
    """What only the whole can tell."""
    if not sources:
        yield "sources is empty, expected a table [sources.NAME] for each"
    for name, table in sources.items():
        kind = FURTHER.get(table["kind"])
        yield from kind.mistakes(name, table) if kind else _of_files(name, table)
        for tag in table["tags"]:
            if not 0 < len(tag) <= MAX_NAME or not tag.isprintable():
                yield f"sources.{name}.tags: a name has 1 to {MAX_NAME} printable characters"


def _of_files(name: str, table: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a source of kind ``files`` or ``replay``."""
    if not table.get("time"):
        yield f"sources.{name} has no time: the column that says when each reading was taken"
    if table["kind"] != "replay":
        yield from (
            f"sources.{name}.{key} is for a replay, and its kind is {table['kind']}"
            for key in ("speed", "repeat")
            if key in table
        )
    if table["kind"] == "replay" and "every_s" in table:
        yield f"sources.{name}.every_s: a replay gives its readings when they are due"
    yield from strays(name, table, table["kind"], {option.name for option in OPTIONS})
    yield from tag_strays(name, table, {option.name for option in TAG})


def _source(name: str, table: Mapping[str, Any]) -> SourceSettings:
    rest = {key: table[key] for key in ("every_s", "speed", "repeat") if key in table}
    tags = tuple(_tag(tag, said) for tag, said in table["tags"].items())
    return SourceSettings(name, table["kind"], table["folder"], table["time"], tags, **rest)


def _tag(name: str, said: Mapping[str, Any]) -> TagSettings:
    return TagSettings(
        name,
        said.get("column") or name,
        said.get("unit", ""),
        scaling_of(said),
        said.get("quality", ""),
        tuple(map(str, said.get("good", ()))),
        tuple(map(str, said.get("uncertain", ()))),
    )
