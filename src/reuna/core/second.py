"""A second opinion: the windows that an edge is unsure of, and what the bigger model at the fog says of them.

edge ──Doubtful──▶ fog          edge ◀──Opinions── fog
"""

from __future__ import annotations

import math
from typing import Annotated

import msgspec

from reuna.core.outcomes import Outcome, Second, Word

MOST_WINDOWS = 64  #: in one question
MOST_ROWS = 1 << 20  #: of one window
MOST_SIGNALS = 10_000
MOST_NUMBERS = 4096  #: of one output
MAX_TIME = 2**62  #: ns

#: Values as float64 and whether each is of good quality, one byte each; both of so many rows.
Packed = tuple[bytes, bytes]
Count = Annotated[int, msgspec.Meta(ge=0, le=MOST_ROWS)]
Moment = Annotated[int, msgspec.Meta(ge=-MAX_TIME, le=MAX_TIME)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Window(msgspec.Struct, frozen=True):
    """One window: its signals' cells in ``count`` rows; the first ``before`` only mend those that follow.

    ``first_ns``: the moment of the first row, source time.
    """

    first_ns: Moment
    before: Count
    count: Count
    cells: dict[str, Packed]


class Doubtful(msgspec.Struct, frozen=True):
    """What an edge asks its fog. ``units`` of the signals; rows are ``every_s`` apart by the contract, and
    ``every_ns`` in the source's time. After ``within_s`` nobody waits for the answer any more.
    """

    project: Name
    every_s: float
    every_ns: Annotated[int, msgspec.Meta(ge=1, le=MAX_TIME)]
    units: Annotated[dict[str, str], msgspec.Meta(max_length=MOST_SIGNALS)]
    windows: Annotated[tuple[Window, ...], msgspec.Meta(min_length=1, max_length=MOST_WINDOWS)]
    within_s: Annotated[float, msgspec.Meta(ge=0, le=600)]


class Opinion(msgspec.Struct, frozen=True):
    """Of one window, as in `Outcome`; ``sure`` when it is no safe answer."""

    sure: bool
    mended: bool
    answer: float | None
    output: Annotated[tuple[float, ...], msgspec.Meta(max_length=MOST_NUMBERS)] = ()
    why: Annotated[str, msgspec.Meta(max_length=400)] = ""


class Opinions(msgspec.Struct, frozen=True):
    """What the fog says, a window each in the order asked; by which release of the project."""

    version: int
    release: Annotated[str, msgspec.Meta(max_length=64)]
    windows: tuple[Opinion, ...]


def opinion(outcome: Outcome) -> Opinion:
    """What the fog passes on of an outcome of its own."""
    sure = outcome.state != "safe"
    return Opinion(sure, outcome.state == "mended", outcome.answer, outcome.output, outcome.why)


def decided(
    own: Outcome, project: str, opinions: Opinions, said: Opinion, why: str, took_ms: float
) -> Outcome:
    """The outcome of a window once the fog has spoken: the fog's where it is sure, else the edge's own."""
    if not said.sure or said.answer is None or not all(map(math.isfinite, (said.answer, *said.output))):
        return alone(own, project, "unsure", why, took_ms)
    second = Second("answered", project, opinions.version, opinions.release, own.answer, took_ms)
    return msgspec.structs.replace(
        own,
        state="mended" if said.mended else "answered",
        answer=said.answer,
        output=said.output,
        why="; ".join(filter(None, (f"unsure: {why}", said.why))),
        took_ms=own.took_ms + took_ms,
        fog=second,
    )


def alone(own: Outcome, project: str, word: Word, why: str, took_ms: float = 0.0) -> Outcome:
    """The edge's own outcome, marked: why the fog was to be asked, and what became of that."""
    parts = (f"unsure: {why}", f"fog: {word}", own.why if own.why != why else "")
    return msgspec.structs.replace(
        own,
        why="; ".join(filter(None, parts)),
        took_ms=own.took_ms + took_ms,
        fog=Second(word, project, own=own.answer, took_ms=took_ms),
    )
