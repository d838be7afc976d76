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
    Budget,
    Sign,
    Trigger,
    as_plain,
    days_of_week,
    following,
    interval,
    is_quiet,
    latest,
    mistake,
    quiet_hours,
    reason,
    run_name,
    time_of_day,
    when,
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


MOVED = Trigger("moved", "r-1", on="drift", cooldown_s=60.0)


@pytest.mark.parametrize(
    ("trigger", "wrong"),
    [
        (MOVED, ""),
        (Trigger("n", "r", on="nodes", cooldown_s=60.0), ""),
        (Trigger("n", "r", on="nodes"), "cooldown_s must be more than 0"),
        (Trigger("n", "r", "02:30", on="nodes", cooldown_s=60.0), "at goes with clock"),
        (Trigger("n", "r", "02:30", machines=2), "machines goes with drift or nodes"),
        (Trigger("n", "r", on="nodes", cooldown_s=60.0, metric="level"), "metric goes with drift"),
        (msgspec.structs.replace(MOVED, kinds=("machine",), metric="level"), "kinds are of alarms"),
        (msgspec.structs.replace(MOVED, kinds=()), "kinds must be some of process"),
    ],
)
def test_what_does_not_go_together_is_a_mistake(trigger: Trigger, wrong: str) -> None:
    assert mistake(trigger).startswith(wrong)
    assert bool(mistake(trigger)) == bool(wrong)


def test_quiet_hours_go_over_midnight() -> None:
    night, noon = (msgspec.structs.replace(MOVED, quiet=quiet) for quiet in ("22:00-06:00", "12:00-13:00"))
    told = [is_quiet(night, utc(f"2026-11-27 {at}")) for at in ("21:59", "22:00", "00:00", "05:59", "06:00")]
    assert told == [False, True, True, True, False]
    told = [is_quiet(noon, utc(f"2026-11-27 {at}")) for at in ("11:59", "12:00", "13:00")]
    assert told == [False, True, False]
    assert not is_quiet(MOVED, utc("2026-11-27 00:00"))
    assert [bool(quiet_hours(text)) for text in ("22:00-06:00", "22-06", "24:00-06:00")] == [
        False,
        True,
        True,
    ]


def test_a_reason_is_bounded_however_many_machines_it_is_about() -> None:
    signs = [Sign((f"e{n}",), f"level 1.5 at e{n}") for n in range(1000)]
    found = reason(MOVED, signs)
    assert (len(found), found[:25], found[-1]) == (300, "drift: level 1.5 at e0; l", "…")
    assert reason(Trigger("nightly", "r-1", "02:30"), signs) == "schedule nightly"


def test_what_a_node_calls_its_signals_does_nothing_to_a_terminal() -> None:
    assert reason(MOVED, [Sign(("e1",), "moved: \x1b[2Joil\n")]) == "drift: moved: ?[2Joil?"


def test_what_it_says_is_shown_to_people_with_every_limit() -> None:
    level = Trigger(
        "n", "r", on="drift", metric="level", above=1.5, machines=3, share=0.25, for_s=600, cooldown_s=1_234_567,
        budget=Budget(4, 30), quiet="22:00-06:00", approval=True,
    )  # fmt: skip
    assert when(level) == (
        "when level is above 1.5 at 3 machines or more and 25% of the fleet for 600 s, not within 1234567 s of "
        "the last, at most 4 in 30 days, not from 22:00 to 06:00 UTC, once a second person agrees"
    )
    joins = Trigger("n", "r", on="nodes", cooldown_s=60)
    assert when(joins).startswith("when nodes join that the last run did not have, 1 machine or more")


def test_plain_values_are_those_that_go_with_it() -> None:
    assert as_plain(Trigger("n", "r", "02:30", ("mon",))) == {
        "again": "r", "at": "02:30", "days": ("mon",), "every": "", "on": "clock", "cooldown_s": 0.0,
        "budget": None, "quiet": "", "approval": False,
    }  # fmt: skip
    assert {"kinds", "metric", "machines"} <= set(as_plain(MOVED))
    assert "at" not in as_plain(MOVED)
