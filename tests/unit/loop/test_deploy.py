"""What is wanted against what is there: the plan of it, and that carrying it out leaves nothing to do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from reuna.core.desired import ALL, Desired, Has, Listed, Placement, Reality, Rolled
from reuna.core.trigger import Trigger
from reuna.loop.deploy import Change, Going, as_dict, carried_out, lines, mistakes, newest, plan, resolved

NODES = {"e1": "north", "e2": "north", "e3": "south", "e4": "south", "e5": "west"}
COHORTS = {"canary": ("e1", "e3"), "border": ("south", "e2")}
NAMES = [*NODES, "north", "south", "west"]
CATALOGUE = {"pumps": {v: f"{v}" * 64 for v in (1, 2, 3, 4)}, "ovens": {v: f"{v + 4}" * 64 for v in (1, 2)}}
NOW = 1000.0


def at(project: str, version: int, *where: str) -> Listed:
    return Listed(
        project, version, CATALOGUE[project][version], tuple(sorted(where)), f"releases/{project}-{version}"
    )


def there(*listed: Listed, **more: object) -> Reality:
    return replace(Reality("mill", NODES, CATALOGUE, listed=listed), **more)  # type: ignore[arg-type]


def wanted(*placements: Placement, **champions: int) -> Desired:
    return Desired("mill", COHORTS, champions, placements)


def placed(version: int, *where: str, project: str = "pumps", follows: str = "champion") -> Placement:
    name = f"{project}-{version or follows}"
    return Placement(name, project, version, where or (ALL,), None, follows)


def holding(reality: Reality, at: float = NOW) -> Reality:
    """Every node has taken what is newest for it; what it held before it holds since then."""
    held = {node: dict(reality.held.get(node, {})) for node in NODES}
    for node, site in NODES.items():
        for project in CATALOGUE:
            if (found := newest(reality.listed, project, node, site)) is not None:
                held[node].setdefault(found.digest, Has(at))
    return replace(reality, held=held)


def versions(reality: Reality, project: str = "pumps") -> dict[str, int]:
    found = {node: newest(reality.listed, project, node, site) for node, site in NODES.items()}
    return {node: each.version for node, each in found.items() if each is not None}


def shown(desired: Desired, reality: Reality, now: float = NOW) -> list[str]:
    return lines(plan(desired, reality))


# --- what a person sees -----------------------------------------------------------------------------


def test_a_release_that_is_nowhere_yet_is_added_everywhere() -> None:
    desired, reality = wanted(placed(2), pumps=2), there()
    assert shown(desired, reality) == ["+ champion of pumps: 2", "+ release pumps 2: every node"]
    assert as_dict(plan(desired, reality))["counts"] == {
        "add": 2, "change": 0, "remove": 0, "going": 0, "drift": 0
    }  # fmt: skip


def test_what_is_as_wanted_needs_nothing() -> None:
    reality = holding(there(at("pumps", 2), champions={"pumps": 2}))
    assert plan(wanted(placed(2), pumps=2), reality).empty


def test_a_change_by_hand_is_seen() -> None:
    desired = wanted(placed(2, "north"), pumps=2)
    by_hand = there(at("pumps", 3), at("pumps", 2, "south"), champions={"pumps": 3})
    assert shown(desired, by_hand) == [
        "~ champion of pumps: 3 → 2",
        "~ release pumps 2: south → north",
        "- release pumps 3: every node",
    ]


def test_other_bytes_under_the_same_version_are_a_change() -> None:
    forged = replace(at("pumps", 2), digest="f" * 64)
    assert shown(wanted(placed(2)), there(forged)) == [
        "~ release pumps 2: every node → every node, ffffffffffff → 222222222222"
    ]


def test_a_project_that_is_not_named_is_left_alone() -> None:
    assert shown(wanted(placed(2)), there(at("pumps", 2), at("ovens", 1))) == []


def test_a_project_that_is_named_without_a_place_is_nowhere() -> None:
    assert shown(wanted(ovens=1), there(at("ovens", 1), champions={"ovens": 1})) == [
        "- release ovens 1: every node"
    ]


def test_a_node_that_does_not_hold_what_it_may_is_drift() -> None:
    reality = holding(there(at("pumps", 2)))
    held = {**reality.held, "e2": {}, "e4": {at("pumps", 2).digest: Has(1.0, "mismatch")}}
    found = plan(wanted(placed(2)), replace(reality, held=held))
    assert [(each.node, each.site, each.why) for each in found.drift] == [
        ("e2", "north", ""),
        ("e4", "south", "mismatch"),
    ]
    assert not found.changes
    assert not found.empty


# --- what follows a name ------------------------------------------------------------------------------


def test_a_cohort_that_follows_the_challenger_has_it_before_the_others_do() -> None:
    """What a merge to main makes and nobody has promoted yet: it goes as far as the canary by itself."""
    desired = wanted(placed(0, "canary", follows="challenger"), placed(0))
    reality = holding(there(at("pumps", 2), champions={"pumps": 2}))
    assert plan(desired, reality).empty, "without a challenger all have the champion"
    made = replace(reality, challengers={"pumps": 3})
    assert shown(desired, made) == ["+ release pumps 3: e1, e3"]
    made = holding(carried_out(made, plan(desired, made).changes))
    assert versions(made) == {"e1": 3, "e2": 2, "e3": 3, "e4": 2, "e5": 2}
    promoted = replace(made, champions={"pumps": 3}, challengers={})
    assert shown(desired, promoted) == [
        "~ release pumps 3: e1, e3 → every node",
        "- release pumps 2: every node",
    ]


def test_who_is_named_keeps_an_older_release_than_all_others() -> None:
    desired = wanted(placed(1, "e2"), placed(3))
    reality = carried_out(there(), plan(desired, there()).changes)
    assert versions(reality) == {"e1": 3, "e2": 1, "e3": 3, "e4": 3, "e5": 3}


def rolling(version: int, *waves: str) -> Desired:
    """A version that is rolled out by itself."""
    return replace(wanted(placed(version, *waves)), rollouts=frozenset({"pumps"}))


def test_a_release_is_listed_once_its_rollout_holds_every_node_and_the_one_before_stays_for_the_way_back() -> (
    None
):
    live = there(at("pumps", 2), rolled={"pumps": Rolled(newest=2, live=2, last=2)})
    assert shown(rolling(3), live) == ["~ rollout of pumps: 2 → 3"]
    begun = carried_out(live, plan(rolling(3), live).changes)
    assert (shown(rolling(3), begun), begun.champions) == (["+ release pumps 3: every node"], {})
    listed = carried_out(begun, plan(rolling(3), begun).changes)
    going = plan(rolling(3), listed)
    assert (lines(going), going.going, going.empty) == ([], (Going("pumps", 3),), False)
    done = replace(listed, rolled={"pumps": Rolled(newest=3, live=3, before=2, last=3)})
    assert shown(rolling(3), done) == []
    later = replace(done, rolled={"pumps": Rolled(newest=4, live=4, before=3, last=4)})
    assert shown(rolling(4), later) == ["+ release pumps 4: every node", "- release pumps 2: every node"]


def test_a_rollout_of_some_is_listed_for_those_and_of_all_for_later_nodes_too() -> None:
    begun = there(rolled={"pumps": Rolled(newest=3, going=3, last=3)})
    assert shown(rolling(3, "canary", "west"), begun) == ["+ release pumps 3: e1, e3, west"]
    assert shown(rolling(3, "canary", ALL), begun) == ["+ release pumps 3: every node"]


def test_back_to_an_older_release_is_a_rollout_too_and_once() -> None:
    live = there(at("pumps", 2), at("pumps", 3), rolled={"pumps": Rolled(newest=3, live=3, before=2, last=3)})
    assert shown(rolling(2), live) == ["~ rollout of pumps: 3 → 2"]
    failed = replace(live, rolled={"pumps": Rolled(newest=3, live=3, before=2, last=2)})
    assert shown(rolling(2), failed) == []
    done = replace(live, rolled={"pumps": Rolled(newest=3, live=2, before=3, last=2)})
    assert shown(rolling(2), done) == []


def test_a_release_that_was_given_up_is_not_rolled_out_again_and_the_way_back_stays_listed() -> None:
    failed = there(at("pumps", 2), at("pumps", 3), rolled={"pumps": Rolled(newest=3, live=2, last=3)})
    assert shown(rolling(3), failed) == []
    begun = carried_out(failed, plan(rolling(4), failed).changes)
    assert shown(rolling(4), begun) == ["+ release pumps 4: every node", "- release pumps 3: every node"]


def test_what_goes_out_stays_listed_and_the_next_release_waits_for_its_end() -> None:
    rolled = Rolled(newest=3, live=2, going=3, last=3)
    going = there(at("pumps", 2), at("pumps", 3), rolled={"pumps": rolled})
    assert shown(rolling(4), going) == []
    ended = replace(going, rolled={"pumps": Rolled(newest=3, live=3, last=3)})
    assert shown(rolling(4), ended) == ["~ rollout of pumps: 3 → 4"]


def test_without_a_word_nothing_is_rolled_out_and_nothing_else_stays_listed() -> None:
    live = there(at("pumps", 2), rolled={"pumps": Rolled(newest=2, live=2)})
    assert shown(wanted(placed(3)), live) == [
        "+ release pumps 3: every node",
        "- release pumps 2: every node",
    ]


def test_who_follows_a_name_that_nobody_has_is_a_mistake() -> None:
    desired = wanted(placed(0, follows="challenger"))
    assert mistakes(desired, there()) == [
        "placements.pumps-challenger follows the challenger, and pumps has none"
    ]


# --- mistakes that only the fleet shows ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("desired", "said"),
    [
        (replace(wanted(), fleet="other"), "fleet.name is 'other', the fleet that answers is 'mill'"),
        (wanted(pumps=9), "projects.pumps.champion is 9: the catalogue of pumps has 1, 2, 3, 4"),
        (wanted(placed(9)), "placements.pumps-9 is of version 9: the catalogue of pumps has 1, 2, 3, 4"),
        (wanted(Placement("x", "mills", 1)), "placements.x is of version 1: the catalogue of mills has none"),
        (
            wanted(placed(1, "nort")),
            "placements.pumps-1.waves names 'nort', which is no cohort, site or node",
        ),
        (
            replace(wanted(), cohorts={"c": ("e9",)}),
            "cohorts.c.members names 'e9', which is no site and no node",
        ),
        (
            wanted(placed(1, "north"), placed(2, "e1")),
            "placements.pumps-2 is for e1 too, as placements.pumps-1",
        ),
        (wanted(placed(1), placed(2)), "placements.pumps-2 is for e1, e2, e3 too"),
    ],
)
def test_what_this_fleet_cannot_be_is_named(desired: Desired, said: str) -> None:
    (line,) = mistakes(desired, there())
    assert line.startswith(said)


def test_two_placements_for_every_node_are_refused_also_where_no_node_is_known() -> None:
    empty = replace(there(), nodes={})
    assert len(mistakes(replace(wanted(placed(1), placed(2)), cohorts={}), empty)) == 1


def test_two_placements_of_two_projects_are_no_mistake() -> None:
    assert mistakes(wanted(placed(1), placed(2, project="ovens")), there()) == []


# --- laws ---------------------------------------------------------------------------------------------

VERSIONS = st.sampled_from([(project, version) for project, found in CATALOGUE.items() for version in found])
PLACEMENTS = st.builds(
    lambda of, where, follows: placed(of[1] if not follows else 0, where, project=of[0], follows=follows),
    VERSIONS,
    st.sampled_from([*NAMES, *COHORTS, ALL]),
    st.sampled_from(["", "champion", "challenger"]),
)
SCHEDULES = st.dictionaries(
    st.sampled_from(["nightly", "weekly"]),
    st.builds(Trigger, st.just("x"), st.sampled_from(["r-1", "r-2"]), st.sampled_from(["01:00", "02:00"])),
)
STATES = st.builds(
    lambda placements, champions, schedules: replace(wanted(*placements, **champions), triggers=schedules),
    st.lists(PLACEMENTS, max_size=4, unique_by=lambda each: each.name),
    st.dictionaries(st.sampled_from(["pumps", "ovens"]), st.integers(1, 2)),
    SCHEDULES,
)
LISTINGS = st.lists(
    st.builds(
        lambda of, where, name: replace(at(*of, *where), path=f"releases/{of[0]}-{of[1]}{name}"),
        VERSIONS,
        st.lists(st.sampled_from(NAMES), max_size=3, unique=True),
        st.sampled_from(["", "-by-hand"]),
    ),
    max_size=6,
    unique_by=lambda each: each.path,
)
HELD = st.dictionaries(
    st.sampled_from(list(NODES)),
    st.dictionaries(
        st.sampled_from([digest for found in CATALOGUE.values() for digest in found.values()]),
        st.builds(Has, st.floats(0), st.sampled_from(["", "mismatch"])),
    ),
)


def possible(desired: Desired, listed: list[Listed], held: dict[str, dict[str, Has]]) -> Reality:
    kept = {"nightly": Trigger("x", "r-1", "01:00"), "old": Trigger("x", "r-3", "01:00")}
    reality = there(
        *listed, champions={"pumps": 1}, challengers={"pumps": 3, "ovens": 2}, held=held, triggers=kept
    )
    assume(not mistakes(desired, reality))
    return reality


@given(STATES, LISTINGS, HELD)
def test_what_was_carried_out_leaves_no_change(
    desired: Desired, listed: list[Listed], held: dict[str, dict[str, Has]]
) -> None:
    reality = possible(desired, listed, held)
    found = plan(desired, reality)
    after = carried_out(reality, found.changes)
    assert plan(desired, after).changes == ()


ROLLED = st.builds(Rolled, *[st.integers(0, 4)] * 5)


@given(st.integers(1, 4), st.lists(VERSIONS, max_size=4, unique=True), ROLLED)
def test_a_rollout_begins_once_before_its_release_is_listed_and_every_way_back_stays(
    version: int, listed: list[tuple[str, int]], rolled: Rolled
) -> None:
    desired = rolling(version)
    before = reality = there(*(at(*each) for each in listed), rolled={"pumps": rolled})
    begun = list[Change]()
    for _ in range(3):
        found = plan(desired, reality)
        begun += [each for each in found.changes if each.what == "rollout"]
        assert not (begun and reality.rolled == before.rolled and reality.listed != before.listed)
        reality = carried_out(reality, found.changes)
    assert plan(desired, reality).changes == ()
    assert len(begun) <= 1
    assert all(each.after == version for each in begun)
    own = {each.version for each in reality.listed if each.project == "pumps"}
    now = reality.rolled["pumps"]
    assert own >= {rolled.live, rolled.before, now.going} - {0}
    assert own <= {version, rolled.live, rolled.before, now.going}
    assert (version in own) or version > now.newest, "it waits for the end of another one"


def is_in(node: str, each: Placement) -> bool:
    """Whether a wave names a node, its site or its cohort."""
    names = {name for wave in each.waves for name in COHORTS.get(wave, (wave,))}
    return bool({node, NODES[node]} & names)


@given(STATES, LISTINGS, HELD)
def test_in_the_end_every_node_has_what_is_wanted(
    desired: Desired, listed: list[Listed], held: dict[str, dict[str, Has]]
) -> None:
    reality = possible(desired, listed, held)
    honest = {node: {d: has for d, has in of.items() if not has.refused} for node, of in reality.held.items()}
    reality = replace(reality, held=honest)
    reality = holding(carried_out(reality, plan(desired, reality).changes))
    assert plan(desired, reality).empty
    for project in desired.projects:
        placed = [each for each in resolved(desired, reality).placements if each.project == project]
        for node in NODES:
            named = [each.version for each in placed if ALL not in each.waves and is_in(node, each)]
            rest = [each.version for each in placed if ALL in each.waves]
            assert versions(reality, project).get(node) == next(iter([*named, *rest]), None)
    assert [each for each in reality.listed if each.project not in desired.projects] == [
        each for each in listed if each.project not in desired.projects
    ]


@given(STATES, LISTINGS, HELD)
def test_changes_name_what_is_there(
    desired: Desired, listed: list[Listed], held: dict[str, dict[str, Has]]
) -> None:
    reality = possible(desired, listed, held)
    for change in plan(desired, reality).changes:
        assert isinstance(change, Change)
        assert change.before != change.after
        assert not isinstance(change.before, Listed) or change.before in reality.listed
