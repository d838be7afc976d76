"""What the alarms of many machines say together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reuna.loop.monitor import FEW, SHARE, Finding, Heard, judge, sentence

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
