"""The desired state of a fleet: what its files may say, and every mistake at its place."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.adapters.toml_file import parse_toml
from reuna.core.desired import Desired, Placement, desired, desired_schema
from reuna.core.errors import SettingsError
from reuna.core.trigger import Budget, Trigger

WHOLE = """
[fleet]
name = "mill"

[cohorts.canary]
members = ["press-1", "south"]

[projects.pumps]
champion = 3
rollout = true

[placements.pumps]
project = "pumps"
waves = ["canary", "all"]
soak_s = 3600

[schedules.nightly]
again = "r-20261127-104500-3f9a"
at = "02:30"
days = ["sun", "mon"]

[placements.fans-old]
project = "fans"
version = 2
waves = ["west"]

[triggers.moved]
on = "drift"
again = "r-1"
kinds = ["machine", "process"]
machines = 2
for_s = 600
budget = { runs = 2, days = 7 }
quiet = "22:00-06:00"
approval = true

[triggers.new]
on = "nodes"
again = "r-1"
"""


def read(*files: str) -> Desired:
    return desired([parse_toml(f"{number}.toml", text.encode()) for number, text in enumerate(files, 1)])


def said(*files: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(*files)
    return caught.value.message.splitlines()


def test_the_whole_of_it_is_read() -> None:
    found = read(WHOLE)
    assert (found.fleet, found.champions, found.cohorts) == (
        "mill",
        {"pumps": 3},
        {"canary": ("press-1", "south")},
    )
    assert found.placements == (
        Placement("fans-old", "fans", 2, ("west",)),
        Placement("pumps", "pumps", 0, ("canary", "all"), 3600.0),
    )
    assert found.projects == {"fans", "pumps"}
    assert found.triggers == {
        "nightly": Trigger("nightly", "r-20261127-104500-3f9a", "02:30", ("mon", "sun")),
        "moved": Trigger(
            "moved", "r-1", on="drift", kinds=("process", "machine"), machines=2, for_s=600.0, cooldown_s=86_400.0,
            budget=Budget(2, 7), quiet="22:00-06:00", approval=True,
        ),
        "new": Trigger("new", "r-1", on="nodes", cooldown_s=86_400.0, budget=Budget(4, 30)),
    }  # fmt: skip
    assert found.places["placements.fans-old.version"] == "1.toml:24:1"


def test_it_may_lie_in_as_many_files_as_people_like() -> None:
    parts = [
        "[fleet]\nname = 'mill'\n",
        "[projects.pumps]\nchampion = 3\n",
        "[placements.x]\nproject = 'pumps'\n",
    ]
    assert read(*parts).placements == (Placement("x", "pumps", 0),)


def test_a_part_that_is_said_twice_is_a_mistake_at_the_second_place() -> None:
    more = "[cohorts.canary]\nmembers = ['press-2']\n"
    assert said(WHOLE, more) == ["2.toml:1:2: cohorts.canary is said twice"]


def test_two_names_of_the_fleet_are_a_mistake_and_so_is_none() -> None:
    assert said(WHOLE, "[fleet]\nname = 'other'\n") == [
        "1.toml:3:1: fleet.name is 'mill', elsewhere another",
        "2.toml:2:1: fleet.name is 'other', elsewhere another",
    ]
    assert said("[projects.pumps]\nchampion = 3\n")[0].startswith("1.toml: fleet.name is missing")


MISTAKES = {
    "[placements.x]\nproject = 'ovens'\nversion = 1\nfollows = 'champion'\n": "2.toml:1:2: placements.x has a version",
    "[placements.x]\nproject = 'ovens'\nfollows = 'previous'\n": "2.toml:3:1: placements.x.follows is 'previous', must be",
    "[placements.x]\nversion = 3\n": "2.toml:1:2: placements.x needs project",
    "[placements.x]\nproject = ''\nversion = 1\n": "2.toml:2:1: placements.x.project is '', must be the name",
    "[placements.x]\nproject = 'p'\nversion = '1'\n": "2.toml:3:1: placements.x.version is '1', expected a whole number",
    "[placements.x]\nproject = 'p'\nversion = 0\n": "2.toml:3:1: placements.x.version is 0, must be between 1",
    "[placements.x]\nproject = 'p'\nversion = 1\nwaves = []\n": "2.toml:4:1: placements.x.waves is [], must name at least 1",
    "[placements.x]\nproject = 'p'\nversion = 1\nwaves = ['A']\n": "2.toml:4:1: placements.x.waves is ['A'], names no",
    "[placements.x]\nproject = 'p'\nversion = 1\nwaves = ['a', 'a']\n": "2.toml:4:1: placements.x.waves is ['a', 'a'], names one twice",
    "[placements.x]\nproject = 'p'\nversion = 1\nsoak_s = -1\n": "2.toml:4:1: placements.x.soak_s is -1, must be between",
    "[placements.x]\nproject = 'p'\nversion = 1\nsoak = 1\n": "2.toml:4:1: placements.x.soak is not a setting; did you mean soak_s?",
    "[placements]\nx = 3\n": "2.toml:2:1: placements.x is 3, expected a table with project",
    "[cohorts.all]\nmembers = ['a']\n": "2.toml:1:2: cohorts.all cannot be called so",
    "[cohorts.both]\nmembers = ['canary']\n": "2.toml:2:1: cohorts.both.members names 'canary', which is a cohort",
    "[cohorts.none]\n": "2.toml:1:2: cohorts.none needs members",
    "[projects.ovens]\n": "2.toml:1:2: projects.ovens needs champion",
    "[placements.x]\nproject = 'p'\nversion = 1\nwaves = ['canary', 'all']\n": (
        "2.toml:4:1: placements.x.waves is for a rollout: say projects.p.rollout = true"
    ),
    "[placements.x]\nproject = 'p'\nversion = 1\nsoak_s = 1\n": (
        "2.toml:4:1: placements.x.soak_s is for a rollout: say projects.p.rollout = true"
    ),
    "[placements.x]\nproject = 'pumps'\nversion = 1\n": (
        "2.toml:1:2: placements.x is of pumps, which placements.pumps rolls out"
    ),
    "[schedules.x]\ncron = '1d'\n": "2.toml:2:1: schedules.x.cron is not a setting",
    "[schedules.x]\nagain = 'r'\n": "2.toml:1:2: schedules.x needs at or every, one of them",
    "[schedules.x]\nagain = 'r'\nat = '02:30'\nevery = '1d'\n": "2.toml:1:2: schedules.x needs at or every",
    "[schedules.x]\nagain = 'r'\nevery = '9s'\n": "2.toml:3:1: schedules.x.every is '9s', must be from 10 s",
    "[schedules.x]\nagain = 'r'\nevery = '1w'\n": "2.toml:3:1: schedules.x.every is '1w', must be a number of",
    "[schedules.x]\nagain = 'r'\nevery = '1d'\ndays = ['mon']\n": "2.toml:1:2: schedules.x days go with at",
    "[projects.x]\n": "2.toml:1:2: projects.x needs champion or release_from",
    "[projects.x]\nrelease_from = ''\n": "2.toml:2:1: projects.x.release_from is '', must be a folder",
    "[schedules.x]\nat = '02:30'\n": "2.toml:1:2: schedules.x needs again",
    "[schedules.x]\nagain = 'r'\nat = '24:30'\n": "2.toml:3:1: schedules.x.at is '24:30', must be a time of day",
    "[schedules.x]\nagain = '../r'\nat = '02:30'\n": "2.toml:2:1: schedules.x.again is '../r', must be the name",
    "[schedules.x]\nagain = 'r'\nat = '02:30'\ndays = ['so']\n": "2.toml:4:1: schedules.x.days is ['so'], must be some",
    "[schedules.X]\nagain = 'r'\nat = '02:30'\n": "2.toml:1:2: schedules.X is no name",
    "[triggers.x]\nagain = 'r'\n": "2.toml:1:2: triggers.x needs on",
    "[triggers.x]\non = 'clock'\nagain = 'r'\n": "2.toml:2:1: triggers.x.on is 'clock', must be one of drift, nodes",
    "[triggers.x]\non = 'drift'\nagain = 'r'\nkinds = ['all']\n": "2.toml:4:1: triggers.x.kinds is ['all'], must be some",
    "[triggers.x]\non = 'drift'\nagain = 'r'\nbudget = { runs = 0, days = 1 }\n": "2.toml:4:1: triggers.x.budget is",
    "[triggers.x]\non = 'drift'\nagain = 'r'\nquiet = '22-06'\n": "2.toml:4:1: triggers.x.quiet is '22-06', must be two",
    "[triggers.x]\non = 'drift'\nagain = 'r'\ncooldown_s = 0\n": "2.toml:4:1: triggers.x.cooldown_s is 0, must be between",
    "[triggers.x]\non = 'nodes'\nagain = 'r'\nmetric = 'level'\n": "2.toml:1:2: triggers.x metric goes with drift",
    "[triggers.x]\non = 'nodes'\nagain = 'r'\nat = '02:30'\n": "2.toml:4:1: triggers.x.at is not a setting",
    "[triggers.nightly]\non = 'nodes'\nagain = 'r'\n": "2.toml:1:2: triggers.nightly has the name of a schedule",
    "[triggers.X]\non = 'nodes'\nagain = 'r'\n": "2.toml:1:2: triggers.X is no name",
    "[projects.ovens]\nchampion = 1\ncanary = 'a'\n": "2.toml:3:1: projects.ovens.canary is not a setting",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_named_at_its_place(text: str) -> None:
    found = said(WHOLE, text)
    assert any(line.startswith(MISTAKES[text]) for line in found), found


def test_all_mistakes_come_at_once() -> None:
    found = said(WHOLE, *MISTAKES)
    assert len(found) >= len(MISTAKES)


def test_a_wave_cannot_be_one_of_too_many() -> None:
    waves = [f"w{number}" for number in range(33)]
    assert "more than 32 waves" in said(WHOLE, f"[placements.x]\nproject='p'\nversion=1\nwaves={waves}\n")[0]


KEYS = st.sampled_from(
    [
        "fleet",
        "name",
        "cohorts",
        "members",
        "projects",
        "champion",
        "placements",
        "waves",
        "x",
        "project",
        "version",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, VALUES, max_size=5), st.dictionaries(KEYS, VALUES, max_size=5))
def test_whatever_the_files_say_it_is_read_or_refused(
    one: dict[str, object], other: dict[str, object]
) -> None:
    from reuna.core.settings import Source

    with suppress(SettingsError):
        desired([Source("a.toml", one), Source("b.toml", other)])


def test_the_published_schema_takes_what_is_read_and_refuses_what_is_not() -> None:
    import tomllib

    page = Path(__file__).parents[3] / "docs" / "reference" / "fleet.schema.json"
    found = desired_schema()
    assert json.loads(page.read_text()) == found
    jsonschema.validate(tomllib.loads(WHOLE), found)
    for text in ("[schedules.x]\ncron = '1d'\n", "[placements.x]\nversion = '1'\n"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(tomllib.loads(text), found)
