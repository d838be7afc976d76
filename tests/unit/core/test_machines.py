"""Which node is of which type of machine."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import SettingsError
from reuna.core.machines import groups
from reuna.core.project import project_settings
from reuna.core.settings import Source
from reuna.learn.strategies import TAKES

NAMES = st.text("ab-1", min_size=1, max_size=4)


def opened(table: Any) -> Any:
    source = Source("reuna.toml", {"project": {"name": "p"}, "machines": table})
    return project_settings([source], TAKES).machines


def test_a_pattern_names_nodes_or_whole_sites() -> None:
    sites = {"hall-1": ["pump-1", "fan-1"], "hall-2": ["pump-2"]}
    found = groups(opened({"pumps": ["pump-*"], "old": ["hall-1", "pump-2"]}), sites)
    assert found == {"pumps": ["pump-1", "pump-2"], "old": ["fan-1", "pump-1", "pump-2"]}


@given(st.dictionaries(NAMES, st.lists(NAMES, unique=True), max_size=4))
def test_a_star_is_everybody_once_and_a_name_is_itself(sites: dict[str, list[str]]) -> None:
    nodes = sorted(node for found in sites.values() for node in found)
    assert groups({"all": ("*", "?*")}, sites) == {"all": nodes}
    for node in nodes:
        assert node in groups({"one": (node,)}, sites)["one"]


@pytest.mark.parametrize("patterns", ["pump-1", [], [1], [""]])
def test_what_is_no_list_of_names_is_one_mistake(patterns: Any) -> None:
    with pytest.raises(SettingsError, match="expected a list of names of nodes or sites"):
        opened({"pumps": patterns})
