"""When a run is begun again: days of the week and a time of day, UTC. Pure.

>>> nightly = Schedule("pumps-nightly", "r-20261127-104500-3f9a", "02:30")
>>> latest(nightly, 86_400.0 + 3600.0)  # at 01:00 on the second day of 1970
9000.0
>>> run_name(nightly, 9000.0)
'pumps-nightly-19700101-0230'
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Annotated

import msgspec

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_S = 86_400.0
_AT = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_FIRST = 3  #: the first day of 1970 was a Thursday

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]
Run = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")]


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run that is begun again: with the code, initial model and settings of ``again``, an earlier run.

    ``at`` is a time of day, UTC, as 02:30, on each of ``days``.
    """

    name: Name
    again: Run
    at: Annotated[str, msgspec.Meta(pattern=rf"^{_AT.pattern}\Z")]
    days: tuple[str, ...] = DAYS


def time_of_day(text: str) -> str:
    """What is wrong with a time of day, or ''."""
    return "" if _AT.fullmatch(text) else 'must be a time of day, UTC, as "02:30"'


def days_of_week(values: Collection[object]) -> str:
    """What is wrong with days of the week, or ''."""
    known = bool(values) and all(each in DAYS for each in values)
    return "" if known and len(set(values)) == len(values) else f"must be some of {', '.join(DAYS)}"


def latest(schedule: Schedule, now: float) -> float | None:
    """When it was due last, at ``now`` or before (both epoch s); None for a schedule without a day."""
    hours, minutes = map(int, schedule.at.split(":"))
    today = int(now // DAY_S)
    for day in range(today, today - 8, -1):
        due = day * DAY_S + hours * 3600.0 + minutes * 60.0
        if due <= now and DAYS[(day + _FIRST) % 7] in schedule.days:
            return due
    return None


def following(schedule: Schedule, now: float) -> float | None:
    """When it is due next, after ``now``."""
    found = (latest(schedule, now + days * DAY_S) for days in range(1, 9))
    return next((due for due in found if due is not None and due > now), None)


def run_name(schedule: Schedule, due: float) -> str:
    """The run that is begun then: one name for one time, so that it is begun once."""
    return f"{schedule.name}-{datetime.fromtimestamp(due, UTC):%Y%m%d-%H%M}"
