"""Among whom an update hides: the names that the fleet's signed roster knows."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from reuna.core.errors import Untrusted
from reuna.trust.requests import Hidden, without_roster
from reuna.trust.targets import ROSTER, Target, among, read_roster, targets
from tests.unit.trust.house import NOW, House, thing

NODES = {"press-1": "acme", "press-2": "acme", "oven-1": "borg"}


def roster(nodes: dict[str, str] = NODES, path: str = ROSTER) -> Target:
    return replace(thing(path, "roster"), organisations=nodes)


def with_roster(listed: Target, role: str = "targets") -> House:
    house = House()
    house.listed[role] = [listed]
    house.list(role)
    house.online()
    return house


def test_without_a_roster_every_different_name_counts() -> None:
    assert without_roster(["a", "b", "a"]) == Hidden(2)
    assert among(House().update(), ["a", "b", "a"]) == Hidden(2)


def test_with_a_roster_only_its_names_count_and_their_organisations() -> None:
    state = with_roster(roster()).update()
    assert among(state, ["press-1", "press-2", "oven-1"]) == Hidden(3, 2)
    assert among(state, ["press-1", "press-2"]) == Hidden(2, 1)
    assert among(state, ["press-1", "ghost-1", "ghost-2"]) == Hidden(1, 1)
    assert among(state, []) == Hidden(0, 0)


def test_a_roster_that_was_withdrawn_counts_no_more() -> None:
    house = with_roster(roster())
    state = house.update()
    house.listed["targets"] = []
    house.list("targets")
    house.online()
    assert among(house.update(state), ["ghost-1", "ghost-2"]) == Hidden(2)


def test_the_clouds_own_keys_list_no_roster() -> None:
    state = with_roster(roster(), "plans").update()
    assert among(state, ["press-1", "ghost-1"]) == Hidden(2)
    assert ROSTER not in [each.path for each in targets(state, NOW)]


def test_a_roster_under_another_path_or_another_kind_at_its_path_is_no_roster() -> None:
    for listed in (roster(path="rosters/other"), thing(ROSTER, "roster"), thing(ROSTER, "release")):
        state = with_roster(listed).update()
        with pytest.raises(Untrusted):
            targets(state, NOW)


@pytest.mark.parametrize(
    "value", [[], {}, {"a": 1}, {"": "acme"}, {"a b": "acme"}, {"a": "x" * 64}, dict.fromkeys(map(str, range(10_001)), "a")]
)  # fmt: skip
def test_what_is_no_roster_is_refused(value: Any) -> None:
    with pytest.raises(Untrusted):
        read_roster(value)
