"""Registers of a Modbus device as numbers: which of them are read together, and what their bytes mean.

>>> heat = Register("heat", "degC", "input", 10, "float32", low_word_first=True)
>>> requests([heat, Register("step", "", "input", 12)])[0].count
3
>>> numbers([heat], 10, bytes.fromhex("0000 41a0")).tolist()
[20.0]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from reuna.core.sources import Scaling

AS_IT_IS = Scaling()


@dataclass(frozen=True)
class Type:
    """How many registers a number takes, and its numpy name as big-endian bytes."""

    registers: int
    dtype: str


TABLES = ("coil", "discrete", "input", "holding")
BITS = ("coil", "discrete")
TYPES = {
    "int16": Type(1, ">i2"),
    "uint16": Type(1, ">u2"),
    "int32": Type(2, ">i4"),
    "uint32": Type(2, ">u4"),
    "int64": Type(4, ">i8"),
    "uint64": Type(4, ">u8"),
    "float32": Type(2, ">f4"),
    "float64": Type(4, ">f8"),
    "bool": Type(1, ">u2"),
    "bit": Type(1, ">u2"),
}
MOST_REGISTERS, MOST_BITS = 125, 2000  #: of one request: "MODBUS Application Protocol" 1.1b3, 6.1 to 6.4
#: Exceptions that may be the fault of one register among those asked for: address, value, device failure.
SPLITTING = (2, 3, 4)
EXCEPTIONS = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "server device failure",
    5: "acknowledge",
    6: "server device busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target device failed to respond",
}


@dataclass(frozen=True)
class Register:
    """One tag: the table and address where it stands, and how it is to be understood."""

    name: str
    unit: str
    table: str
    address: int
    type: str = "uint16"
    bit: int = 0
    low_word_first: bool = False
    low_byte_first: bool = False
    scaling: Scaling = AS_IT_IS

    @property
    def count(self) -> int:
        """How many registers or bits it takes."""
        return TYPES[self.type].registers

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.address + self.count


@dataclass(frozen=True)
class Request:
    """What is read with one request: ``count`` registers or bits from ``address`` on."""

    table: str
    address: int
    count: int
    tags: tuple[Register, ...]

    def halves(self) -> tuple[Request, ...]:
        """Two requests for half of the tags each; none where there is only one tag."""
        middle = len(self.tags) // 2
        return (_request(self.tags[:middle]), _request(self.tags[middle:])) if middle else ()


def requests(tags: Iterable[Register], bridge: int = 0) -> list[Request]:
    """The fewest requests in which no more than ``bridge`` registers without a tag are read along."""
    made: list[Request] = []
    ordered = sorted(tags, key=lambda tag: (TABLES.index(tag.table), tag.address, tag.end))
    for table, among in groupby(ordered, key=lambda tag: tag.table):
        made += [
            _request(group)
            for group in _groups(among, MOST_BITS if table in BITS else MOST_REGISTERS, bridge)
        ]
    return made


def _groups(tags: Iterable[Register], most: int, bridge: int) -> Iterator[tuple[Register, ...]]:
    group: list[Register] = []
    end = 0
    for tag in tags:
        if group and (tag.address > end + bridge or max(end, tag.end) - group[0].address > most):
            yield tuple(group)
            group = []
        end = max(end, tag.end) if group else tag.end
        group.append(tag)
    if group:
        yield tuple(group)


def _request(tags: Sequence[Register]) -> Request:
    first = min(tag.address for tag in tags)
    return Request(tags[0].table, first, max(tag.end for tag in tags) - first, tuple(tags))


def numbers(tags: Sequence[Register], address: int, data: bytes) -> NDArray[np.float64]:
    """Raw numbers (tags,) out of the registers from ``address`` on, big-endian as on the wire.

    Whole numbers beyond 2**53 lose their last digits.
    """
    found = np.empty(len(tags))
    raw = np.frombuffer(data, np.uint8)
    for place, tag in enumerate(tags):
        first = 2 * (tag.address - address)
        words = raw[first : first + 2 * tag.count].reshape(-1, 2)
        words = words[:: -1 if tag.low_word_first else 1, :: -1 if tag.low_byte_first else 1]
        number = np.frombuffer(words.tobytes(), TYPES[tag.type].dtype)[0]
        found[place] = _bit(int(number), tag) if tag.type in {"bool", "bit"} else float(number)
    return found


def _bit(number: int, tag: Register) -> float:
    return float(number >> tag.bit & 1) if tag.type == "bit" else float(number != 0)


def bits(tags: Sequence[Register], address: int, found: Sequence[bool]) -> NDArray[np.float64]:
    """Coils or discrete inputs (tags,) as 0 and 1."""
    return np.array([float(found[tag.address - address]) for tag in tags])
