"""Frames: how the local store keeps readings, as blocks of columns that are compressed.

A frame holds readings of one source over at most `SPAN_NS`. Its blocks are in the order of the source's tags,
each tag's readings together: ``counts`` says how many of each. Where all that have some share their
times, these stand there once. Numbers are little-endian; each block is deflated (zlib).

>>> from reuna.core.sources import Batch, column
>>> frame = encode({"a": column([0, 10**9], [1.0, 2.0]), "b": column([0, 10**9], [3.0, 4.0])}, ["a", "b"])
>>> frame.readings, frame.shared
(4, True)
>>> decode(frame, ["a", "b"], ["b"])["b"].values.tolist()
[3.0, 4.0]
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import Corrupted
from reuna.core.sources import BAD, NS, Column

SPAN_NS = 3600 * NS  #: from the first to the last reading of a frame, at most
MAX_READINGS = 65_536  #: of a frame, but for those of one instant
LEVEL = 1  #: of zlib: 0.07 ms for a second of 200 tags at 10 Hz, and 3 to 7 bytes of a value


@dataclass(frozen=True)
class Frame:
    """``first_ns`` and ``last_ns`` are the least and greatest source time; the rest are blocks of bytes."""

    first_ns: int
    last_ns: int
    readings: int
    shared: bool
    counts: bytes
    times: bytes
    values: bytes
    quality: bytes
    codes: bytes


def cut(columns: Mapping[str, Column]) -> Iterator[dict[str, Column]]:
    """Parts of a batch that each fit a frame, in the order of time; nothing for no readings.

    Halved in time until they fit. A batch of minutes stays one part.
    """
    filled = {name: found for name, found in columns.items() if len(found)}
    if not filled:
        return
    first, last = _ends(filled)
    many = sum(map(len, filled.values())) > MAX_READINGS
    if last == first or not (many or last - first > SPAN_NS):
        yield filled
        return
    middle = first + (last - first) // 2 + 1  # both sides have a reading: the first, and the last
    places = {name: int(np.searchsorted(found.times, middle)) for name, found in filled.items()}
    yield from cut({name: found.where(slice(None, places[name])) for name, found in filled.items()})
    yield from cut({name: found.where(slice(places[name], None)) for name, found in filled.items()})


def encode(columns: Mapping[str, Column], tags: Sequence[str]) -> Frame:
    """The frame of some readings, of at least one; ``tags`` are all of the source, in its order."""
    found = [columns[name] for name in tags if name in columns]
    shared = all(_same(found[0].times, each.times) for each in found[1:])
    coded = any(len(each.codes) for each in found)
    first, last = _ends(columns)
    counts = np.array([len(columns.get(name, ())) for name in tags], "<u4")
    return Frame(
        first,
        last,
        int(counts.sum()),
        shared,
        _deflated(counts),
        _deflated(_deltas(found[0].times if shared else np.concatenate([each.times for each in found]))),
        _deflated(np.concatenate([each.values for each in found]).astype("<f8", copy=False)),
        _deflated(np.concatenate([each.quality for each in found])),
        _deflated(np.concatenate([_codes(each) for each in found])) if coded else b"",
    )


def decode(frame: Frame, tags: Sequence[str], wanted: Collection[str]) -> dict[str, Column]:
    """The columns of the wanted tags that have readings in the frame of a source with these tags.

    Raises `Corrupted`.
    """
    counts = _inflated(frame.counts, "<u4", len(tags)).astype(np.int64)
    ends = np.cumsum(counts)
    most = int(counts.max(initial=0))
    if counts.sum() != frame.readings or (frame.shared and not np.isin(counts, (0, most)).all()):
        raise Corrupted(f"a frame says it has {frame.readings} readings, and its tags {counts.sum()}")
    times = np.cumsum(_inflated(frame.times, "<i8", most if frame.shared else frame.readings))
    values = _inflated(frame.values, "<f8", frame.readings)
    quality = _inflated(frame.quality, "<u1", frame.readings)
    codes = _inflated(frame.codes, "<u4", frame.readings) if frame.codes else np.empty(0, np.uint32)
    if (quality > BAD).any():
        raise Corrupted("a frame has a quality that there is not")
    found = {}
    for place, name in enumerate(tags):
        if name in wanted and counts[place]:
            part = slice(int(ends[place] - counts[place]), int(ends[place]))
            own = times if frame.shared else times[part]
            found[name] = Column(own, values[part], quality[part], codes[part])
    return found


def _ends(columns: Mapping[str, Column]) -> tuple[int, int]:
    return (
        min(int(found.times[0]) for found in columns.values()),
        max(int(found.times[-1]) for found in columns.values()),
    )


def _same(one: NDArray[np.int64], two: NDArray[np.int64]) -> bool:
    return one is two or np.array_equal(one, two)


def _codes(found: Column) -> NDArray[Any]:
    return (found.codes if len(found.codes) else np.zeros(len(found), np.uint32)).astype("<u4", copy=False)


def _deltas(times: NDArray[np.int64]) -> NDArray[Any]:
    """Each time as what it is more than the one before: of regular readings a constant. Wraps at 64 bits."""
    return np.diff(times, prepend=np.int64(0)).astype("<i8", copy=False)


def _deflated(block: NDArray[Any]) -> bytes:
    return zlib.compress(block.tobytes(), LEVEL)


def _inflated(block: bytes, kind: str, count: int) -> NDArray[Any]:
    """The numbers of a block, never more bytes than they take."""
    size = count * np.dtype(kind).itemsize
    try:
        reader = zlib.decompressobj()
        data = reader.decompress(block, size) if size else b""
        whole = len(data) == size and not reader.decompress(reader.unconsumed_tail, 1) and reader.eof
    except zlib.error as error:
        raise Corrupted(f"a block of a frame cannot be read: {error}") from error
    if not whole:
        raise Corrupted(f"a block of a frame has not the {size} bytes of its readings")
    return np.frombuffer(data, kind)


def newest_of(parts: Sequence[tuple[bool, Column]]) -> Column:
    """One column of a tag's parts, each historical or live, in the order in which they were kept.

    Of several readings at one time one is left: a live one before a historical one, then the later kept.
    """
    if len(parts) == 1 and _strictly(parts[0][1].times):
        return parts[0][1]
    ordered = sorted(parts, key=lambda part: not part[0])  # stable: historical first
    coded = any(len(part.codes) for _, part in parts)
    times = np.concatenate([part.times for _, part in ordered])
    order = np.argsort(times, kind="stable")
    times = times[order]
    last = np.append(times[1:] != times[:-1], np.ones(min(1, len(times)), bool))
    chosen = order[last]
    return Column(
        times[last],
        np.concatenate([part.values for _, part in ordered])[chosen],
        np.concatenate([part.quality for _, part in ordered])[chosen],
        np.concatenate([_codes(part) for _, part in ordered])[chosen].astype(np.uint32, copy=False)
        if coded
        else np.empty(0, np.uint32),
    )


def _strictly(times: NDArray[np.int64]) -> bool:
    return len(times) < 2 or bool((times[1:] > times[:-1]).all())
