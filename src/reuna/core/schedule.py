"""When a run is begun again: days of the week and a time of day, UTC, or after so long each time. Pure.

>>> nightly = Schedule("pumps-nightly", "r-20261127-104500-3f9a", "02:30")
>>> latest(nightly, 86_400.0 + 3600.0)  # at 01:00 on the second day of 1970
9000.0
>>> run_name(nightly, 9000.0)
'pumps-nightly-19700101-0230'
>>> hourly = Schedule("pumps-hourly", "r-20261127-104500-3f9a", every="1h")
>>> run_name(hourly, latest(hourly, 9000.0))
'pumps-hourly-19700101-020000'
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Annotated

import msgspec

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_S = 86_400.0
SHORTEST_S, LONGEST_S = 10, 31 * 86_400  #: between two times of a schedule with ``every``
_AT = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_EVERY = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_FIRST = 3  #: the first day of 1970 was a Thursday

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]
Run = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")]


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run that is begun again: with the code, initial model and settings of ``again``, an earlier run.

    ``at`` is a time of day, UTC, as 02:30, on each of ``days``; or ``every`` says how long it is from one
    time to the next, as 90s, 15m, 6h or 2d. One of the two is '', see `mistake`.
    """

    name: Name
    again: Run
    at: Annotated[str, msgspec.Meta(pattern=rf"^({_AT.pattern})?\Z")] = ""
    days: tuple[str, ...] = DAYS
    every: Annotated[str, msgspec.Meta(pattern=rf"^({_EVERY.pattern})?\Z")] = ""


def mistake(schedule: Schedule) -> str:
    """What is wrong with a schedule, beginning with the key; or ''."""
    if bool(schedule.at) == bool(schedule.every):
        return "needs at or every, one of them"
    if schedule.every:
        wrong = interval(schedule.every)
        if not wrong and schedule.days != DAYS:
            return "days go with at"
        return wrong and f"every {wrong}"
    wrong = days_of_week(schedule.days)
    return wrong and f"days {wrong}"


def interval(text: str) -> str:
    """What is wrong with the time from one run to the next, or ''."""
    if not _EVERY.fullmatch(text):
        return 'must be a number of s, m, h or d, as "6h"'
    fits = SHORTEST_S <= _seconds(text) <= LONGEST_S
    return "" if fits else f"must be from {SHORTEST_S} s to {LONGEST_S // 86_400} days"


def _seconds(every: str) -> int:
    return int(every[:-1]) * _UNITS[every[-1]]


def time_of_day(text: str) -> str:
    """What is wrong with a time of day, or ''."""
    return "" if _AT.fullmatch(text) else 'must be a time of day, UTC, as "02:30"'


def days_of_week(values: Collection[object]) -> str:
    """What is wrong with days of the week, or ''."""
    known = bool(values) and all(each in DAYS for each in values)
    return "" if known and len(set(values)) == len(values) else f"must be some of {', '.join(DAYS)}"


def latest(schedule: Schedule, now: float) -> float | None:
    """When it was due last, at ``now`` or before (both epoch s); None for a schedule without a day.

    With ``every`` at whole multiples since the epoch, so that a restart does not move them.
    """
    if schedule.every:
        return float(now // _seconds(schedule.every) * _seconds(schedule.every))
    hours, minutes = map(int, schedule.at.split(":"))
    today = int(now // DAY_S)
    for day in range(today, today - 8, -1):
        due = day * DAY_S + hours * 3600.0 + minutes * 60.0
        if due <= now and DAYS[(day + _FIRST) % 7] in schedule.days:
            return due
    return None


def following(schedule: Schedule, now: float) -> float | None:
    """When it is due next, after ``now``."""
    if schedule.every:
        return (latest(schedule, now) or 0.0) + _seconds(schedule.every)
    found = (latest(schedule, now + days * DAY_S) for days in range(1, 9))
    return next((due for due in found if due is not None and due > now), None)


def run_name(schedule: Schedule, due: float) -> str:
    """The run that is begun then: one name for one time, so that it is begun once."""
    at = datetime.fromtimestamp(due, UTC)
    return f"{schedule.name}-{at:%Y%m%d-%H%M}" + (f"{at:%S}" if schedule.every else "")


def reason(schedule: Schedule) -> str:
    """Why the cloud begins its runs, as it stands with each of them."""
    return f"schedule {schedule.name}"


def times(schedule: Schedule) -> str:
    """When, for people."""
    if schedule.every:
        return f"every {schedule.every}"
    return f"{'every day' if schedule.days == DAYS else ' '.join(schedule.days)} {schedule.at} UTC"
