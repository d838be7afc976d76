"""What nodes may say before a run, and what it adds up to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core import readiness
from reuna.core.errors import SettingsError
from reuna.core.readiness import ABOUT, FLOWS, Module, Needs, allowed, as_settings, needs_of, word_of, worse
from reuna.core.records import Said

NEEDS = Needs((Module("torch", "torch", "2.13.0"), Module("numpy")), ("all",), "ab")
REASONS = {"code-ask", "window"}
SAID = st.lists(
    st.builds(Said, st.sampled_from(list(ABOUT)), st.sampled_from(["yes", "wait", "no"])),
    unique_by=lambda each: each.about,
)


def test_needs_travel_among_the_settings_and_the_learner_does_not_see_them() -> None:
    settings = {"epochs": 2, **as_settings(NEEDS)}
    assert needs_of(settings) == NEEDS
    assert readiness.plain(settings) == {"epochs": 2}
    assert needs_of({}) == Needs()
    assert needs_of({"check": '{"window":true,"later":1}'}) == Needs(window=True), "of a newer version, too"


@pytest.mark.parametrize("text", ["[]", '{"modules": 1}', "\udce4", "{"])
def test_a_text_that_says_no_needs_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        needs_of({readiness.KEY: text})


def test_nobody_asks_for_more_modules_than_there_may_be() -> None:
    many = Needs(tuple(Module(f"m{number}") for number in range(readiness.MAX_MODULES + 1)))
    with pytest.raises(SettingsError, match="201 modules"):
        needs_of(as_settings(many))


@pytest.mark.parametrize(
    "said",
    [
        Said("code", "wait", "code-ask"),
        Said("code", "no", "R107"),
        Said("contract", "no", "R114"),
        Said("libraries", "no", "torch"),
        Said("memory", "yes", "lower-bound"),
        Said("model_update", "wait", "window"),
    ],
)
def test_words_of_the_closed_lists_are_allowed(said: Said) -> None:
    assert allowed([said], NEEDS, REASONS)


@pytest.mark.parametrize(
    "said",
    [
        Said("weather", "no"),
        Said("code", "no", "row 7: 0.25"),
        Said("libraries", "no", "pandas"),  # nobody asked for that one
        Said("memory", "no", "code-ask"),
        Said("model_update", "no", "R114"),
        Said("contract", "no", "lower-bound"),
    ],
)
def test_any_other_word_is_not(said: Said) -> None:
    assert not allowed([said], NEEDS, REASONS)


def test_of_each_thing_one_word_and_of_each_module_one() -> None:
    twice = [Said("code"), Said("code", "no", "code-ask")]
    assert not allowed(twice, NEEDS, REASONS)
    modules = [Said("libraries", "no", "torch"), Said("libraries", "yes", "numpy")]
    assert allowed(modules, NEEDS, REASONS)
    assert not allowed([*modules, modules[0]], NEEDS, REASONS)


def test_what_nobody_speaks_of_is_no_yes() -> None:
    assert word_of([], "code") == "no"
    assert word_of([Said("libraries"), Said("libraries", "no", "torch")], "libraries") == "no"


@given(SAID, SAID)
def test_two_places_are_never_readier_than_one_of_them(edge: list[Said], fog: list[Said]) -> None:
    both = worse(edge, fog)
    rank = ("yes", "wait", "no").index
    assert [each.about for each in both] == [each.about for each in edge]
    for before, after in zip(edge, both, strict=True):
        others = [each for each in fog if each.about == before.about and before.about in FLOWS]
        assert rank(after.word) == max(rank(before.word), *(rank(each.word) for each in others), 0)


def test_counts_that_stay_stand_in_nobodys_way() -> None:
    said = (Said("code"), Said("statistic", "no", "window"), Said("metric", "wait", "window"))
    assert readiness.against(said) == (said[2],)


def test_memory_counts_every_model_that_a_worker_holds_and_both_limits() -> None:
    found = readiness.memory(Needs(), 100.0, 600.0, 10.0, 2_000.0, 8_192.0)
    assert found == {"memory_needed_mib": 100 + readiness.MODELS * 10, "memory_free_mib": 2_000.0}
    assert readiness.fits(found)
    narrow = readiness.memory(
        Needs(), 100.0, 600.0, 10.0, 2_000.0, 640.0
    )  # of address space 500 MiB are gone
    assert narrow["memory_free_mib"] == 140.0
    assert not readiness.fits(narrow)
    assert not readiness.fits(readiness.memory(Needs(), 100.0, 100.0, 10.0, 150.0, 8_192.0))
    torch = readiness.memory(NEEDS, 100.0, 600.0, 10.0, 2_000.0, 8_192.0)
    assert torch["memory_needed_mib"] - found["memory_needed_mib"] == readiness.FIRST_FIT["torch"]
