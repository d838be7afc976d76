"""Sparkplug B as readings: births give names, types and aliases, sequence numbers tell what was lost.

Eclipse Sparkplug 3.0, sections 5 and 6. Until a node's birth was seen, and after a message was lost, its
aliases may mean something else: nothing of it is read until it is born again. After a death all its tags are
bad. Pure: the bytes are decoded, and a request for a birth is sent, by whoever holds the reader.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from reuna.core.errors import BadMessage
from reuna.core.gathered import Gathered
from reuna.core.mqtt_settings import NAMESPACE, SparkplugSettings, SparkplugTag
from reuna.core.source_kinds import AS_IT_IS
from reuna.core.source_tables import MOST_NS, number_of
from reuna.core.sources import BAD, GOOD, MAX_REASON, NS, UNCERTAIN, Batch, Gap
from reuna.core.units import read_unit, same_unit

REBIRTH = "Node Control/Rebirth"
MS = NS // 1000
SIGNED = {1: 8, 2: 16, 3: 32, 4: 64}  #: bits of Int8 to Int64, which travel without a sign
NUMBERS = {*range(1, 12), 13}  #: Int8 to UInt64, Float, Double, Boolean, DateTime (ms)
TEXTS = {12, 14}
STALE = 500  #: property Quality: 0 bad, 192 good, 500 stale; others as in OPC
AGAIN_S = 30  #: between two requests for a birth
MAX_TOLD = 1000

Value: TypeAlias = "int | float | bool | str | None"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; ``value`` is None where it is null or of a type that is neither number nor text."""

    name: str = ""
    alias: int | None = None
    timestamp_ms: int | None = None
    datatype: int = 0
    value: Value = None
    is_null: bool = False
    is_historical: bool = False
    properties: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Payload:
    """What a message holds; ``seq`` 0 to 255, None where there is none."""

    timestamp_ms: int | None
    seq: int | None
    metrics: tuple[Metric, ...]


class SparkplugReader:
    """Messages of one edge node and its devices, until they go on as batches.

    ``decode`` raises `BadMessage` for bytes that are no payload.
    """

    def __init__(self, settings: SparkplugSettings, decode: Callable[[bytes], Payload]) -> None:
        self._settings = settings
        self._decode = decode
        self._tags = {(tag.device, tag.metric): tag for tag in settings.tags}
        self._born: set[str] = set()  #: devices; '' is the node
        self._names: dict[tuple[str, int], str] = {}  #: by device and alias
        self._types: dict[tuple[str, str], int] = {}  #: by device and name
        self._devices = {"", *(tag.device for tag in settings.tags)}  #: those of which anything is kept
        self._foreign: set[str] = set()  #: tags that come in another unit
        self._expected = 0
        self._bd_seq: int | None = None
        self._whole_ns: int | None = None  #: until then nothing was missed
        self._waits = ""  #: why a birth is waited for
        self._wanted = True
        self._asked_ns: int | None = None
        self._live, self._history = Gathered(), Gathered()
        self._gaps: list[Gap] = []
        self._told: set[tuple[str, str]] = set()

    @property
    def topics(self) -> Sequence[str]:
        """What has to be subscribed to."""
        place, node = f"{NAMESPACE}/{self._settings.group}", self._settings.node
        return [
            *(f"{place}/{kind}/{node}" for kind in ("NBIRTH", "NDATA", "NDEATH")),
            *(f"{place}/{kind}/{node}/+" for kind in ("DBIRTH", "DDATA", "DDEATH")),
        ]

    def take(self, topic: str, payload: bytes, retained: bool, now_ns: int) -> None:
        """One message, which came at ``now_ns``."""
        kind, _, device = topic.removeprefix(f"{NAMESPACE}/{self._settings.group}/").partition(
            f"/{self._settings.node}"
        )
        device = device.removeprefix("/")
        if retained and kind != "NBIRTH":
            return  # nobody knows how old it is, and the standard retains none
        try:
            found = self._decode(payload)
        except BadMessage as error:
            self._trouble(topic, f"{topic}: {error.message}", now_ns)
            return
        if kind == "NBIRTH":
            self._birth(found, now_ns)
        elif kind == "NDEATH":
            self._death(found, now_ns)
        elif self._in_order(found, now_ns) and device in self._devices:
            self._of_device(kind, device, found, now_ns)

    def collected(self, now_ns: int) -> list[Batch]:
        """What came since the last time: live, and filled in later."""
        live, history = self._live.taken(), self._history.taken()
        gaps, self._gaps = tuple(self._gaps), []
        return [
            *([Batch(live, now_ns, gaps)] if live or gaps else []),
            *([Batch(history, now_ns, historical=True)] if history else []),
        ]

    def broken(self) -> None:
        """The connection was lost; without a session at the broker, births may have been missed."""
        if not self._settings.broker.session:
            self._lose("the connection to the broker was lost")

    def request(self, now_ns: int) -> tuple[str, Payload] | None:
        """Topic and payload that ask the node for its birth, where that is wanted and not just asked."""
        again = self._asked_ns is None or now_ns - self._asked_ns >= AGAIN_S * NS
        if not (self._settings.rebirth and self._wanted and again):
            return None
        self._asked_ns = now_ns
        ask = Metric(REBIRTH, timestamp_ms=now_ns // MS, datatype=11, value=True)
        topic = f"{NAMESPACE}/{self._settings.group}/NCMD/{self._settings.node}"
        return topic, Payload(now_ns // MS, None, (ask,))

    def _birth(self, found: Payload, now_ns: int) -> None:
        if self._waits:
            first = now_ns if self._whole_ns is None else min(self._whole_ns, now_ns)
            self._gaps.append(Gap(first, now_ns, f"born again after: {self._waits}"[:MAX_REASON]))
        self._born, self._names, self._types = set(), {}, {}
        self._waits, self._wanted = "", False
        self._bd_seq = _bd_seq(found)
        self._expected = ((found.seq or 0) + 1) % 256
        self._whole_ns = now_ns
        self._learn("", found, now_ns)

    def _death(self, found: Payload, now_ns: int) -> None:
        said = _bd_seq(found)
        if self._born and None not in {said, self._bd_seq} and said != self._bd_seq:
            return  # the last will of a connection before this one
        self._lose(f"{self._node} died", wanted=False)
        for tag in self._settings.tags:
            self._live.add(tag.name, now_ns, math.nan, BAD, STALE)

    def _in_order(self, found: Payload, now_ns: int) -> bool:
        """Whether nothing was lost before this message."""
        if not self._born:
            self._waits = self._waits or f"the birth of {self._node} has not been seen"
            self._wanted = True
            self._trouble("", f"waits for a birth: {self._waits}", now_ns)
            return False
        if found.seq != self._expected:
            said = "none" if found.seq is None else found.seq
            self._lose(f"{self._node} sent number {said} where {self._expected} was expected")
            first = now_ns if self._whole_ns is None else min(self._whole_ns, now_ns)
            self._gaps.append(Gap(first, now_ns, self._waits[:MAX_REASON]))
            return False
        self._expected = (self._expected + 1) % 256
        self._whole_ns = now_ns
        return True

    def _of_device(self, kind: str, device: str, found: Payload, now_ns: int) -> None:
        if kind == "DBIRTH":
            self._learn(device, found, now_ns)
        elif kind == "DDEATH":
            self._born.discard(device)
            time_ns = _time_ns(found.timestamp_ms) or now_ns
            for tag in self._settings.tags:
                if tag.device == device:
                    self._live.add(tag.name, time_ns, math.nan, BAD, STALE)
        elif device in self._born:
            self._data(device, found, now_ns)
        else:
            self._wanted = True
            self._trouble(device, f"waits for a birth: that of device {device} has not been seen", now_ns)

    def _learn(self, device: str, found: Payload, now_ns: int) -> None:
        """Names, aliases and types of a birth, and its values."""
        self._born.add(device)
        self._names = {key: name for key, name in self._names.items() if key[0] != device}
        for metric in found.metrics:
            if metric.alias is not None:
                self._names[device, metric.alias] = metric.name
            self._types[device, metric.name] = metric.datatype
        there = {metric.name: metric for metric in found.metrics}
        for tag in self._settings.tags:
            if tag.device == device:
                self._compare(tag, there.get(tag.metric), now_ns)
        self._data(device, found, now_ns)

    def _compare(self, tag: SparkplugTag, metric: Metric | None, now_ns: int) -> None:
        """What is declared and what was born; a number in another unit would be a lie: it is not read."""
        unit = metric.properties.get("engUnit") if metric else None
        self._foreign.discard(tag.name)
        if metric is None:
            self._trouble(tag.name, f"the birth has no metric {tag.metric!r}", now_ns, tag)
        elif isinstance(unit, str) and not _fits(tag, unit):
            self._foreign.add(tag.name)
            self._trouble(tag.name, f"{tag.metric!r} is in {unit}, not in {tag.unit}", now_ns, tag)

    def _data(self, device: str, found: Payload, now_ns: int) -> None:
        for metric in found.metrics:
            name = metric.name or self._names.get((device, metric.alias if metric.alias is not None else -1))
            if not name:
                self._wanted = True
                self._trouble(device, f"alias {metric.alias} was in no birth", now_ns)
            elif (tag := self._tags.get((device, name))) and tag.name not in self._foreign:
                datatype = metric.datatype or self._types.get((device, name), 0)
                self._read(tag, metric, datatype, found.timestamp_ms, now_ns)

    def _read(
        self, tag: SparkplugTag, metric: Metric, datatype: int, sent_ms: int | None, now_ns: int
    ) -> None:
        if not metric.is_null and datatype not in NUMBERS | TEXTS:
            self._trouble(tag.name, f"{tag.metric!r} is of type {datatype}, which is no number", now_ns, tag)
        number = number_in(metric, datatype) * tag.scaling.scale + tag.scaling.offset
        quality, code = _quality(metric.properties.get("Quality"))
        time_ns = _time_ns(sent_ms if metric.timestamp_ms is None else metric.timestamp_ms)
        kept = self._history if metric.is_historical else self._live
        kept.add(tag.name, time_ns or now_ns, number, quality, code)

    def _lose(self, why: str, wanted: bool = True) -> None:
        """Nothing is read before the next birth."""
        self._born, self._waits, self._wanted = set(), why, wanted

    @property
    def _node(self) -> str:
        return f"{self._settings.group}/{self._settings.node}"

    def _trouble(self, what: str, reason: str, now_ns: int, tag: SparkplugTag | None = None) -> None:
        """A gap, told once."""
        if (what, reason) in self._told:
            return
        if len(self._told) >= MAX_TOLD:
            self._told.clear()
        self._told.add((what, reason))
        self._gaps.append(Gap(now_ns, now_ns, reason[:MAX_REASON], (tag.name,) if tag else ()))


def number_in(metric: Metric, datatype: int) -> float:
    """The value as a number, NaN where it is none. Whole numbers have the sign that their type says."""
    value = metric.value
    if metric.is_null or value is None:
        return math.nan
    if datatype in TEXTS or isinstance(value, str):
        return number_of(value) if isinstance(value, str) else math.nan
    if datatype not in NUMBERS:
        return math.nan
    bits = SIGNED.get(datatype)
    if bits and isinstance(value, int):
        low = value & ((1 << bits) - 1)
        return float(low - (1 << bits) if low >> (bits - 1) else low)
    return float(value)


def _quality(said: Value) -> tuple[int, int]:
    """Ours, and the code as it came; OPC's codes have the quality in bits 6 and 7."""
    if isinstance(said, bool) or not isinstance(said, int):
        return GOOD, 0
    code = said & 0xFFFF_FFFF
    if code == STALE or code > 255:
        return BAD, code
    return {3: GOOD, 1: UNCERTAIN}.get(code >> 6, BAD), code


def _fits(tag: SparkplugTag, unit: str) -> bool:
    """Whether a metric in that unit is what is declared, as far as both can be read.

    Scaling says that the raw unit is another.
    """
    if not unit or not tag.unit or tag.scaling != AS_IT_IS or same_unit(tag.unit, unit):
        return True
    return read_unit(tag.unit) is None or read_unit(unit) is None


def _time_ns(ms: int | None) -> int | None:
    return ms * MS if ms and ms * MS < MOST_NS else None


def _bd_seq(found: Payload) -> int | None:
    """The number of the connection, which birth and death share."""
    values = (metric.value for metric in found.metrics if metric.name == "bdSeq")
    return next((value for value in values if isinstance(value, int)), None)
