"""What the alarms of many machines say together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reuna.loop.monitor import (
    FEW,
    MOST_ALARMS,
    SHARE,
    Alarm,
    Finding,
    Heard,
    acknowledged,
    judge,
    key,
    raised,
    sent,
    sentence,
    unsent,
)

SIGNALS = ("flow", "heat", "oil", "speed")
HEARD = st.lists(
    st.builds(
        Heard,
        st.sampled_from([f"edge-{n}" for n in range(8)]),
        st.sampled_from(["oulu", "turku"]),
        st.sampled_from(["", "pumps"]),
        st.booleans(),
        st.lists(st.sampled_from(SIGNALS), unique=True).map(tuple),
    ),
    max_size=10,
    unique_by=lambda each: each.node,
)


def quiet(count: int, first: int = 1, cohort: str = "") -> list[Heard]:
    return [Heard(f"edge-{n}", f"site-{n}", cohort) for n in range(first, first + count)]


def test_a_fleet_in_which_nothing_moved_has_no_findings() -> None:
    assert judge(quiet(5)) == ()


def test_one_signal_at_one_machine_is_a_sensor() -> None:
    (found,) = judge([Heard("edge-9", "site-9", alarm=True, moved=("oil",)), *quiet(4)])
    assert found == Finding("sensor", ("edge-9",), ("site-9",), ("oil",))
    assert sentence(found) == "one signal moved at edge-9 alone, perhaps its sensor: oil"


def test_several_signals_at_one_machine_are_a_machine() -> None:
    (found,) = judge([Heard("edge-9", "site-9", alarm=True, moved=("oil", "heat")), *quiet(4)])
    assert (found.kind, found.nodes, found.signals) == ("machine", ("edge-9",), ("oil", "heat"))
    assert sentence(found) == "edge-9 differs from what it was, and others do not: oil, heat"


def test_an_alarm_of_many_small_movements_is_a_machine_without_a_name_of_a_signal() -> None:
    (found,) = judge([Heard("edge-9", "site-9", alarm=True), *quiet(4)])
    assert (found.kind, found.signals) == ("machine", ())
    assert "many signals a little" in sentence(found)


def test_what_moves_at_half_of_the_machines_is_the_process_and_no_machine_is_blamed_for_it() -> None:
    moved = [Heard(f"edge-{n}", "oulu", alarm=True, moved=("oil",)) for n in (7, 8)]
    (found,) = judge([*moved, *quiet(2)])
    assert found == Finding("process", ("edge-7", "edge-8"), ("oulu",), ("oil",))
    assert sentence(found) == "the process moved at 2 machines (edge-7, edge-8): oil"
    assert {each.kind for each in judge([*moved, *quiet(3)])} == {"sensor"}, "fewer than half"


def test_a_machine_that_is_sick_besides_is_named_beside_the_process() -> None:
    moved = [Heard(f"edge-{n}", "oulu", alarm=True, moved=("oil",)) for n in (6, 7, 8)]
    sick = Heard("edge-9", "oulu", alarm=True, moved=("heat", "oil", "speed"))
    process, machine = judge([*moved, sick])
    assert (process.kind, len(process.nodes)) == ("process", 4)
    assert (machine.kind, machine.nodes, machine.signals) == ("machine", ("edge-9",), ("heat", "speed"))


def test_machines_that_get_well_one_after_the_other_leave_one_alarm_of_the_process_to_the_last() -> None:
    def look(sick: int, before: tuple[Alarm, ...], more: tuple[Heard, ...] = ()) -> tuple[Alarm, ...]:
        moved = [Heard(f"edge-{n}", "site", moved=("oil", "flow")) for n in range(sick)]
        going = [each.finding for each in before if not each.ended]
        return raised(before, judge([*moved, *quiet(4 - sick, sick), *more], going), 1.0)

    alarms = look(4, ())
    for sick in (3, 2, 1):
        alarms = look(sick, alarms)
        (one,) = alarms
        assert (one.id, one.ended, one.finding.kind, len(one.finding.nodes)) == ("1", 0.0, "process", sick)
    assert sentence(alarms[0].finding) == "the process moved at 1 machine (edge-0): flow, oil"
    other = look(1, alarms, (Heard("edge-9", "site", moved=("heat",)),))
    assert [each.finding.kind for each in other] == ["process", "sensor"], "what is new is of that machine"
    ended = look(0, alarms)
    assert ended[0].ended == 1.0
    assert look(1, ended)[1].finding.kind == "machine", "and not the process once more"


def test_of_two_machines_nobody_can_say_what_moved_everywhere() -> None:
    both = [Heard(f"edge-{n}", "oulu", alarm=True, moved=("oil",)) for n in range(FEW - 1)]
    assert {each.kind for each in judge(both)} == {"sensor"}


def test_cohorts_are_judged_by_themselves() -> None:
    moved = [Heard(f"edge-{n}", "oulu", "pumps", True, ("oil",)) for n in (7, 8, 9)]
    (found,) = judge([*moved, *quiet(20, 20, "presses")])
    assert (found.kind, found.cohort) == ("process", "pumps")


@given(HEARD, st.randoms())
def test_the_order_in_which_nodes_told_changes_nothing(heard: list[Heard], random: object) -> None:
    mixed = list(heard)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert judge(mixed) == judge(heard)


@given(HEARD)
def test_every_movement_is_in_a_finding_and_only_movements_are(heard: list[Heard]) -> None:
    found = judge(heard)
    by_node = {each.node: each for each in heard}
    told = {(node, signal) for each in found for node in each.nodes for signal in each.signals}
    for each in heard:
        assert all((each.node, signal) in told for signal in each.moved)
        assert bool(each.moved or each.alarm) == any(each.node in one.nodes for one in found)
    for one in found:
        if one.kind != "process":
            (node,) = one.nodes
            assert set(one.signals) <= set(by_node[node].moved)
            continue
        members = [each for each in heard if each.cohort == one.cohort]
        for signal in one.signals:
            assert sum(signal in each.moved for each in members) >= SHARE * len(members)


SICK = Finding("machine", ("edge-9",), ("oulu",), ("heat", "oil"))
BROKEN = Finding("sensor", ("edge-9",), ("oulu",), ("oil",))
MOVED = Finding("process", ("edge-1", "edge-2"), ("oulu",), ("oil",))


def test_a_finding_is_one_alarm_as_long_as_it_is_there() -> None:
    first = raised((), [BROKEN], 10.0)
    assert first == (Alarm("1", BROKEN, 10.0),)
    grown = raised(first, [SICK, MOVED], 20.0)
    assert grown == (Alarm("1", SICK, 10.0), Alarm("2", MOVED, 20.0))
    ended = raised(grown, [MOVED], 30.0)
    assert ended == (Alarm("1", SICK, 10.0, 30.0), Alarm("2", MOVED, 20.0))
    assert raised(ended, [SICK, MOVED], 40.0)[2:] == (Alarm("3", SICK, 40.0),)


def test_word_of_an_alarm_is_sent_once_over_each_channel_and_not_after_somebody_saw_it() -> None:
    alarms = raised((), [SICK, MOVED], 10.0)
    assert [(each.id, channel) for each, channel in unsent(alarms, ["mail", "hook"])] == [
        ("1", "mail"), ("1", "hook"), ("2", "mail"), ("2", "hook"),
    ]  # fmt: skip
    alarms = sent(alarms, "1", "mail")
    seen = acknowledged(alarms, "2", "anna", "the pump was changed", 12.0)
    assert seen is not None
    assert (seen[1].by, seen[1].seen, seen[1].note) == ("anna", 12.0, "the pump was changed")
    assert [(each.id, channel) for each, channel in unsent(seen, ["mail", "hook"])] == [("1", "hook")]
    assert unsent(raised(seen, [], 20.0), ["hook"]) == []


def test_what_is_no_alarm_cannot_be_acknowledged() -> None:
    assert acknowledged(raised((), [SICK], 1.0), "7", "anna", "", 2.0) is None


@given(st.lists(HEARD, max_size=6))
def test_at_any_time_each_finding_has_one_open_alarm_and_no_other_is_open(looks: list[list[Heard]]) -> None:
    alarms: tuple[Alarm, ...] = ()
    for now, heard in enumerate(looks):
        findings = judge(heard)
        alarms = raised(alarms, findings, float(now))
        assert sorted(key(each.finding) for each in alarms if not each.ended) == sorted(map(key, findings))
        assert len({each.id for each in alarms}) == len(alarms)


def test_of_very_many_alarms_the_newest_are_kept() -> None:
    alarms: tuple[Alarm, ...] = ()
    for now in range(MOST_ALARMS + 5):
        alarms = raised(raised(alarms, [SICK], float(now)), [], now + 0.5)
    assert len(alarms) == MOST_ALARMS
    assert alarms[-1].id == str(MOST_ALARMS + 5)
