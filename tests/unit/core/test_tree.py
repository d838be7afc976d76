"""Who stands under whom, and what is no tree."""

from __future__ import annotations

from typing import Any

import pytest

from reuna.core.errors import PlanError
from reuna.core.tree import (
    MOST_LEVELS,
    check_tree,
    edges_under,
    height,
    laid_out,
    over,
    patience,
    pruned,
    top_of,
    tops,
    tree_under,
    with_edges,
)

FOGS = {"firm": ("kiln",), "north": ("a", "b"), "hall": ("c",), "lab": ("d",), "empty": ()}
ABOVE = {"north": "firm", "hall": "north", "empty": "firm"}
TREE = tree_under("firm", FOGS, ABOVE)


def test_a_fog_at_the_top_has_all_under_it() -> None:
    assert tops(FOGS, ABOVE) == ("firm", "lab")
    assert edges_under(TREE, "firm") == ("a", "b", "c", "kiln")
    assert edges_under(TREE, "north") == ("a", "b", "c")
    assert edges_under(TREE, "lab") == ()
    assert [over(TREE, name) for name in ("c", "hall", "firm")] == ["hall", "north", ""]
    assert [top_of(name, {"c": "hall"}, ABOVE) for name in ("c", "hall", "firm")] == ["firm"] * 3


def test_of_a_round_that_asks_some_the_tree_has_the_fogs_over_these_alone() -> None:
    assert pruned(TREE, ["kiln"]) == {"firm": ("kiln",)}
    assert pruned(TREE, ["c"]) == {"firm": ("north",), "north": ("hall",), "hall": ("c",)}
    assert pruned(TREE, []) == {}


def test_each_level_waits_longer_than_the_one_below() -> None:
    heights = [height(TREE, name) for name in ("c", "hall", "north", "firm")]
    assert heights == [0, 1, 2, 3]
    waits = [patience(height) for height in heights]
    assert waits == sorted(set(waits))


def test_a_tree_that_leads_back_to_itself_ends() -> None:
    circle = {"a": ("b", "e"), "b": ("a",)}
    assert "e" in edges_under(circle, "a")
    assert height(circle, "a") == MOST_LEVELS
    assert tree_under("a", {"a": ("e",), "b": ()}, {"a": "b", "b": "a"}) == {"a": ("b", "e"), "b": ("a",)}


def test_fogs_without_edges_under_them_are_left_out_and_those_between_stay() -> None:
    fogs, above = with_edges({**FOGS, "firm": ()}, ABOVE)
    assert fogs == {"firm": (), "hall": ("c",), "lab": ("d",), "north": ("a", "b")}
    assert above == {"north": "firm", "hall": "north"}


@pytest.mark.parametrize(
    ("above", "said"),
    [
        ({"north": "nobody"}, "nobody stands in the tree of fogs and is no fog of the run"),
        ({"nobody": "north"}, "nobody stands in the tree of fogs and is no fog of the run"),
        ({"north": "hall", "hall": "north"}, "has no way up to the cloud"),
        ({"north": "north"}, "has no way up to the cloud"),
        ({"empty": "firm"}, "fog empty has no edge under it"),
    ],
)
def test_what_is_no_tree_is_refused_and_says_where(above: dict[str, str], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        check_tree(FOGS, above)


def test_more_levels_than_are_sensible_are_refused() -> None:
    names = [f"f{level}" for level in range(MOST_LEVELS + 1)]
    fogs = dict.fromkeys(names, ("e",))
    above = dict(zip(names[1:], names, strict=False))
    with pytest.raises(PlanError, match=f"at most {MOST_LEVELS} fogs"):
        check_tree(fogs, above)
    del above[names[-1]]
    check_tree(fogs, above)


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        ({"firm": ["a", {"north": ["a"]}]}, "a stands in the tree twice"),
        ({"firm": ["a"], "a": ["b"]}, "a stands in the tree twice"),
        ({"firm": [{"firm": ["a"]}]}, "fog 'firm' stands in the tree twice"),
        ({"firm": "abc"}, "has no list of children"),
        ({"firm": [7]}, "under firm stands 7, which is no table of fogs"),
    ],
)
def test_a_drawing_that_is_no_tree_is_refused_and_says_where(drawn: Any, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        laid_out(drawn)
