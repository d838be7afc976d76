"""When a run is begun again: the last time it was due, the next one, and one name for each."""

from __future__ import annotations

import calendar
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.trigger import (
    DAY_S,
    DAYS,
    Trigger,
    days_of_week,
    following,
    interval,
    latest,
    mistake,
    run_name,
    time_of_day,
)

TIMES = st.builds(lambda h, m: f"{h:02d}:{m:02d}", st.integers(0, 23), st.integers(0, 59))
SCHEDULES = st.builds(
    lambda at, days: Trigger("nightly", "r-1", at, tuple(day for day in DAYS if day in days)),
    TIMES,
    st.sets(st.sampled_from(DAYS), min_size=1),
)
NOW = st.floats(10 * DAY_S, 4e9)


def utc(text: str) -> float:
    return float(calendar.timegm(time.strptime(text, "%Y-%m-%d %H:%M")))


def test_it_is_due_on_its_days_at_its_time() -> None:
    weekly = Trigger("weekly", "r-1", "02:30", ("fri",))
    assert latest(weekly, utc("2026-11-27 02:29")) == utc("2026-11-20 02:30")
    assert latest(weekly, utc("2026-11-27 02:30")) == utc("2026-11-27 02:30"), "a Friday"
    assert following(weekly, utc("2026-11-27 02:30")) == utc("2026-12-04 02:30")
    assert run_name(weekly, utc("2026-11-27 02:30")) == "weekly-20261127-0230"


@given(SCHEDULES, NOW)
def test_the_last_time_is_not_in_the_future_and_within_a_week(schedule: Trigger, now: float) -> None:
    due = latest(schedule, now)
    assert due is not None
    assert now - 7 * DAY_S < due <= now
    at = time.gmtime(due)
    assert (f"{at.tm_hour:02d}:{at.tm_min:02d}", DAYS[at.tm_wday]) == (schedule.at, DAYS[at.tm_wday])
    assert DAYS[at.tm_wday] in schedule.days


@given(SCHEDULES, NOW)
def test_nothing_is_due_between_the_last_time_and_the_next(schedule: Trigger, now: float) -> None:
    due, after = latest(schedule, now), following(schedule, now)
    assert due is not None
    assert after is not None
    assert due <= now < after
    assert latest(schedule, after - 1.0) == due
    assert latest(schedule, after) == after
    assert run_name(schedule, after) != run_name(schedule, due)


def test_a_schedule_without_a_day_is_never_due() -> None:
    assert latest(Trigger("never", "r-1", "02:30", ()), 1e9) is None
    assert following(Trigger("never", "r-1", "02:30", ()), 1e9) is None


@pytest.mark.parametrize("text", ["", "2:30", "24:00", "02:60", "02:30\n", "02.30", "٠2:30"])
def test_what_is_no_time_of_day_is_refused(text: str) -> None:
    assert "time of day" in time_of_day(text)
    found = {"name": "n", "again": "r", "at": text}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(found if text else {**found, "every": "1"}, Trigger)


@pytest.mark.parametrize("days", [[], ["so"], ["mon", "mon"], [1], [["mon"]]])
def test_what_are_no_days_is_refused(days: list[object]) -> None:
    assert "mon, tue" in days_of_week(days)


EVERY = st.builds(lambda seconds: Trigger("often", "r-1", every=f"{seconds}s"), st.integers(10, 31 * 86_400))


@given(EVERY, NOW)
def test_with_an_interval_it_is_due_at_multiples_that_no_restart_moves(schedule: Trigger, now: float) -> None:
    due, after, seconds = latest(schedule, now), following(schedule, now), int(schedule.every[:-1])
    assert due is not None
    assert after is not None
    assert due <= now < after
    assert (after - due, due % seconds) == (seconds, 0.0)
    assert run_name(schedule, due) != run_name(schedule, after)
    assert latest(schedule, after) == after


@pytest.mark.parametrize("text", ["", "6", "h", "06h", "0h", "9s", "32d", "1.5h", "6h\n", "1w", "٦h"])
def test_what_is_no_interval_is_refused(text: str) -> None:
    assert interval(text)


def test_a_schedule_has_a_time_of_day_or_an_interval_and_not_both() -> None:
    assert mistake(Trigger("n", "r", "02:30")) == ""
    assert mistake(Trigger("n", "r", every="6h")) == ""
    assert mistake(Trigger("n", "r")) == "needs at or every, one of them"
    assert mistake(Trigger("n", "r", "02:30", every="6h")) == "needs at or every, one of them"
    assert mistake(Trigger("n", "r", every="6h", days=("mon",))) == "days go with at"
    assert mistake(Trigger("n", "r", every="1s")).startswith("every must be from 10 s")
