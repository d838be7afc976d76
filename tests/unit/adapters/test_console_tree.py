"""What the console draws of a fleet whose fogs stand under fogs: its own script, run by node."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from reuna.trust.enrolment import Node, fogs_over, shape

NODE_JS = shutil.which("node")
pytestmark = pytest.mark.skipif(not NODE_JS, reason="no node here: `apt-get install nodejs`")
PAGE = files("reuna.adapters.operator_api").joinpath("page/console.js")
#: As fogs tell who is right below them.
TOLD = {"firm": ("kiln", "north"), "north": ("hall", "press"), "hall": ("saw",), "lab": ("robot",)}


def drawn(
    told: Mapping[str, tuple[str, ...]], silent: tuple[str, ...] = (), known: tuple[Node, ...] = ()
) -> Any:
    """Sites as the page nests them: each node with its class. The answers are made as the cloud makes them."""
    now = time.time()
    fogs = shape(known, told, now)
    above = {fog: over for fog, over in fogs_over(known, told).items() if fog in fogs}
    names = {*fogs, *(edge for edges in fogs.values() for edge in edges)}
    answers = {
        "/v1/fleet": {"fleet": "works", "fogs": fogs, "above": above},
        "/v1/nodes": dict.fromkeys(names - set(silent), now),
    }
    script = Path(__file__).parent / "console_in_node.js"
    done = subprocess.run(
        [str(NODE_JS), str(script), str(PAGE), json.dumps(answers)],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fleet"] == "works"
    return found["sites"]


def test_three_levels_are_drawn_one_in_the_other_each_node_once() -> None:
    hall = [["hall", "fog"], ["saw", "edge"]]
    north = [["north", "fog"], ["press", "edge"], hall]
    assert drawn(TOLD) == [[["firm", "fog"], ["kiln", "edge"], north], [["lab", "fog"], ["robot", "edge"]]]


def test_who_is_silent_is_marked_at_every_level_and_those_under_it_stay_where_they_are() -> None:
    firm, _ = drawn(TOLD, silent=("north", "saw"))
    assert firm[2] == [["north", "fog silent"], ["press", "edge"], [["hall", "fog"], ["saw", "edge silent"]]]


def test_a_fog_without_edges_of_its_own_has_the_fogs_under_it_alone() -> None:
    assert drawn({"firm": ("north",), "north": ("press",)}) == [
        [["firm", "fog"], [["north", "fog"], ["press", "edge"]]]
    ]


def test_a_name_that_every_object_has_is_a_node_like_others() -> None:
    found = drawn({"constructor": ("tostring",), "firm": ("kiln",)}, silent=("constructor",))
    assert found[0] == [["constructor", "fog silent"], ["tostring", "edge"]]


def test_those_under_a_fog_that_was_revoked_are_not_drawn_under_the_cloud() -> None:
    gone = Node("north", "fog", "firm", "s", "k", 1.0, 2e10, revoked=2.0)
    assert drawn(TOLD, known=(gone,)) == [
        [["firm", "fog"], ["kiln", "edge"]],
        [["lab", "fog"], ["robot", "edge"]],
    ]
