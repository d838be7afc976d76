"""What the cloud believes of what a fog tells: of itself and of its own edges, and no word of the cloud's own."""

from __future__ import annotations

from typing import Any

import pytest

from reuna.cloud.coordinator import OWN_WORDS, Coordinator
from reuna.core.records import Event

FOGS = ("north", "south")


@pytest.fixture
def cloud() -> Coordinator:
    nothing: Any = None
    made = Coordinator("cloud", nothing, nothing, nothing, nothing, nothing, nothing)
    made.sites = {"edge-1": "north", "edge-2": "south"}
    return made


def told(cloud: Coordinator, node: str, what: str = "sat out") -> bool:
    return cloud.may_tell("north", Event(node, "b", 1, 0.0, what, "r-1"), FOGS)


def test_a_fog_tells_of_itself_and_of_its_edges(cloud: Coordinator) -> None:
    assert told(cloud, "north")
    assert told(cloud, "edge-1")
    assert told(cloud, "edge-that-no-run-has-yet")


@pytest.mark.parametrize("node", ["south", "edge-2", "cloud"])
def test_a_fog_does_not_tell_of_another_fog_its_edges_or_the_cloud(cloud: Coordinator, node: str) -> None:
    assert not told(cloud, node)


@pytest.mark.parametrize("what", sorted(OWN_WORDS))
def test_what_the_cloud_says_of_a_run_nobody_else_says(cloud: Coordinator, what: str) -> None:
    assert not told(cloud, "north", what)
    assert not told(cloud, "edge-1", what)


def test_the_words_of_the_cloud_are_those_that_a_run_reports() -> None:
    """Planted: a word that the conductor begins to say must be its own."""
    import inspect
    import re

    from reuna.cloud import train

    said = re.findall(r'_report\(spec, "(\w+)"', inspect.getsource(train))
    assert {*said, "local", "evaluate"} == OWN_WORDS
