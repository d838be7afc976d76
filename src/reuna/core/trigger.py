"""What begins a run again by itself, and how often it may: the clock, drift, new nodes or labels. Pure.

>>> nightly = Trigger("pumps-nightly", "r-20261127-104500-3f9a", "02:30")
>>> latest(nightly, 86_400.0 + 3600.0)  # at 01:00 on the second day of 1970
9000.0
>>> run_name(nightly, 9000.0)
'pumps-nightly-19700101-0230'
>>> hourly = Trigger("pumps-hourly", "r-20261127-104500-3f9a", every="1h")
>>> run_name(hourly, latest(hourly, 9000.0))
'pumps-hourly-19700101-020000'
>>> when(Trigger("moved", "r-1", on="drift", machines=2, for_s=600, cooldown_s=86_400))
'when process drifts at 2 machines or more for 600 s, not within 86400 s of the last'
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_S = 86_400.0
SHORTEST_S, LONGEST_S = 10, 31 * 86_400  #: between two times of a schedule with ``every``
_AT = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_EVERY = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_QUIET = re.compile(rf"{_AT.pattern}-{_AT.pattern}")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_FIRST = 3  #: the first day of 1970 was a Thursday

ON = ("drift", "nodes", "data")  #: beside ``clock``, which are schedules
KINDS = ("process", "machine", "sensor", "concept")  #: of findings, see `reuna.loop.monitor`
METRICS = ("level", "answers_level", "errors_level", "safe_share")  #: of what a node says of its watch
MOST_MACHINES = 1_000_000
MOST_ROWS = 10**12  #: that a trigger waits for
MOST_WHY = 300  #: characters of what was seen that stay with a run
YEARS_S = 1e8  #: the longest of any other time here, some three years

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]
Run = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=YEARS_S)]


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most so many runs in any so many days."""

    runs: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    days: Annotated[float, msgspec.Meta(gt=0, le=3660)]


class Trigger(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run that is begun again: with the code, initial model and settings of ``again``, an earlier run.

    ``on`` says by what. The clock: ``at`` is a time of day, UTC, as 02:30, on each of ``days``; or
    ``every`` says how long it is from one time to the next, as 90s, 15m, 6h or 2d. Drift: alarms of
    ``kinds`` that go on and that nobody has seen, or with ``metric`` what nodes tell of it being above
    ``above``. Nodes: those that the last run did not have. Data: ``rows`` labelled rows at all nodes together
    that were not there when each last trained in a run of the project. These three count machines:
    ``machines`` at least, and ``share`` of the fleet, for ``for_s`` seconds.

    Limits of each: no run within ``cooldown_s`` of the one before, ``budget``, none in the ``quiet`` hours,
    as 22:00-06:00, UTC, and with ``approval`` none before a second person agrees. What does not go together
    is told by `mistake`.
    """

    name: Name
    again: Run
    at: Annotated[str, msgspec.Meta(pattern=rf"^({_AT.pattern})?\Z")] = ""
    days: tuple[str, ...] = DAYS
    every: Annotated[str, msgspec.Meta(pattern=rf"^({_EVERY.pattern})?\Z")] = ""
    on: Literal["clock", "drift", "nodes", "data"] = "clock"
    kinds: tuple[Literal["process", "machine", "sensor", "concept"], ...] = ("process",)
    metric: Literal["", "level", "answers_level", "errors_level", "safe_share"] = ""
    above: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 1.0
    rows: Annotated[int, msgspec.Meta(ge=0, le=MOST_ROWS)] = 0
    machines: Annotated[int, msgspec.Meta(ge=1, le=MOST_MACHINES)] = 1
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    for_s: Seconds = 0.0
    cooldown_s: Seconds = 0.0
    budget: Budget | None = None
    quiet: Annotated[str, msgspec.Meta(pattern=rf"^({_QUIET.pattern})?\Z")] = ""
    approval: bool = False


#: Which of the fields are for which ``on``; those of no line are for all.
OWN = {
    "clock": ("at", "days", "every"),
    "drift": ("kinds", "metric", "above", "machines", "share", "for_s"),
    "nodes": ("machines", "share", "for_s"),
    "data": ("rows", "machines", "share", "for_s"),
}


class Sign(msgspec.Struct, frozen=True):
    """One reason to begin a run that is there now: at which nodes, and in words."""

    nodes: tuple[str, ...]
    said: str


def mistake(trigger: Trigger) -> str:
    """What is wrong with a trigger, beginning with the key; or ''."""
    if strange := _strange(trigger):
        others = " or ".join(on for on, names in OWN.items() if strange in names)
        return f"{strange} goes with {others}"
    if trigger.on == "clock":
        return _wrong_clock(trigger)
    if trigger.metric and trigger.kinds != ("process",):
        return "kinds are of alarms, and metric is looked at without one; say one of them"
    if trigger.on == "data" and not trigger.rows:
        return "rows must be at least 1"
    wrong = kinds_of_alarms(trigger.kinds)
    if wrong:
        return f"kinds {wrong}"
    return "" if trigger.cooldown_s else "cooldown_s must be more than 0"


def _strange(trigger: Trigger) -> str:
    """A field that is said and is for another ``on``, or ''."""
    default = Trigger("x", "x")
    known = {name for names in OWN.values() for name in names} - set(OWN[trigger.on])
    wrong = (name for name in sorted(known) if getattr(trigger, name) != getattr(default, name))
    return next(wrong, "")


def _wrong_clock(trigger: Trigger) -> str:
    if bool(trigger.at) == bool(trigger.every):
        return "needs at or every, one of them"
    if trigger.every:
        wrong = interval(trigger.every)
        if not wrong and trigger.days != DAYS:
            return "days go with at"
        return wrong and f"every {wrong}"
    wrong = days_of_week(trigger.days)
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


def quiet_hours(text: str) -> str:
    """What is wrong with hours in which nothing begins, or ''."""
    return "" if _QUIET.fullmatch(text) else 'must be two times of day, UTC, as "22:00-06:00"'


def days_of_week(values: Collection[object]) -> str:
    """What is wrong with days of the week, or ''."""
    return _some(values, DAYS)


def kinds_of_alarms(values: Collection[object]) -> str:
    """What is wrong with kinds of alarms, or ''."""
    return _some(values, KINDS)


def _some(values: Collection[object], known: Collection[str]) -> str:
    right = bool(values) and all(each in known for each in values) and len(set(values)) == len(values)
    return "" if right else f"must be some of {', '.join(known)}"


def latest(trigger: Trigger, now: float) -> float | None:
    """When the clock's was due last, at ``now`` or before (both epoch s); None for one without a day.

    With ``every`` at whole multiples since the epoch, so that a restart does not move them.
    """
    if trigger.every:
        return float(now // _seconds(trigger.every) * _seconds(trigger.every))
    today = int(now // DAY_S)
    for day in range(today, today - 8, -1):
        due = day * DAY_S + _second_of_day(trigger.at)
        if due <= now and DAYS[(day + _FIRST) % 7] in trigger.days:
            return due
    return None


def following(trigger: Trigger, now: float) -> float | None:
    """When the clock's is due next, after ``now``; None for any other."""
    if trigger.on != "clock":
        return None
    if trigger.every:
        return (latest(trigger, now) or 0.0) + _seconds(trigger.every)
    found = (latest(trigger, now + days * DAY_S) for days in range(1, 9))
    return next((due for due in found if due is not None and due > now), None)


def is_quiet(trigger: Trigger, now: float) -> bool:
    """Whether ``now`` (epoch s) is in its quiet hours, which may go over midnight."""
    if not trigger.quiet:
        return False
    begin, end = map(_second_of_day, trigger.quiet.split("-"))
    at = now % DAY_S
    return begin <= at < end if begin <= end else not end <= at < begin


def _second_of_day(text: str) -> float:
    hours, minutes = map(int, text.split(":"))
    return hours * 3600.0 + minutes * 60.0


def run_name(trigger: Trigger, at: float) -> str:
    """The run that is begun at that time: one name for one time, so that it is begun once."""
    moment = datetime.fromtimestamp(at, UTC)
    return f"{trigger.name}-{moment:%Y%m%d-%H%M}" + ("" if trigger.at else f"{moment:%S}")


def reason(trigger: Trigger, signs: Collection[Sign] = ()) -> str:
    """Why the cloud begins its run, as it stands with the run. Names in it are what nodes say."""
    if trigger.on == "clock":
        return f"schedule {trigger.name}"
    told = "; ".join(dict.fromkeys(sign.said for sign in signs))
    said = f"{trigger.on}: {''.join(each if each.isprintable() else '?' for each in told)}"
    return said if len(said) <= MOST_WHY else f"{said[: MOST_WHY - 1]}…"


def when(trigger: Trigger) -> str:
    """When, and how often at most, for people."""
    return ", ".join([_by(trigger), *_limits(trigger)])


def _by(trigger: Trigger) -> str:
    if trigger.every:
        return f"every {trigger.every}"
    if trigger.on == "clock":
        days = "every day" if trigger.days == DAYS else " ".join(trigger.days)
        return f"{days} {trigger.at} UTC"
    if trigger.on == "nodes":
        what = "nodes join that the last run did not have,"
    elif trigger.on == "data":
        what = f"there are {trigger.rows} new labelled rows,"
    else:
        what = f"{' or '.join(trigger.kinds)} drifts at"
    if trigger.metric:
        what = f"{trigger.metric} is above {trigger.above:.15g} at"
    share = f" and {trigger.share:.0%} of the fleet" if trigger.share else ""
    machines = f"{trigger.machines} machine{'s' if trigger.machines > 1 else ''} or more{share}"
    return f"when {what} {machines}" + (f" for {trigger.for_s:.15g} s" if trigger.for_s else "")


def _limits(trigger: Trigger) -> list[str]:
    found = []
    if trigger.cooldown_s:
        found.append(f"not within {trigger.cooldown_s:.15g} s of the last")
    if trigger.budget:
        found.append(f"at most {trigger.budget.runs} in {trigger.budget.days:.15g} days")
    if trigger.quiet:
        found.append(f"not from {trigger.quiet.replace('-', ' to ')} UTC")
    return [*found, "once a second person agrees"] if trigger.approval else found


def as_plain(trigger: Trigger) -> dict[str, Any]:
    """What it says, without its name and the fields that are for others."""
    others = {name for names in OWN.values() for name in names} - set(OWN[trigger.on])
    found: dict[str, Any] = msgspec.to_builtins(trigger)
    return {name: value for name, value in found.items() if name not in others | {"name"}}
