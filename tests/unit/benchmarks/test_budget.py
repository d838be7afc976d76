"""Where the time of a round goes: which processes are looked at, and what their stacks are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.budget import PLACE, purpose, shares
from reuna.fleet.place import command


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("kind", ["cloud", "fog", "edge"])
def test_a_place_is_known_by_what_starts_it(kind: str, debug: bool) -> None:
    found = PLACE.search(" ".join(command(kind, Path("settings.toml"), debug=debug)))
    assert found is not None
    assert found[1] == kind


def test_a_stack_is_for_what_its_innermost_known_call_is_for() -> None:
    assert purpose("main (reuna/fleet/place.py:1);fsync (os.py:2)") == "disk: write, fsync, rename"
    assert purpose("main (here.py:1);deeper (here.py:2)") == "the rest"


def test_shares_are_of_all_samples() -> None:
    lines = ["a (ssl.py:1) 3", "b (here.py:1) 1", "not a sample"]
    assert shares(lines) == {"TLS": 0.75, "the rest": 0.25}
