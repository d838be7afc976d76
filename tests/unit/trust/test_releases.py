"""Which releases a node takes and keeps, and which nodes lack one."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import Untrusted
from reuna.core.records import Holding
from reuna.trust import publish
from reuna.trust.publish import FIELD
from reuna.trust.releases import KEPT, MOST, is_for, kept, listed, missing, newest, offered, wanted
from reuna.trust.targets import Target
from tests.releases import target
from tests.unit.trust.house import House

NODES = {"e1": ("e1", "north"), "e2": ("e2", "north"), "e3": ("e3", "south")}
PLACES = st.lists(st.sampled_from(["e1", "e2", "e3", "north", "south"]), max_size=2, unique=True)
LISTED = st.lists(
    st.builds(
        lambda project, number, where: at(project, number, tuple(sorted(where))),
        st.sampled_from(["pumps", "ovens", "mills"]),
        st.integers(1, 6),
        PLACES,
    ),
    max_size=12,
    unique_by=lambda each: each.path,
)


def at(project: str, number: int, where: tuple[str, ...] = ()) -> Target:
    return target(f"{project} {number} {where}".encode(), number, project, f"{project}-{number}", where)


def held(each: Target, at: float = 1.0, refused: str = "") -> Holding:
    return Holding(each.path, each.project, each.number, each.sha256, at, refused)


def test_a_node_takes_the_newest_two_of_each_project() -> None:
    found = wanted([at("pumps", 1), at("pumps", 3), at("pumps", 2), at("ovens", 9)], NODES["e1"])
    assert [(each.project, each.number) for each in found] == [("ovens", 9), ("pumps", 3), ("pumps", 2)]


def test_a_release_for_one_site_is_taken_there_and_nowhere_else() -> None:
    only = at("pumps", 2, ("south",))
    assert is_for(only, NODES["e3"])
    assert wanted([only], NODES["e1"]) == ()


@given(LISTED)
def test_a_fog_keeps_whatever_any_of_its_edges_takes(found: list[Target]) -> None:
    keeps = offered(found)
    for names in NODES.values():
        assert {each.digest for each in wanted(found, names)} <= keeps


@given(LISTED)
def test_what_a_node_takes_it_also_keeps_whatever_it_held_before(found: list[Target]) -> None:
    """Planted: a `kept` that let go of a release that is asked for would fetch it again without end."""
    asked = wanted(found, NODES["e1"])
    has = [held(each) for each in asked]
    stays = kept(has, {each.sha256 for each in asked})
    assert {each.digest for each in stays} == {each.sha256 for each in asked}
    assert kept(stays, {each.sha256 for each in asked}) == stays


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from("abcdefghijkl"), st.floats(0, 99)), max_size=60))
def test_the_disk_is_bounded_whatever_was_held(found: list[tuple[int, str, float]]) -> None:
    stays = kept([held(at(project, number), when) for number, project, when in found], ())
    assert len(stays) <= MOST
    for project in {each.project for each in stays}:
        assert len({each.version for each in stays if each.project == project}) <= KEPT


def test_what_is_listed_stays_before_what_is_not() -> None:
    many = [held(at(project, 1), 9.0) for project in "abcdefghijklmnopq"]
    asked = held(at("zz", 1), 0.0)
    assert asked in kept([*many, asked], {asked.digest})


@given(LISTED, st.lists(st.integers(0, 11), max_size=3))
def test_what_stages_name_is_taken_offered_and_kept_however_old_it_is(
    found: list[Target], named: list[int]
) -> None:
    staged = {found[number].sha256 for number in named if number < len(found)}
    for names in NODES.values():
        asked = wanted(found, names, staged)
        own = {each.sha256 for each in found if is_for(each, names)}
        assert staged & own <= {each.sha256 for each in asked} <= own
        assert {each.digest for each in asked} <= offered(found, staged)
        digests = {each.sha256 for each in asked}
        assert {each.digest for each in kept([held(each) for each in asked], digests)} == digests


@given(LISTED)
def test_nothing_is_missing_once_every_node_holds_the_newest_that_is_for_it(found: list[Target]) -> None:
    said = {node: [held(each) for each in newest(found, names).values()] for node, names in NODES.items()}
    assert missing(found, NODES, said) == []
    without = missing(found, NODES, {})
    assert len(without) == sum(len(each) for each in said.values())


def test_a_refused_release_is_missing() -> None:
    one = at("pumps", 1)
    assert missing([one], {"e1": ("e1",)}, {"e1": [held(one, refused="mismatch")]}) == [("e1", one)]


def test_a_release_that_nobody_calls_one_is_taken_by_no_node() -> None:
    """A file that was listed as a release and is none, or was listed before releases said what they are of."""
    assert listed(House().update()) == ()
    assert listed(House().begin()) == (), "nor does a new node know of any"


def test_the_list_says_what_a_release_is_of_and_where_it_may_go() -> None:
    house = House()
    one = at("pumps", 7, ("e1", "south"))
    house.listed["targets"].append(one)
    house.list("targets")
    house.online()
    assert listed(house.update()) == (one,)


@pytest.mark.parametrize(
    "instead",
    [{"number": 0}, {"number": True}, {"number": None}, {"project": ""}, {"project": "p" * 201},
     {"project": 7}, {"where": "e1"}, {"where": ["E1"]}, {"where": [7]}],
)  # fmt: skip
def test_a_release_listed_wrongly_is_refused(instead: dict[str, object]) -> None:
    house = House()
    number = house.next("targets")
    rings = {name: house.ring(name) for name in ("code", "plans")}
    metadata = publish.targets(number, [at("pumps", 1)], rings, house.now)
    custom = metadata.signed.targets["releases/pumps-1"].unrecognized_fields["custom"][FIELD]
    custom.update(instead)
    house.put("targets", publish.sign(metadata, house.signers("targets")))
    house.online()
    state = house.update()
    with pytest.raises(Untrusted) as refused:
        listed(state)
    assert refused.value.reason == "malformed"


def test_the_digest_of_what_is_listed_is_that_of_its_bytes() -> None:
    data = b"a release"
    assert target(data, 1).sha256 == hashlib.sha256(data).hexdigest()
