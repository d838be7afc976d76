"""What a machine is read through: the port `Source`, and the records that come out of it.

A source has tags, each with a name and a unit. It gives batches; a batch has for each tag one column of
readings: source time, value, quality. Never rows one by one. Where readings may be missing, the batch
has a gap. Nothing in the port can write to a machine: it has no word for it.

>>> pressure = column([0, 10**9], [1.5, float("nan")])
>>> pressure.quality.tolist()
[0, 2]
>>> batch = Batch({"pressure": pressure}, received_ns=2 * 10**9)
>>> check_batch(batch, [Tag("pressure", "bar")])
>>> batch.readings
2
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reuna.core.errors import DataError

#: How far a reading can be trusted. A bad value may be NaN, any other is finite.
GOOD, UNCERTAIN, BAD = 0, 1, 2
QUALITIES = ("good", "uncertain", "bad")
NS = 1_000_000_000  #: nanoseconds of a second
MAX_NAME = 200  #: characters of a tag's name
MAX_REASON = 200  #: characters of why there is a gap

_TYPES = {"times": np.int64, "values": np.float64, "quality": np.uint8, "codes": np.uint32}


@dataclass(frozen=True)
class Tag:
    """One thing that a machine tells, and the unit in which; '' where it has none or does not say."""

    name: str
    unit: str = ""


@dataclass(frozen=True)
class Column:
    """Readings of one tag, in the order of their times; all arrays (readings,).

    ``times``: source time, ns since the epoch; ``quality``: `GOOD`, `UNCERTAIN` or `BAD`; ``codes``: what
    the protocol itself says of the quality, empty where it says nothing more.
    """

    times: NDArray[np.int64]
    values: NDArray[np.float64]
    quality: NDArray[np.uint8]
    codes: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))

    def __len__(self) -> int:
        return len(self.times)

    def where(self, chosen: Any) -> Column:
        """The readings that an index, slice or mask chooses."""
        codes = self.codes[chosen] if len(self.codes) else self.codes
        return Column(self.times[chosen], self.values[chosen], self.quality[chosen], codes)


@dataclass(frozen=True)
class Gap:
    """Between these source times (ns) readings of these tags may be missing; no tags: of all."""

    first_ns: int
    last_ns: int
    reason: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """What came at one time from one source.

    ``historical``: filled in later, or replayed; it never takes the place of what came live.
    """

    columns: Mapping[str, Column]
    received_ns: int
    gaps: tuple[Gap, ...] = ()
    historical: bool = False

    @property
    def readings(self) -> int:
        """How many, of all tags."""
        return sum(map(len, self.columns.values()))


class Source(Protocol):
    """A machine, or what stands for it, to be read.

    ``tags`` are known before anything is read. ``batches`` goes on until the source has no more, or it is
    closed (`aclose`); it connects by itself, again after a break, and marks the gap. What is wrong with a
    single tag or file is quality or a gap; only what stops the whole source is raised (a `ReunaError`).
    """

    @property
    def name(self) -> str: ...
    @property
    def tags(self) -> Sequence[Tag]: ...
    def batches(self) -> AsyncGenerator[Batch, None]: ...


def column(
    times: ArrayLike, values: ArrayLike, quality: ArrayLike | None = None, codes: ArrayLike | None = None
) -> Column:
    """A column of readings in any order: sorted by time, and bad where a value is not finite."""
    moments, numbers = np.asarray(times, np.int64), np.asarray(values, np.float64)
    levels = np.zeros(len(moments), np.uint8) if quality is None else np.asarray(quality, np.uint8)
    made = Column(
        moments,
        numbers,
        np.where(np.isfinite(numbers), levels, np.uint8(BAD)),
        np.empty(0, np.uint32) if codes is None else np.asarray(codes, np.uint32),
    )
    ordered = len(moments) < 2 or bool((moments[1:] >= moments[:-1]).all())
    return made if ordered else made.where(np.argsort(moments, kind="stable"))


def check_tags(tags: Iterable[Tag]) -> None:
    """Raises `DataError` for a name that is empty, too long, not printable, or there twice."""
    seen: set[str] = set()
    for tag in tags:
        if not 0 < len(tag.name) <= MAX_NAME or not tag.name.isprintable():
            raise DataError(f"the tag {tag.name[:40]!r}: a name has 1 to {MAX_NAME} printable characters")
        if tag.name in seen:
            raise DataError(f"the tag {tag.name!r} is there twice")
        seen.add(tag.name)


def check_batch(batch: Batch, tags: Iterable[Tag]) -> None:
    """Raises `DataError` for what no source may give: it names the tag and what is wrong with it."""
    known = {tag.name for tag in tags}
    for name, found in batch.columns.items():
        wrong = _wrong(found) if name in known else "the source has no such tag"
        if wrong:
            raise DataError(f"tag {name!r}: {wrong}")
    for gap in batch.gaps:
        if gap.first_ns > gap.last_ns or not known.issuperset(gap.tags) or len(gap.reason) > MAX_REASON:
            said = gap.reason[:MAX_REASON]
            raise DataError(f"a gap ends before it begins, names an unknown tag or says too much: {said}")


def _wrong(found: Column) -> str:
    for name, kind in _TYPES.items():
        array = getattr(found, name)
        if array.ndim != 1 or array.dtype != kind:
            return (
                f"{name} is {array.dtype} of shape {array.shape}, expected {np.dtype(kind)} of one dimension"
            )
        if len(array) != len(found.times) and not (name == "codes" and not len(array)):
            return f"{len(array)} {name} for {len(found.times)} times"
    if (found.times[1:] < found.times[:-1]).any():
        return "its times are not in order"
    if len(found) and found.quality.max() > BAD:
        return f"quality {found.quality.max()} is none of {GOOD} (good), {UNCERTAIN} (uncertain), {BAD} (bad)"
    if (~np.isfinite(found.values) & (found.quality != BAD)).any():
        return "a value that is not finite has another quality than bad"
    return ""


def joined(batches: Sequence[Batch]) -> Batch:
    """One batch of several of one source, all live or all historical, in the order in which they came.

    Of readings at the same time the later keep their place behind the earlier. Raises `DataError`.
    """
    if not batches or len({batch.historical for batch in batches}) > 1:
        raise DataError("only batches that are all live or all historical can be joined")
    if len(batches) == 1:
        return batches[0]
    parts: dict[str, list[Column]] = {}
    for batch in batches:
        for name, found in batch.columns.items():
            parts.setdefault(name, []).append(found)
    return Batch(
        {name: chained(found) for name, found in parts.items()},
        batches[-1].received_ns,
        tuple(gap for batch in batches for gap in batch.gaps),
        batches[0].historical,
    )


def chained(parts: Sequence[Column]) -> Column:
    """Readings of one tag one after the other, sorted by time; codes are 0 where only others have some."""
    coded = any(len(part.codes) for part in parts)
    codes = [part.codes if len(part.codes) else np.zeros(len(part), np.uint32) for part in parts]
    return column(
        np.concatenate([part.times for part in parts] or [np.empty(0, np.int64)]),
        np.concatenate([part.values for part in parts] or [np.empty(0)]),
        np.concatenate([part.quality for part in parts] or [np.empty(0, np.uint8)]),
        np.concatenate(codes) if coded else None,
    )


@dataclass(frozen=True)
class Scaling:
    """How a raw number becomes one in the tag's unit: ``raw * scale + offset``."""

    scale: float = 1.0
    offset: float = 0.0

    def __call__(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """(readings,) raw numbers in the tag's unit."""
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite becomes bad
            return raw if self == Scaling() else raw * self.scale + self.offset


def ns_of(seconds: float) -> int:
    """Nanoseconds of seconds; whole seconds stay exact."""
    part, whole = math.modf(seconds)
    return int(whole) * NS + round(part * NS)
