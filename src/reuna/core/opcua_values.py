"""What an OPC UA server says, as readings: quality from status codes, columns of a notification, units.

>>> [QUALITIES[level] for level in quality_of(np.array([0, 0x40910000, 0x80340000], np.uint32))]
['good', 'uncertain', 'bad']
>>> unit_text("", 4408652, CEFACT)
'degC'
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from reuna.core.opcua_settings import OpcUaTag
from reuna.core.sources import BAD, QUALITIES, Column
from reuna.core.units import read_unit

__all__ = [
    "CEFACT",
    "QUALITIES",
    "Heard",
    "Latest",
    "columns",
    "follows",
    "overflowed",
    "quality_of",
    "unit_text",
]

BAD_TYPE = 0x80740000  #: BadTypeMismatch: a value that is no number
OVERFLOW = 0x480  #: info type "data value" with the bit that says the queue was full
CEFACT = "http://www.opcfoundation.org/UA/units/un/cefact"
#: Codes of UN/CEFACT recommendation 20 that plants use, where the server gives no text that can be read.
CODES = {
    "CEL": "degC", "FAH": "degF", "KEL": "K", "BAR": "bar", "MBR": "mbar", "PAL": "Pa", "A97": "hPa",
    "KPA": "kPa", "MPA": "MPa", "PS": "psi", "P1": "%", "HTZ": "Hz", "KHZ": "kHz", "RPM": "rpm", "VLT": "V",
    "2Z": "mV", "KVT": "kV", "AMP": "A", "4K": "mA", "OHM": "ohm", "WTT": "W", "KWT": "kW", "MAW": "MW",
    "KWH": "kWh", "JOU": "J", "KJO": "kJ", "NEW": "N", "B47": "kN", "NU": "N*m", "MTR": "m", "CMT": "cm",
    "MMT": "mm", "4H": "um", "MTS": "m/s", "C16": "mm/s", "MSK": "m/s**2", "MTQ": "m**3", "LTR": "L",
    "MLT": "mL", "MQH": "m**3/h", "MQS": "m**3/s", "L2": "L/min", "KGM": "kg", "GRM": "g", "TNE": "t",
    "KGS": "kg/s", "E93": "kg/h", "KMQ": "kg/m**3", "SEC": "s", "C26": "ms", "MIN": "min", "HUR": "h",
    "DAY": "d", "DD": "deg", "C81": "rad", "59": "ppm",
}  # fmt: skip


@dataclass
class Heard:
    """Readings of several tags as they came, one list for each part; ``tags`` are places in the settings."""

    tags: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tags)

    def add(self, tag: int, time_ns: int, value: object, code: int) -> None:
        """One reading; what is no number is bad, with NaN for a value."""
        if isinstance(value, int | float):  # a bool is 0 or 1
            number = _float(value)
        else:
            number, code = float("nan"), code if code >> 30 else BAD_TYPE
        self.tags.append(tag)
        self.times.append(time_ns)
        self.values.append(number)
        self.codes.append(code)

    def extend(self, others: Heard) -> None:
        """Others behind these."""
        self.tags.extend(others.tags)
        self.times.extend(others.times)
        self.values.extend(others.values)
        self.codes.extend(others.codes)


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def quality_of(codes: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Good, uncertain or bad of each status code: its two highest bits; what the protocol reserves is bad."""
    levels: NDArray[np.uint8] = np.minimum(codes >> 30, BAD).astype(np.uint8)
    return levels


def columns(tags: Sequence[OpcUaTag], heard: Heard) -> dict[str, Column]:
    """The columns of what was heard, each in order of its times, in the tags' units."""
    if not len(heard):
        return {}
    places, times = np.array(heard.tags, np.int64), np.array(heard.times, np.int64)
    order = np.lexsort((times, places))
    places, times = places[order], times[order]
    values = np.array(heard.values, np.float64)[order]
    codes = np.array(heard.codes, np.uint32)[order]
    quality = quality_of(codes)
    found, edges = {}, [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), len(places)]
    for first, last in pairwise(edges):
        tag, part = tags[places[first]], slice(first, last)
        numbers = tag.scaling(values[part])
        level = np.where(np.isfinite(numbers), quality[part], np.uint8(BAD))
        found[tag.name] = Column(times[part], numbers, level, codes[part])
    return found


@dataclass
class Latest:
    """The last reading of each tag: servers send what changes, and no more.

    >>> latest, heard = Latest(), Heard()
    >>> heard.add(0, 5, 1.5, 0)
    >>> latest.note(heard)
    >>> again = Heard()
    >>> latest.repeat(again, 20, 10)
    >>> again.times, again.values
    ([20], [1.5])
    """

    _readings: dict[int, tuple[int, float, int]] = field(default_factory=dict)

    def note(self, heard: Heard) -> None:
        """Take what came."""
        for tag, time_ns, value, code in zip(heard.tags, heard.times, heard.values, heard.codes, strict=True):
            self._readings[tag] = time_ns, value, code

    def time_ns(self, tag: int) -> int | None:
        """When the last reading of a tag was taken; None: there was none."""
        found = self._readings.get(tag)
        return found[0] if found else None

    def repeat(self, heard: Heard, now_ns: int, after_ns: int) -> None:
        """Add the readings that are so old to what was heard: the server just said that nothing changed."""
        for tag, (time_ns, value, code) in self._readings.items():
            if time_ns <= now_ns - after_ns:
                plain = code & ~OVERFLOW if code & OVERFLOW == OVERFLOW else code
                heard.add(tag, now_ns, value, plain)


def overflowed(heard: Heard) -> list[tuple[int, int]]:
    """Tag and time of each reading before which the server threw others away: its queue was full."""
    return [
        (tag, time_ns)
        for tag, time_ns, code in zip(heard.tags, heard.times, heard.codes, strict=True)
        if code & OVERFLOW == OVERFLOW
    ]


def follows(before: int, number: int) -> bool:
    """Whether a notification is the one after another; after the greatest number comes 1."""
    return number == (before + 1 if before < (1 << 32) - 1 else 1)


def unit_text(shown: str, code: int, namespace: str) -> str:
    """The unit that a server declares: as it shows it, or by its code where that text cannot be read."""
    if shown and read_unit(shown):
        return shown
    letters = code.to_bytes(4, "big").lstrip(b"\0").decode("ascii", "replace") if 0 < code < 1 << 31 else ""
    return CODES.get(letters, shown) if namespace == CEFACT else shown
