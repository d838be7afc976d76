"""Messages as readings: JSON or plain numbers, by topic. What cannot be read is told once for each reason.

A message without the place that a tag points to has no reading of it. Null, text that is no number, and a
message that cannot be read are bad readings. A message that the broker had retained and that says no time
may be old: its readings are uncertain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from reuna.core.foreign import UNREADABLE
from reuna.core.gathered import Gathered
from reuna.core.json_pointer import NOTHING, at
from reuna.core.mqtt_settings import MqttSettings, MqttTag
from reuna.core.source_tables import MOST_NS, instant_ns, number_of
from reuna.core.sources import BAD, GOOD, MAX_REASON, UNCERTAIN, Batch, Gap
from reuna.core.topics import least, matches

MAX_KNOWN = 10_000  #: topics whose tags are remembered
MAX_TOLD = 1000  #: kinds of trouble that are remembered, so that each is told once


class MessageReader:
    """Messages of one source, until they go on as a batch."""

    def __init__(self, settings: MqttSettings) -> None:
        self._settings = settings
        self._gathered = Gathered()
        self._tags: dict[str, tuple[MqttTag, ...]] = {}
        self._told: set[tuple[str, str]] = set()
        self._gaps: list[Gap] = []

    @property
    def topics(self) -> Sequence[str]:
        """What has to be subscribed to."""
        return least(tag.topic for tag in self._settings.tags)

    def take(self, topic: str, payload: bytes, retained: bool, now_ns: int) -> None:
        """One message, which came at ``now_ns``."""
        document = decoded(payload)
        for tag in self._of(topic):
            value = at(document, tag.value)
            if document is NOTHING or value is not NOTHING:
                self._read(tag, topic, document, value, retained, now_ns)

    def collected(self, now_ns: int) -> list[Batch]:
        """What came since the last time."""
        columns, gaps, self._gaps = self._gathered.taken(), tuple(self._gaps), []
        return [Batch(columns, now_ns, gaps)] if columns or gaps else []

    def broken(self) -> None:
        """The connection was lost: nothing to be forgotten."""

    def _read(self, tag: MqttTag, topic: str, document: Any, value: Any, retained: bool, now_ns: int) -> None:
        number = number_in(value) * tag.scaling.scale + tag.scaling.offset
        quality = quality_in(at(document, tag.quality), tag) if tag.quality is not None else GOOD
        time_ns: int | None = now_ns
        trouble = "" if math.isfinite(number) else "no number where the value is expected"
        if document is NOTHING:
            trouble = "a message is no JSON"
        elif tag.time is not None:
            time_ns = time_in(at(document, tag.time), self._settings.time_unit_ns)
            trouble = trouble or ("" if time_ns is not None else "no time where one is expected")
        elif retained:
            quality = max(quality, UNCERTAIN)
        if trouble:
            quality = BAD
            self._trouble(topic, tag, trouble, now_ns)
        self._gathered.add(tag.name, now_ns if time_ns is None else time_ns, number, quality)

    def _of(self, topic: str) -> tuple[MqttTag, ...]:
        found = self._tags.get(topic)
        if found is None:
            if len(self._tags) >= MAX_KNOWN:
                self._tags.clear()
            found = tuple(tag for tag in self._settings.tags if matches(tag.topic, topic))
            self._tags[topic] = found
        return found

    def _trouble(self, topic: str, tag: MqttTag, reason: str, now_ns: int) -> None:
        if (tag.name, reason) in self._told:
            return
        if len(self._told) >= MAX_TOLD:
            self._told.clear()
        self._told.add((tag.name, reason))
        self._gaps.append(Gap(now_ns, now_ns, f"{topic}: {reason}"[:MAX_REASON], (tag.name,)))


def decoded(payload: bytes) -> Any:
    """The document of a message: JSON, else a number as text; `NOTHING` where it is neither."""
    try:
        return msgspec.json.decode(payload)
    except UNREADABLE:
        pass
    try:
        text = payload[:100].decode().strip()
    except UnicodeDecodeError:
        return NOTHING
    return text if len(payload) <= 100 and not math.isnan(number_of(text)) else NOTHING


def number_in(value: Any) -> float:
    """A number, true and false as 1 and 0, text that is a number; NaN for all else."""
    if isinstance(value, str):
        return number_of(value)
    if not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def time_in(value: Any, unit_ns: int) -> int | None:
    """Nanoseconds since the epoch: a number in that unit, or ISO 8601; None where it is neither."""
    if isinstance(value, str):
        found = instant_ns(value)
        return time_in(number_of(value), unit_ns) if found is None else found
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not abs(value) < MOST_NS / unit_ns:  # also NaN
        return None
    part, whole = (0.0, value) if isinstance(value, int) else math.modf(value)
    return int(whole) * unit_ns + round(part * unit_ns)


def quality_in(said: Any, tag: MqttTag) -> int:
    """What the tag's settings call good or uncertain; all else is bad."""
    return GOOD if _among(said, tag.good) else UNCERTAIN if _among(said, tag.uncertain) else BAD


def _among(said: Any, words: Sequence[str]) -> bool:
    if isinstance(said, bool):
        return str(said).lower() in map(str.lower, words)
    if isinstance(said, str):
        return said in words
    return isinstance(said, int | float) and any(number_of(word) == said for word in words)
