"""Laws of whom a round asks, and of whom it waits for."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.cohort import RESTS, asked, away_after, chosen, least, shares, wanted
from reuna.core.records import AWAY, SPARED, UNHEARD, Asking, Grid, Member, Plan
from reuna.loop import train

NAMES = st.sets(st.sampled_from([f"edge-{number:02}" for number in range(30)]), min_size=1)
ASKING = st.builds(
    Asking, cohort=st.integers(0, 40), over_select=st.floats(1, 5), away_s=st.sampled_from([0.0, 15.0])
)


@given(NAMES, st.integers(0, 99), st.integers(1, 50), st.integers(1, 3), ASKING, st.data())
def test_as_many_as_are_asked_are_chosen_from_the_nodes_and_rested_ones_last(
    names: set[str], seed: int, number: int, attempt: int, asking: Asking, data: st.DataObject
) -> None:
    away = data.draw(st.dictionaries(st.sampled_from(sorted(names)), st.integers(0, number)))
    count = asked(len(names), asking)
    found = chosen(names, seed, number, attempt, count, away)
    assert found == chosen(
        sorted(names, reverse=True), seed, number, attempt, count, dict(sorted(away.items()))
    )
    assert set(found) <= names and len(set(found)) == len(found) == count
    assert wanted(len(names), asking) <= count <= len(names)
    resting = {name for name, last in away.items() if number - last <= RESTS}
    if resting.intersection(found):
        assert names - resting <= set(found), "nobody who may be there is passed over for one that is away"


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=2), st.integers(1, 50), min_size=1),
    st.integers(0, 200),
)
def test_shares_add_up_and_ask_of_nobody_more_than_it_has(sizes: dict[str, int], total: int) -> None:
    dealt = shares(sizes, total)
    assert sum(dealt.values()) == min(total, sum(sizes.values()))
    assert all(0 <= dealt[name] <= size for name, size in sizes.items())
    assert dealt == shares(dict(sorted(sizes.items(), reverse=True)), total)
    assert all(
        abs(dealt[name] - size * total / sum(sizes.values())) < 1
        for name, size in sizes.items()
        if total < sum(sizes.values())
    )


@given(st.floats(0.01, 1), st.integers(1, 100), ASKING)
def test_a_quorum_can_be_reached_by_those_who_are_to_give(quorum: float, nodes: int, asking: Asking) -> None:
    assert 1 <= least(quorum, nodes, asking) <= max(1, wanted(nodes, asking)) <= asked(nodes, asking)


def test_who_was_found_away_rests_until_it_was_heard_of() -> None:
    before = {"a": 1, "b": 1, "c": 1}
    members = [
        Member("a", 5),
        Member("b", absent=SPARED),
        Member("d", absent=AWAY),
        Member("e", absent=UNHEARD),
    ]
    assert away_after(before, 2, members) == {"b": 1, "c": 1, "d": 2, "e": 2}


PLAN = Plan(
    run="r", round=1, attempt=1, task="train", model="", model_size=1, params=1, cohort=(), quorum=8, deadline_s=9.0,
    grid=Grid(32, -24), max_weight=1, capacity=10, seed=1, bundle="", bundle_size=0, away_s=15.0,
)  # fmt: skip
TIMES = st.floats(0, 1000)


@given(TIMES, st.none() | TIMES, st.floats(0, 200), st.none() | TIMES, st.floats(0.1, 60))
def test_nobody_is_away_who_was_heard_of_or_asked_only_lately(
    now: float, heard: float | None, next_s: float, since: float | None, away_s: float
) -> None:
    away = train.is_away(now, heard, next_s, since, away_s)
    quiet = heard is not None and now - heard > max(away_s, next_s)
    mute = since is not None and now - since > away_s
    assert away == (quiet or mute)
    if heard is None and since is None:
        assert not away, "of whom nothing is known it is not known that it is away"


def test_a_round_does_without_as_many_as_its_quorum_leaves_over() -> None:
    assert [train.does_without(PLAN, edges) for edges in (0, 2, 3)] == [True, True, False]
    whole, later = (msgspec.structs.replace(PLAN, **way) for way in ({"quorum": 10}, {"away_s": 0.0}))
    assert not train.does_without(whole, 1) and not train.does_without(later, 0)


def test_those_left_out_are_named_with_why() -> None:
    assert train.left_out(["a", "b"], {"a"}, True) == (Member("a", absent=AWAY), Member("b", absent=SPARED))
    assert train.left_out(["a", "b"], {"a"}, False) == (Member("a", absent=AWAY),), (
        "of b the deadline decides"
    )
    assert all(member.absent in train.ABSENT for member in train.left_out(["a", "b"], {"a"}, True))
