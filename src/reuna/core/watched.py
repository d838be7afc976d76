"""What a node says of its watch over inputs and answers: an event of numbers and names of signals.

Levels are shares of what makes an alarm (`reuna.core.watch`). There is no row in it, and no answer; a site
that gives out counts of some rows at least (``min_cell``) gives out no level of a shorter block and no
smaller count of windows.

>>> said = Watched(rows=600, blocks=9, reference=100, level=1.5, alarm=True, moved={"oil": 3.2})
>>> read_fields(as_fields(said)) == said
True
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from reuna.core.contract_report import MAX_COLUMN
from reuna.core.errors import BadMessage
from reuna.core.foreign import UNREADABLE
from reuna.core.records import Event, Setting

WHAT = "watched"  #: of the event
MOVED = "moved/"  #: before a signal's name
MOST = 64  #: signals that are named
NUMBERS = frozenset({"rows", "blocks", "reference", "windows", "safe", "withheld"})
SHARES = frozenset({"level", "answers_level", "p50_ms", "p99_ms"})
YES = frozenset({"alarm", "answers_alarm"})


class Watched(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last block. ``rows`` of a block; ``blocks`` that were looked at; ``reference``: blocks of it.

    0 blocks of reference: it is being gathered. ``level``, ``alarm`` and what ``moved``, each signal by how
    many times its usual distance.
    ``answers_level`` and ``answers_alarm``: the same of what the model answers. ``windows`` were answered,
    ``safe`` of them with the safe answer, in ``p50_ms`` and ``p99_ms``. ``withheld``: 1 where levels stay.
    """

    rows: int = 0
    blocks: int = 0
    reference: int = 0
    level: float = 0.0
    alarm: bool = False
    moved: dict[str, float] = {}
    answers_level: float = 0.0
    answers_alarm: bool = False
    windows: int = 0
    safe: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    withheld: int = 0


def as_fields(said: Watched) -> dict[str, Setting]:
    """An event's fields."""
    fields: dict[str, Setting] = msgspec.to_builtins(said)
    fields.pop("moved", None)
    named = sorted(said.moved.items(), key=lambda each: -each[1])[:MOST]
    return fields | {MOVED + name: distance for name, distance in named if len(name) <= MAX_COLUMN}


def read_fields(fields: Mapping[str, Setting]) -> Watched:
    """What an event says. Raises `BadMessage`."""
    moved = {key.removeprefix(MOVED): value for key, value in fields.items() if key.startswith(MOVED)}
    rest: dict[str, Any] = {key: value for key, value in fields.items() if not key.startswith(MOVED)}
    try:
        return msgspec.convert({**rest, "moved": moved}, Watched)
    except UNREADABLE as error:
        raise BadMessage(f"what a node watches cannot be read: {error}") from error


def is_watched(event: Event) -> bool:
    """Whether an event says of the data nothing but what `as_fields` does."""
    moved = [key for key in event.fields if key.startswith(MOVED)]
    sound = all(_sound(key, value) for key, value in event.fields.items())
    return event.what == WHAT and len(moved) <= MOST and sound


def without_small(fields: Mapping[str, Setting], least: int) -> dict[str, Setting]:
    """Without levels and names, where a block has fewer rows than ``least``, and without small counts.

    Of windows those that were answered and those that got the safe answer are both looked at: 99 of 100
    say that one was not.
    """
    rows = _count(fields, "rows")
    if rows < least:
        told = {key: value for key, value in fields.items() if key in ("rows", "blocks", "reference")}
        return {**told, "withheld": 1}
    windows, safe = _count(fields, "windows"), _count(fields, "safe")
    small = [part for part in (windows - safe, safe) if 0 < part < least]
    return {key: value for key, value in fields.items() if not small or key not in ("windows", "safe")}


def _count(fields: Mapping[str, Setting], name: str) -> int:
    value = fields.get(name, 0)
    return value if isinstance(value, int) else 0


def _sound(key: str, value: Setting) -> bool:
    if key in YES:
        return isinstance(value, bool)
    if key in NUMBERS:
        return type(value) is int and value >= 0
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return number and (key in SHARES or (key.startswith(MOVED) and len(key) <= len(MOVED) + MAX_COLUMN))
