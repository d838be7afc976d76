"""What the site's policy is told about a payload."""

from __future__ import annotations

import msgspec

from reuna.core.records import Contribution, Grid, Member, Plan
from reuna.exchange.payloads import ahead, contribution, made_for
from reuna.trust.requests import Hidden, without_roster


def plan(*cohort: str) -> Plan:
    return Plan("r-1", 1, 1, "train", "a" * 64, 8, 2, cohort, 1, 9.0, Grid(16, -9), 9, 4, 7, "b" * 64, 5)


def test_a_name_that_stands_in_a_cohort_more_than_once_counts_once() -> None:
    assert made_for(plan("edge-1", "edge-2"), "edge-1", without_roster, 3).cohort == Hidden(2)
    assert made_for(plan("edge-1", "edge-1", "edge-1"), "edge-1", without_roster, 3).cohort == Hidden(1)


def test_an_update_that_is_passed_up_singly_hides_in_nobody() -> None:
    singly = msgspec.structs.replace(plan("edge-1", "edge-2"), combine="singly")
    assert made_for(singly, "edge-1", without_roster, 3).cohort == Hidden(1)
    members = (Member("edge-1", 50), Member("edge-2", 3), Member("edge-3", absent="unheard"))
    row = Contribution("r-1", 1, 1, "fog", "p" * 64, "updates", 2, 2, 53, "d" * 64, 8, members)
    for leaving in contribution(
        row, "cloud", 0.0, made_for(singly, "edge-1", without_roster, 3), without_roster
    ):
        assert (leaving.request.cohort, leaving.request.samples) == (1, 3)
    summed = msgspec.structs.replace(row, kind="partial")
    for leaving in contribution(
        summed, "cloud", 0.0, made_for(singly, "edge-1", without_roster, 3), without_roster
    ):
        assert (leaving.request.cohort, leaving.request.samples) == (2, 53)


def test_what_a_fog_would_ask_is_as_much_as_all_of_its_updates() -> None:
    summed, singly = (
        plan("edge-1", "edge-2"),
        msgspec.structs.replace(plan("edge-1", "edge-2"), combine="singly"),
    )
    told = [ahead(each, "fog", "cloud", 0.0, without_roster, 9, "").requests[0] for each in (summed, singly)]
    assert [each.bytes for each in told] == [2 * 3, 2 * 2 * 2]
    assert [each.cohort for each in told] == [2, 1]


def test_under_a_fog_of_fogs_an_update_hides_among_those_in_the_first_sum_that_has_it() -> None:
    tree = {"firm": ("kiln", "north", "south"), "north": ("a", "b"), "south": ("c",)}
    deep = msgspec.structs.replace(plan("a", "b", "c", "kiln"), tree=tree)

    def hidden(node: str) -> int:
        return made_for(deep, node, without_roster, 3).cohort.nodes

    assert [hidden(node) for node in ("a", "c", "kiln", "north", "firm")] == [2, 1, 4, 2, 4]


def test_what_a_fog_under_a_fog_would_ask_is_of_the_edges_under_it_alone() -> None:
    tree = {"firm": ("kiln", "north"), "north": ("a", "b")}
    singly = msgspec.structs.replace(plan("a", "b", "kiln"), tree=tree, combine="singly")
    told = [ahead(singly, fog, "up", 0.0, without_roster, 9, "").requests[0] for fog in ("north", "firm")]
    assert [each.bytes for each in told] == [2 * 2 * 2, 2 * 2 * 3]
