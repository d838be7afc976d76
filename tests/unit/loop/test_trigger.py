"""Laws of what begins by itself: within its limits, once for each cause, and the same after a restart."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.labelled import Labelled
from reuna.core.trigger import DAY_S, KINDS, Budget, Sign, Trigger, is_quiet
from reuna.core.watched import Watched
from reuna.loop.monitor import Alarm, Finding, Kind, signs
from reuna.loop.trigger import RETRY_S, Began, Seen, decide, due, grown, joined, levels, not_begun, noted

NODES = ("e1", "e2", "e3", "e4")
NOW = 1000 * DAY_S
LOOKS = st.lists(
    st.tuples(
        st.floats(0.5, 40_000.0),  # seconds since the look before
        st.frozensets(st.integers(1, 5)),  # alarms that go on
        st.sampled_from(["", "", "", "run x goes on"]),
        st.booleans(),  # whether the run can be begun
    ),
    max_size=60,
)
RULES = st.builds(
    Trigger,
    st.just("t"),
    st.just("r-1"),
    on=st.just("drift"),
    machines=st.integers(1, 3),
    share=st.sampled_from([0.0, 0.5]),
    for_s=st.sampled_from([0.0, 600.0]),
    cooldown_s=st.sampled_from([1.0, 3600.0, DAY_S]),
    budget=st.none() | st.builds(Budget, st.integers(1, 3), st.sampled_from([0.5, 2.0])),
    quiet=st.sampled_from(["", "22:00-06:00", "01:00-02:00"]),
)
Look = tuple[float, frozenset[int], str, bool]


def seen(alarms: frozenset[int]) -> dict[str, Sign]:
    """Alarm 1 is at e1; 5 is at all of them."""
    return {
        f"alarm/{each}": Sign(NODES if each == 5 else (NODES[each - 1],), f"alarm {each}")
        for each in sorted(alarms)
    }


def lived(rule: Trigger, looks: list[Look], restarts: bool = False) -> list[tuple[float, frozenset[str]]]:
    """When runs were begun and what was there then that had begun none."""
    state, now, found = Began(), NOW, []
    for seconds, alarms, busy, works in looks:
        now += seconds
        if restarts:
            state = msgspec.json.decode(msgspec.json.encode(state), type=Began)
        decided = decide(rule, state, seen(alarms), len(NODES), busy, now)
        if decided.stands == "begins" and not works:
            state = not_begun(rule, state, decided.state, "no blob", now)
            continue
        if decided.stands == "begins":
            found.append((now, frozenset(decided.state.answered) - frozenset(state.answered)))
        state = decided.state
    return found


@given(RULES, LOOKS)
def test_there_are_never_more_runs_than_the_budget_in_any_window(rule: Trigger, looks: list[Look]) -> None:
    times = [at for at, _ in lived(rule, looks)]
    if rule.budget:
        window = rule.budget.days * DAY_S
        assert all(sum(at <= each < at + window for each in times) <= rule.budget.runs for at in times)


@given(RULES, LOOKS)
def test_none_is_begun_within_the_cool_down_or_in_quiet_hours(rule: Trigger, looks: list[Look]) -> None:
    times = [at for at, _ in lived(rule, looks)]
    assert all(later - at >= rule.cooldown_s for at, later in pairwise(times))
    assert not any(is_quiet(rule, at) for at in times)


@given(RULES, LOOKS)
def test_none_is_begun_while_the_last_goes_on_or_by_what_nobody_can_see(
    rule: Trigger, looks: list[Look]
) -> None:
    now, free = NOW, set()
    for seconds, alarms, busy, works in looks:
        now += seconds
        if alarms and not busy and works:
            free.add(now)
    assert {at for at, _ in lived(rule, looks)} <= free


@given(RULES, LOOKS)
def test_an_alarm_that_goes_on_begins_one_run(rule: Trigger, looks: list[Look]) -> None:
    now, answered = NOW, dict[str, bool]()
    begun = dict(lived(rule, looks))
    for seconds, alarms, _, _ in looks:
        now += seconds
        there = set(seen(alarms))
        answered = {key: True for key in answered if key in there}
        assert not begun.get(now, frozenset()) & set(answered), "this one has begun a run and is still there"
        answered |= dict.fromkeys(begun.get(now, ()), True)


@given(RULES, LOOKS)
def test_a_cloud_that_restarts_before_each_look_begins_the_same(rule: Trigger, looks: list[Look]) -> None:
    assert lived(rule, looks, restarts=True) == lived(rule, looks)


@given(RULES, LOOKS)
def test_what_cannot_be_begun_is_not_tried_at_each_look(rule: Trigger, looks: list[Look]) -> None:
    state, now, tries = Began(), NOW, []
    for seconds, alarms, busy, _ in looks:
        now += seconds
        decided = decide(rule, state, seen(alarms), len(NODES), busy, now)
        if decided.stands == "begins":
            state = not_begun(rule, state, decided.state, "no blob", now)
            tries.append(now)
        else:
            state = decided.state
    assert all(later - at >= RETRY_S for at, later in pairwise(tries))
    assert state.begun == ()


@given(RULES, st.integers(1, 5))
def test_with_nothing_in_its_way_what_lasts_begins_a_run_at_the_end_of_its_time(
    rule: Trigger, alarm: int
) -> None:
    rule = msgspec.structs.replace(rule, quiet="")
    alarms = frozenset({alarm, 5})
    early, late = (10.0, alarms, "", True), (rule.for_s or 1.0, alarms, "", True)
    times = [at for at, _ in lived(rule, [early, late])]
    assert times == [NOW + 10.0 + rule.for_s]


MOVED = Trigger("moved", "r-1", on="drift", for_s=60.0, cooldown_s=600.0, machines=2)


def test_an_interruption_begins_the_time_anew() -> None:
    both, none = frozenset({1, 2}), frozenset[int]()
    looks: list[Look] = [(1, both, "", True), (50, none, "", True), (5, both, "", True), (50, both, "", True)]
    assert lived(MOVED, looks) == []
    assert len(lived(MOVED, [*looks, (10, both, "", True)])) == 1


def test_machines_are_counted_once_and_as_a_share_of_the_fleet() -> None:
    twice = {"alarm/1": Sign(("e1",), "a"), "alarm/2": Sign(("e1",), "b")}
    now = msgspec.structs.replace(MOVED, for_s=0.0)
    assert decide(now, Began(), twice, 4, "", NOW).why == "seen at 1 machine, which is too few"
    half = msgspec.structs.replace(now, machines=1, share=0.5)
    one = {"alarm/1": Sign(("e1",), "a")}
    assert decide(half, Began(), one, 2, "", NOW).stands == "begins"
    assert decide(half, Began(), one, 3, "", NOW).stands == "rests"


@pytest.mark.parametrize(
    ("more", "state", "why"),
    [
        ({}, Began(begun=(NOW - 500,)), "cools down until 1972-09-27 00:01:40 UTC"),
        (
            {"budget": Budget(2, 1)},
            Began(begun=(NOW - 4000, NOW - 3000)),
            "the budget is spent until 1972-09-27 22:53:20 UTC",
        ),
        ({"quiet": "23:00-01:00"}, Began(), "quiet hours, 23:00-01:00 UTC"),
        ({}, Began(tried=NOW - 100, wrong="R306"), "tried again at 1972-09-27 00:03:20 UTC: R306"),
        ({}, Began(begun=(NOW + 9e12,)), "cools down until 9000086400600"),
    ],
)
def test_what_holds_a_run_back_is_said(more: dict[str, object], state: Began, why: str) -> None:
    rule = msgspec.structs.replace(MOVED, for_s=0.0, **more)
    decided = decide(rule, state, seen(frozenset({5})), 4, "", NOW)
    assert (decided.stands, decided.why) == ("waits", why)


def test_a_time_of_day_that_is_held_back_is_passed_over() -> None:
    nightly = Trigger("nightly", "r-1", "02:30", quiet="02:00-03:00")
    at, signs_of = NOW + 2.5 * 3600, due(Trigger("nightly", "r-1", "02:30"), NOW, NOW + 3 * 3600)
    decided = decide(nightly, Began(), signs_of, 4, "", at)
    assert (decided.stands, decided.state.wrong) == ("waits", "quiet hours, 02:00-03:00 UTC")
    assert decide(nightly, decided.state, signs_of, 4, "", at + 3600).stands == "rests"


def test_alarms_that_were_seen_are_over_or_of_other_kinds_begin_nothing() -> None:
    process, sensor = (Finding(kind, ("e1",), ("oulu",), ("oil",)) for kind in ("process", "sensor"))
    alarms = (
        Alarm("1", process, 1.0, ended=2.0),
        Alarm("2", process, 1.0, by="anna", seen=2.0),
        Alarm("3", sensor, 1.0),
        Alarm("4", process, 1.0),
    )
    assert list(signs(alarms, ("process",), "pumps")) == ["alarm/4"]
    assert list(signs(alarms, KINDS, "pumps")) == ["alarm/3", "alarm/4"]
    assert get_args(Kind) == (*KINDS, "release"), "a release that is not healthy is not for training"


def test_levels_count_above_what_is_wanted() -> None:
    said = {"e1": Watched(level=1.5, answers_level=0.5), "e2": Watched(level=1.0), "e3": Watched(level=9.0)}
    found = levels(Trigger("t", "r", on="drift", metric="level"), said).signs
    assert {key: each.said for key, each in found.items()} == {
        "node/e1": "level 1.5 at e1",
        "node/e3": "level 9 at e3",
    }
    answers = Trigger("t", "r", on="drift", metric="answers_level", above=0.4)
    assert list(levels(answers, said).signs) == ["node/e1"]


def test_alarms_of_another_project_begin_no_run_of_this_one() -> None:
    found = (Finding("concept", ("e1",), ("oulu",), project=project) for project in ("", "pumps", "presses"))
    alarms = [Alarm(str(number), each, 1.0) for number, each in enumerate(found)]
    assert list(signs(alarms, KINDS, "pumps")) == ["alarm/0", "alarm/1"]


@pytest.mark.parametrize(
    ("metric", "kept"),
    [
        ("safe_share", Watched(windows_withheld=1)),
        ("safe_share", Watched(withheld=1)),
        ("level", Watched(withheld=1)),
        ("answers_level", Watched(withheld=1)),
        ("errors_level", Watched(labels_withheld=1)),
    ],
)
def test_a_node_whose_site_keeps_what_a_metric_is_made_of_speaks_neither_for_a_run_nor_against(
    metric: Any, kept: Watched
) -> None:
    rule = Trigger("t", "r", on="drift", metric=metric, above=0.1, share=0.5, cooldown_s=1.0)
    high = Watched(windows=100, safe=50, level=2.0, answers_level=2.0, errors_level=2.0)
    low = Watched(windows=100, safe=1)
    seen = levels(rule, {"e1": high, "e2": low, "e3": kept, "e4": kept})
    assert (list(seen.signs), seen.kept) == (["node/e1"], ("e3", "e4"))
    found = noted(decide(rule, Began(), seen.signs, 4 - len(seen.kept), "", NOW), seen)
    assert found.stands == "begins", "half of those of whom it is known"
    assert found.why.endswith("not known at e3, e4, whose site keeps it")


def test_of_a_node_that_has_answered_nothing_yet_no_share_is_known() -> None:
    share = Trigger("t", "r", on="drift", metric="safe_share", above=0.0)
    assert levels(share, {"e1": Watched()}) == Seen({})


ROWS = Trigger("t", "r", on="data", rows=100, cooldown_s=1.0)


def told(**rows: int) -> dict[str, Labelled]:
    """-1: the site keeps it."""
    return {node: Labelled("r-1", max(0, count), int(count < 0)) for node, count in rows.items()}


def test_new_labelled_rows_are_added_up_over_nodes_and_whose_word_is_missing_is_said() -> None:
    few = grown(ROWS, told(e1=60, e2=39, e3=-1), ("e1", "e2", "e3", "e4"))
    assert few == Seen({}, ("e3", "e4"), "99 of 100 new labelled rows")
    found = noted(decide(ROWS, Began(), few.signs, 2, "", NOW), few)
    assert (found.stands, found.why) == (
        "rests",
        "99 of 100 new labelled rows; not known at e3, e4, whose site keeps it",
    )
    enough = grown(ROWS, told(e1=60, e2=40), ("e1", "e2"))
    assert decide(ROWS, Began(), enough.signs, 2, "", NOW).why == (
        "data: 100 new labelled rows at 2 machines (e1, e2)"
    )


def test_rows_of_a_node_that_missed_its_run_begin_no_other_but_further_rows_do() -> None:
    state, now = Began(), NOW

    def look(**rows: int) -> str:
        nonlocal state, now
        now += 10.0
        decided = decide(ROWS, state, grown(ROWS, told(**rows), ()).signs, 2, "", now)
        state = decided.state
        return decided.stands

    assert look(e1=150, e2=20) == "begins"
    assert look(e1=150, e2=20) == "rests", "the nodes have not trained yet"
    assert look(e1=150) == "rests", "e1 was away"
    assert look(e1=150, e2=49) == "rests"
    assert look(e1=150, e2=51) == "begins"
    assert look() == "rests"
    assert look(e1=100) == "begins", "what was answered is forgotten once it is gone"


@given(st.dictionaries(st.sampled_from(NODES), st.integers(-1, 400)), st.randoms())
def test_what_nodes_tell_of_rows_counts_in_any_order_and_a_site_that_keeps_its_own_changes_no_sum(
    rows: dict[str, int], random: Any
) -> None:
    mixed = list(rows.items())
    random.shuffle(mixed)
    seen = grown(ROWS, told(**rows), NODES)
    assert grown(ROWS, told(**dict(mixed)), NODES) == seen
    assert len(seen.signs) == sum(max(0, each) for each in rows.values()) // 100
    assert set(seen.kept) == {node for node in NODES if rows.get(node, -1) < 0}


def test_a_node_has_joined_when_the_last_run_did_not_have_it_wherever_it_was() -> None:
    assert joined({"oulu": ("e1",), "turku": ("e2", "e3")}, {"oulu": ("e1", "e2")}) == {
        "node/e3": Sign(("e3",), "e3 of turku joined")
    }
