"""What is found when sources and sinks are examined: what is fine, what is doubtful, what is wrong.

Each finding that is not fine says what to do next. Pure: what was seen comes in as numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from reuna.core.sources import BAD, NS, Batch, Gap

FINE, DOUBTFUL, WRONG = LEVELS = ("fine", "doubtful", "wrong")
CHECKS = (
    *("name", "port", "certificate", "password", "source", "gap"),
    *("readings", "quality", "clock", "rate", "stuck", "store"),
    *("folder", "token", "broker", "topic", "node"),
)
AHEAD_S, BEHIND_S = 2.0, 10.0  #: of source times against this machine's clock
RENEW_DAYS = 30  #: a certificate that ends sooner is doubtful
FEWEST = 0.5  #: share of the readings that are declared
STUCK = 10  #: readings of one value, neither 0 nor 1, that are doubtful
MIB = 1 << 20
SHOWN = 5  #: names in one finding


@dataclass(frozen=True)
class Finding:
    """``check``: one of `CHECKS`; ``source``, or sink, is '' for what concerns all."""

    source: str
    check: str
    level: str
    what: str
    next_step: str = ""


@dataclass
class Heard:
    """What came of one tag."""

    readings: int = 0
    bad: int = 0
    code: int = 0  #: of the last bad reading
    low: float = math.inf
    high: float = -math.inf
    newest_ns: int | None = None
    age_s: float = math.nan  #: of the newest reading when it came


@dataclass
class Listened:
    """What came of one source; ``seconds`` from its first reading to the end."""

    tags: dict[str, Heard]
    gaps: list[Gap] = field(default_factory=list)
    seconds: float = 0.0


def hear(listened: Listened, batch: Batch) -> None:
    """Take a batch into what came."""
    listened.gaps = list(dict.fromkeys([*listened.gaps, *batch.gaps]))[-1000:]
    for name, found in batch.columns.items():
        if not len(found):
            continue
        heard = listened.tags[name]
        wrong = found.quality == BAD
        heard.readings += len(found)
        heard.bad += int(wrong.sum())
        if wrong.any() and len(found.codes):
            heard.code = int(found.codes[wrong][-1])
        if not wrong.all():
            heard.low = min(heard.low, float(found.values[~wrong].min()))
            heard.high = max(heard.high, float(found.values[~wrong].max()))
        newest = int(found.times[-1])
        if not batch.historical and (heard.newest_ns is None or newest > heard.newest_ns):
            heard.newest_ns = newest
            heard.age_s = (batch.received_ns - newest) / NS


def judged(source: str, listened: Listened, period_s: float | None) -> list[Finding]:
    """What that tells of a source whose tags are declared to give a reading in ``period_s``."""
    return [
        *_gaps(source, listened.gaps),
        *_readings(source, listened),
        *_clock(source, listened),
        *(_rate(source, listened, period_s) if period_s else ()),
        *_stuck(source, listened),
    ]


def _gaps(source: str, gaps: Iterable[Gap]) -> Iterator[Finding]:
    for reason in dict.fromkeys(gap.reason for gap in gaps):
        yield Finding(source, "gap", DOUBTFUL, reason, "Correct what it names; readings may be missing.")


def _readings(source: str, listened: Listened) -> Iterator[Finding]:
    silent = [name for name, heard in listened.tags.items() if not heard.readings]
    bad = [name for name, heard in listened.tags.items() if heard.readings and heard.bad == heard.readings]
    some = [name for name, heard in listened.tags.items() if 0 < heard.bad < heard.readings]
    if silent:
        step = "Compare where the settings look for them with what the machine has; --seconds waits longer."
        yield Finding(source, "readings", WRONG, f"no reading of {named(silent)}", step)
    for code in sorted({listened.tags[name].code for name in bad}):
        names = [name for name in bad if listened.tags[name].code == code]
        coded = f", code {code}" if code else ""
        step = "Compare their address, type and unit with the machine's manual, and look at the sensor."
        yield Finding(source, "quality", WRONG, f"only bad readings of {named(names)}{coded}", step)
    if some:
        yield Finding(
            source, "quality", DOUBTFUL, f"some bad readings of {named(some)}", "Look at the sensor."
        )
    if not silent and not bad:
        yield Finding(source, "readings", FINE, f"{len(listened.tags)} tags give readings")


def _clock(source: str, listened: Listened) -> Iterator[Finding]:
    ages = [heard.age_s for heard in listened.tags.values() if heard.newest_ns is not None]
    if not ages:
        return
    freshest = min(ages)
    if freshest < -AHEAD_S:
        what = f"its times are {-freshest:.1f} s ahead of this machine's clock"
        yield Finding(source, "clock", WRONG, what, "Set both clocks by the same time server (NTP or PTP).")
    elif freshest > BEHIND_S:
        what = f"its newest reading was {freshest:.1f} s old when it came"
        step = "Set both clocks by the same time server, or look why nothing newer is measured."
        yield Finding(source, "clock", WRONG, what, step)
    else:
        yield Finding(source, "clock", FINE, f"its times are within {max(abs(freshest), 0.1):.1f} s of ours")


def _rate(source: str, listened: Listened, period_s: float) -> Iterator[Finding]:
    expected = listened.seconds / period_s
    if expected < 2:
        return
    slow = [name for name, heard in listened.tags.items() if 0 < heard.readings < FEWEST * expected]
    if slow:
        most = max(listened.tags[name].readings for name in slow)
        what = f"at most {most} readings where {expected:.0f} are declared, of {named(slow)}"
        yield Finding(source, "rate", WRONG, what, "Declare a rate that it keeps, or read fewer tags.")


def _stuck(source: str, listened: Listened) -> Iterator[Finding]:
    stuck = [
        name
        for name, heard in listened.tags.items()
        if heard.readings - heard.bad >= STUCK and heard.low == heard.high and heard.low not in {0.0, 1.0}
    ]
    if stuck:
        what = f"always the same value of {named(stuck)}"
        yield Finding(
            source, "stuck", DOUBTFUL, what, "Compare it with the machine: the sensor may be stuck."
        )


def certificate(source: str, whose: str, seconds_left: float) -> Finding:
    """What the rest of a certificate's life tells."""
    days = seconds_left / 86_400
    if days <= 0:
        return Finding(source, "certificate", WRONG, f"{whose} ended {-days:.0f} days ago", "Renew it.")
    soon = days < RENEW_DAYS
    what = f"{whose} is valid for {days:.0f} days"
    return Finding(source, "certificate", DOUBTFUL if soon else FINE, what, "Renew it." if soon else "")


def room(folder: str, free: int, used: int, most: int) -> Finding:
    """Whether a store can grow to its bound; bytes."""
    missing = most - used - free
    if missing > 0:
        more = f"{(most - used) / MIB:.0f}"
        what = f"the disk of {folder} has {free / MIB:.0f} MiB left, and the store may take {more}"
        step = "Free space, or lower store.mib; else the oldest readings make room sooner."
        return Finding("", "store", WRONG if free < 64 * MIB else DOUBTFUL, what, step)
    return Finding("", "store", FINE, f"the disk of {folder} has {free / MIB:.0f} MiB left")


def room_for_files(sink: str, folder: str, free: int, used: int, most: int) -> Finding:
    """Whether the files of a sink can grow to their bound; bytes."""
    if most - used > free:
        what = f"the disk of {folder} has {free / MIB:.0f} MiB left, and its files may take {most / MIB:.0f}"
        return Finding(sink, "folder", DOUBTFUL, what, "Free space, or lower `mib`.")
    return Finding(sink, "folder", FINE, f"{folder} may be written, with {free / MIB:.0f} MiB left")


def named(names: Sequence[str]) -> str:
    """Some of the names."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
