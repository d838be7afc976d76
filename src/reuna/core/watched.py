"""What a node says of its watch over inputs and answers: an event of numbers and names of signals.

Levels are shares of what makes an alarm (`reuna.core.watch`). There is no row in it, and no answer; a site
that gives out counts of some rows at least (``min_cell``) gives out no level of a shorter block and no
smaller count of windows or labels.

>>> said = Watched(project="pumps", rows=600, blocks=9, level=1.5, alarm=True, moved={"oil": 3.2})
>>> read_fields(as_fields(said)) == said
True
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Annotated, Any

import msgspec

from reuna.core.contract_report import MAX_COLUMN
from reuna.core.errors import BadMessage
from reuna.core.foreign import UNREADABLE
from reuna.core.records import Event, Setting

WHAT = "watched"  #: of the event
MOVED = "moved/"  #: before a signal's name
MOST = 64  #: signals that are named
MAX_PROJECT = 200  #: characters of a project's name
NUMBERS = frozenset(
    {"rows", "blocks", "reference", "windows", "safe", "labels", "wrong", "withheld", "windows_withheld"}
    | {"labels_withheld"}
)
SHARES = frozenset({"level", "answers_level", "p50_ms", "p99_ms", "error", "errors_level"})
YES = frozenset({"alarm", "answers_alarm", "errors_alarm"})
WINDOWS = ("windows", "safe")
LABELS = ("labels", "wrong", "error", "errors_level", "errors_alarm")


class Watched(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of a project, the last block. ``rows`` of it; ``blocks`` that were seen; ``reference``: its blocks.

    0 blocks of reference: it is being gathered. ``level``, ``alarm`` and what ``moved``, each signal by how
    many times its usual distance.
    ``answers_level`` and ``answers_alarm``: the same of what the model answers. ``windows`` were answered,
    ``safe`` of them with the safe answer, in ``p50_ms`` and ``p99_ms``. ``labels`` came later for answers of
    the release that runs, ``wrong`` of which say another class; ``error``: of the newest, the share that is
    wrong, or the mean absolute error; ``errors_level`` and ``errors_alarm``: whether errors have risen.
    ``withheld``: 1 where levels stay at the site, and so on for counts.
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
    windows_withheld: int = 0
    project: Annotated[str, msgspec.Meta(max_length=MAX_PROJECT)] = ""
    labels: int = 0
    wrong: int = 0
    error: float = 0.0
    errors_level: float = 0.0
    errors_alarm: bool = False
    labels_withheld: int = 0


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
    say that one was not. So it is with labels and those that say another class.
    """
    told = dict(fields)
    if _few(told, "labels", "wrong", least):
        told = _without(told, LABELS) | {"labels_withheld": 1}
    if _count(fields, "rows") < least:
        stay = told.keys() - {"project", "rows", "blocks", "reference", "labels_withheld", *LABELS}
        return _without(told, stay) | {"withheld": 1}
    if _few(told, "windows", "safe", least):
        told = _without(told, WINDOWS) | {"windows_withheld": 1}
    return told


def kept_by(name: str) -> tuple[str, ...]:
    """The fields that are 1 where a site keeps one, or ``safe_share``, which is made of two.

    >>> kept_by("safe_share"), kept_by("errors_level"), kept_by("rows")
    (('withheld', 'windows_withheld'), ('labels_withheld',), ())
    """
    if name in LABELS:
        return ("labels_withheld",)
    if name in (*WINDOWS, "safe_share"):
        return ("withheld", "windows_withheld")
    return () if name in ("rows", "blocks", "reference") else ("withheld",)


def _few(fields: Mapping[str, Setting], whole: str, part: str, least: int) -> bool:
    """Whether a part of a count, or what is left of it, is smaller than may be told."""
    count = _count(fields, part)
    return any(0 < each < least for each in (count, _count(fields, whole) - count))


def _without(fields: Mapping[str, Setting], names: Collection[str]) -> dict[str, Setting]:
    return {key: value for key, value in fields.items() if key not in names}


def _count(fields: Mapping[str, Setting], name: str) -> int:
    value = fields.get(name, 0)
    return value if isinstance(value, int) else 0


def _sound(key: str, value: Setting) -> bool:
    if key == "project":
        return isinstance(value, str) and len(value) <= MAX_PROJECT
    if key in YES:
        return isinstance(value, bool)
    if key in NUMBERS:
        return type(value) is int and value >= 0
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return number and (key in SHARES or (key.startswith(MOVED) and len(key) <= len(MOVED) + MAX_COLUMN))
