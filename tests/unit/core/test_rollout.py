"""What a rollout is asked to be: waves, windows, and the section of reuna.toml."""

from __future__ import annotations

import calendar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import SettingsError
from reuna.core.project import project_settings
from reuna.core.rollout import (
    RolloutSpec,
    Terms,
    Wave,
    in_waves,
    mistakes,
    named_waves,
    opens,
    places,
    window,
)
from reuna.core.settings import Source

SITES = {"e1": "north", "e2": "north", "e3": "south", "e4": "south", "e5": "west"}
names = st.sampled_from(["e1", "e5", "north", "south", "20%", "60%", "100%", "all"])


def spec(*waves: Wave | str, sha256: str = "2" * 64) -> RolloutSpec:
    found = tuple(Wave(each) if isinstance(each, str) else each for each in waves)
    return RolloutSpec("ro-1", "pumps", 2, sha256, found)


def at(text: str) -> float:
    """Epoch seconds of a day of 2026-11 and a time, UTC."""
    day, hour, minute = map(int, text.replace(":", " ").split())
    return float(calendar.timegm((2026, 11, day, hour, minute, 0)))


@given(st.lists(names, min_size=1, max_size=5, unique=True))
def test_nobody_is_in_two_waves_and_all_takes_everybody(waves: list[str]) -> None:
    found = in_waves(spec(*waves), SITES)
    flat = [node for wave in found for node in wave]
    assert len(flat) == len(set(flat))
    assert set(flat) <= set(SITES)
    if {"all", "100%"} & {*waves}:
        assert set(flat) == set(SITES)
        assert places(spec(*waves), found) == ()
    else:
        covered = set(places(spec(*waves), found))
        assert set(flat) == {node for node, site in SITES.items() if {node, site} & covered}


def test_a_share_counts_those_before_it_and_is_drawn_by_the_release() -> None:
    found = in_waves(spec("e1", "40%", "all"), SITES)
    assert [len(wave) for wave in found] == [1, 1, 3]
    drawn = {in_waves(spec("20%", sha256=f"{number:064x}"), SITES)[0] for number in range(40)}
    assert len(drawn) == len(SITES), "it is not the same machine each time"


def test_a_type_of_machine_is_its_nodes_and_a_node_is_itself() -> None:
    machines = {"small": ("e?",), "south": ("e1",), "none": ("x",)}
    found = named_waves(["small", "south", "e5", "25%"], machines, SITES)
    assert found[0].members == tuple(sorted(SITES))
    assert found[1:] == (Wave("south"), Wave("e5"), Wave("25%")), "a site is not taken for a type"


@pytest.mark.parametrize(
    ("windows", "now", "opened"),
    [
        ((), "27 12:00", "27 12:00"),
        (("22:00-04:00",), "27 12:00", "27 22:00"),
        (("22:00-04:00",), "28 03:59", "28 03:59"),
        (("22:00-04:00",), "28 04:00", "28 22:00"),
        (("sat 22:00-04:00",), "29 03:00", "29 03:00"),  # the night from Saturday to Sunday
        (("sat 22:00-04:00",), "28 03:00", "28 22:00"),
        (("mon 06:00-07:00", "sun 06:00-07:00"), "27 12:00", "29 06:00"),
    ],
)
def test_a_wave_waits_until_a_window_opens(windows: tuple[str, ...], now: str, opened: str) -> None:
    assert opens(windows, at(now)) == at(opened)


@pytest.mark.parametrize(
    "text", ["", "noon", "22:00", "22:00-22:00", "22:00-25:00", "day 22:00-23:00", "sat sat 1:00-2:00"]
)
def test_what_is_no_window_is_said(text: str) -> None:
    assert isinstance(window(text), str)
    assert mistakes(RolloutSpec("r", "p", 1, "2" * 64, terms=Terms(windows=(text,))))


def settings(**rollout: object) -> Source:
    return Source("reuna.toml", {"project": {"name": "pumps"}, "rollout": rollout})


def test_the_section_of_a_project_gives_terms_and_waves() -> None:
    found = project_settings(
        [settings(waves=["e1", "all"], soak_s=60, windows=["22:00-04:00"])], {"fedavg": ()}
    )
    assert found.rollout.waves == ("e1", "all")
    assert found.rollout.terms == Terms(soak_s=60.0, windows=("22:00-04:00",))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"waves": []}, "has 0 waves"),
        ({"waves": ["150%"]}, "names '150%'"),
        ({"windows": ["at night"]}, "'at night' is no window"),
        ({"errors": 2.0}, "rollout.errors"),
        ({"soak": 1.0}, "did you mean rollout.soak_s"),
    ],
)
def test_a_mistake_in_the_section_is_named(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        project_settings([settings(**wrong)], {"fedavg": ()})
