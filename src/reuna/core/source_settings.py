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
from reuna.core.opcua_settings import (
    OPCUA,
    OPCUA_TAG,
    SHARED,
    TAG_SHARED,
    OpcUaSettings,
    opcua_mistakes,
    opcua_source,
)
from reuna.core.settings import Option, between, one_of
from reuna.core.sources import MAX_NAME, Scaling
from reuna.core.units import same_unit

KINDS = ("files", "replay", "opcua")
MIB = 1 << 20
LEAST_MIB = 16  #: of a store: its log of what is not yet in its place takes some of that

TAG: tuple[Option, ...] = (
    Option("column", str, "", "column of the file; empty: as the tag is called"),
    Option("unit", str, "", "unit of its values"),
    Option("scale", float, 1.0, "what a raw number is multiplied by"),
    Option("offset", float, 0.0, "what is added then"),
    Option("quality", str, "", "column that says how good each value is"),
    Option("good", list, [], "what that column says of good values; all else is bad"),
    Option("uncertain", list, [], "what it says of uncertain values"),
)


def _sound(table: Mapping[str, Any]) -> str:
    if "kind" not in table:
        return f"has no kind, expected one of {', '.join(KINDS)}"
    place = "url" if table["kind"] == "opcua" else "folder"
    missing = next((name for name in (place, "tags") if not table.get(name)), "")
    return f"has no {missing}" if missing else ""


def _tag_sound(table: Mapping[str, Any]) -> str:
    if table.get("quality") and not table.get("good"):
        return "names a column of quality but no good values"
    stray = next((name for name in ("good", "uncertain") if table.get(name) and not table.get("quality")), "")
    return f"says what is {stray} but names no column of quality" if stray else ""


SOURCES: tuple[Option, ...] = (
    Option(
        "sources",
        dict,
        {},
        "what is read, each under a name of its own",
        check=_sound,
        each=(
            Option("kind", str, "", "how it is read", check=one_of(*KINDS)),
            Option("folder", str, "", "folder with its CSV and Parquet files"),
            Option("time", str, "", "column of time: numbers in its unit since the epoch, or ISO 8601"),
            Option("every_s", float, 1.0, "how often it is looked at", "s", between(0.01, 86_400)),
            Option("speed", float, 1.0, "replay: how many times faster", check=between(0.001, 1e6)),
            Option("repeat", bool, False, "replay: begin again at the end"),
            *OPCUA,
            Option("tags", dict, {}, "its tags", check=_tag_sound, each=(*TAG, *OPCUA_TAG)),
        ),
    ),
    Option("store.folder", str, "", "folder of the local store; empty: nothing is kept"),
    Option("store.days", float, 30.0, "how long a reading is kept", "days", between(0.001, 36_500)),
    Option("store.mib", int, 1024, "how much the store's files may take", "MiB", between(LEAST_MIB, 1 << 24)),
)


AS_IT_IS = Scaling()


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


AnySource: TypeAlias = SourceSettings | OpcUaSettings


def sources_of(values: Mapping[str, Any]) -> tuple[AnySource, ...]:
    """The sources that settings of `SOURCES` say. Raises `SettingsError` for all that is not whole."""
    mistakes = list(_mistakes(values["sources"]))
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    return tuple(_source(name, table) for name, table in values["sources"].items())


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
        for tag in table["tags"]:
            if not 0 < len(tag) <= MAX_NAME or not tag.isprintable():
                yield f"sources.{name}.tags: a name has 1 to {MAX_NAME} printable characters"
        yield from _strays(name, table)
        if table["kind"] == "opcua":
            yield from opcua_mistakes(name, table)
            continue
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


def _strays(name: str, table: Mapping[str, Any]) -> Iterator[str]:
    """Keys of another kind than the source's."""
    opcua = table["kind"] == "opcua"
    own, tags = ({each.name for each in options} for options in (OPCUA, OPCUA_TAG))
    for key in table:
        if (key in own) != opcua and key not in SHARED:
            yield f"sources.{name}.{key} is not for the kind {table['kind']}"
    for tag, said in table["tags"].items():
        for key in said:
            if (key in tags) != opcua and key not in TAG_SHARED:
                yield f"sources.{name}.tags.{tag}.{key} is not for the kind {table['kind']}"


def _source(name: str, table: Mapping[str, Any]) -> AnySource:
    if table["kind"] == "opcua":
        return opcua_source(name, table)
    rest = {key: table[key] for key in ("every_s", "speed", "repeat") if key in table}
    tags = tuple(_tag(tag, said) for tag, said in table["tags"].items())
    return SourceSettings(name, table["kind"], table["folder"], table["time"], tags, **rest)


def _tag(name: str, said: Mapping[str, Any]) -> TagSettings:
    return TagSettings(
        name,
        said.get("column") or name,
        said.get("unit", ""),
        Scaling(float(said.get("scale", 1.0)), float(said.get("offset", 0.0))),
        said.get("quality", ""),
        tuple(map(str, said.get("good", ()))),
        tuple(map(str, said.get("uncertain", ()))),
    )
