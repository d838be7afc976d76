"""What a scenario of `reuna test` is found to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.project import project_settings
from reuna.core.settings import Source
from reuna.learn.strategies import TAKES
from reuna.sim.judge import (
    FAILED,
    LEFT_OUT,
    PASSED,
    WARNED,
    Limits,
    Played,
    chance,
    judge_all,
    judge_fault,
    judge_undisturbed,
    losses,
    passed,
)

CHANCE = {"a": 0.2, "b": 0.3, "c": 0.1}
GOOD = {"a": 0.9, "b": 0.95, "c": 0.8}
WHOLE = Played("undisturbed", scores=GOOD, rounds=10, counted=0, model="m0")


def limits(metric: str = "all", strategy: str = "fedavg", **asked: Any) -> Limits:
    values = {"project": {"name": "p"}, "test": asked}
    return Limits(metric, project_settings([Source("reuna.toml", values)], TAKES).test, strategy)


def hit(name: str, scores: Mapping[str, float], **more: Any) -> Played:
    facts = {"site": "a", "rounds": 10, "counted": 5 if name == "dropout" else 10, "model": "m1", **more}
    return Played(name, scores=scores, **facts)


# --- nothing goes wrong -----------------------------------------------------------------------


def test_a_model_that_beats_chance_at_every_site_passes_and_names_the_worst() -> None:
    found = judge_undisturbed(WHOLE, CHANCE, limits())
    assert (found.status, found.why) == (PASSED, "worst site c: 0.8, by chance 0.1")


@pytest.mark.parametrize("site", ["a", "b", "c"])
def test_one_site_where_nothing_is_learnt_fails_the_run(site: str) -> None:
    found = judge_undisturbed(Played("undisturbed", scores={**GOOD, site: CHANCE[site]}), CHANCE, limits())
    assert found.status == FAILED
    assert f"no better than chance: {site} " in found.why


def test_a_hair_beyond_chance_is_not_learning() -> None:
    """A twentieth of the way to a faultless score is the least."""
    just, hair = 0.2 + 0.05 * 0.8 + 1e-9, 0.2 + 0.05 * 0.8 - 1e-9
    for score, status in ((just, PASSED), (hair, FAILED)):
        found = judge_undisturbed(Played("undisturbed", scores={"a": score}), {"a": 0.2}, limits())
        assert found.status == status


def test_where_less_is_better_the_worst_site_has_the_largest_error() -> None:
    played = Played("undisturbed", scores={"a": 12.0, "b": 15.0})
    found = judge_undisturbed(played, {"a": 40.0, "b": 42.0}, limits("rmse"))
    assert (found.status, found.why) == (PASSED, "worst site b: 15, by chance 42")
    dull = judge_undisturbed(played, {"a": 40.0, "b": 15.5}, limits("rmse"))
    assert dull.status == FAILED


@pytest.mark.parametrize(
    ("metric", "least", "status"),
    [("all", 0.8, PASSED), ("all", 0.81, FAILED), ("rmse", 0.95, PASSED), ("rmse", 0.94, FAILED)],
)
def test_a_stated_minimum_is_held_against_the_worst_site(metric: str, least: float, status: str) -> None:
    found = judge_undisturbed(WHOLE, CHANCE, limits(metric, min_score=least))
    assert found.status == status
    assert f"{least:g}" in found.why


def test_a_stated_minimum_stands_in_the_place_of_chance() -> None:
    dull = Played("undisturbed", scores=CHANCE)
    assert judge_undisturbed(dull, CHANCE, limits(min_score=0.05)).status == PASSED


def test_a_run_that_ends_early_or_measures_nothing_fails() -> None:
    assert "diverged" in judge_undisturbed(Played("undisturbed", broke="it diverged"), {}, limits()).why
    assert judge_undisturbed(Played("undisturbed"), CHANCE, limits()).status == FAILED


def test_a_score_that_cannot_be_compared_with_the_first_models_fails() -> None:
    found = judge_undisturbed(WHOLE, {"a": 0.2, "b": 0.3}, limits())
    assert (found.status, found.why) == (FAILED, "the first model cannot be scored at c")


# --- what chance gives ------------------------------------------------------------------------


def test_chance_is_the_better_of_the_first_model_and_of_shuffled_labels() -> None:
    untrained = Played("untrained", scores={"a": 0.2, "b": 0.5})
    luck = Played("shuffled", scores={"a": 0.4, "b": 0.3}, model="m9")
    assert chance(untrained, luck, WHOLE, lower=False) == {"a": 0.4, "b": 0.5}
    assert chance(untrained, luck, WHOLE, lower=True) == {"a": 0.2, "b": 0.3}
    assert chance(untrained, None, WHOLE, lower=False) == {"a": 0.2, "b": 0.5}


def test_a_learner_that_reads_no_labels_is_not_compared_with_itself() -> None:
    untrained, same = Played("untrained", scores=CHANCE), Played("shuffled", scores=GOOD, model="m0")
    by_chance = chance(untrained, same, WHOLE, lower=False)
    assert by_chance == CHANCE
    assert judge_undisturbed(WHOLE, by_chance, limits()).status == PASSED


# --- something goes wrong ---------------------------------------------------------------------


def test_a_fault_that_costs_others_little_passes() -> None:
    found = judge_fault(hit("dropout", {**GOOD, "b": 0.9}), WHOLE, CHANCE, limits())
    assert found.status == PASSED
    assert found.why == "b fell most, from 0.95 to 0.9: 8 % of its gain over chance"
    assert set(found.losses) == {"b", "c"}


@pytest.mark.parametrize("fault", ["dropout", "poisoned"])
def test_what_the_hit_site_itself_loses_is_not_judged(fault: str) -> None:
    found = judge_fault(hit(fault, {**GOOD, "a": 0.0}), WHOLE, CHANCE, limits(required=["poisoned"]))
    assert found.status == PASSED
    assert "no other site fell" in found.why


def test_late_labels_are_judged_at_the_site_that_lacks_them_too() -> None:
    found = judge_fault(hit("late-labels", {**GOOD, "a": 0.5}), WHOLE, CHANCE, limits())
    assert found.status == FAILED
    assert found.why.startswith("a fell most")


@pytest.mark.parametrize(
    ("fault", "required", "status"),
    [
        ("dropout", [], FAILED),
        ("late-labels", [], FAILED),
        ("poisoned", [], WARNED),
        ("poisoned", ["poisoned"], FAILED),
        ("poisoned", ["dropout"], WARNED),
    ],
)
@pytest.mark.parametrize("played", [{"c": 0.1}, {}], ids=["fell", "broke"])
def test_a_loss_fails_and_that_to_a_liar_only_warns_unless_asked(
    fault: str, required: list[str], status: str, played: dict[str, float]
) -> None:
    run = hit(fault, {**GOOD, **played}) if played else hit(fault, {}, broke="it diverged")
    found = judge_fault(run, WHOLE, CHANCE, limits(required=required))
    assert found.status == status


@pytest.mark.parametrize(("allowed", "status"), [(0.25, FAILED), (0.5, PASSED)])
def test_how_much_may_be_lost_is_the_projects_to_say(allowed: float, status: str) -> None:
    run = hit("dropout", {**GOOD, "c": 0.5})  # 0.3 of 0.7
    assert judge_fault(run, WHOLE, CHANCE, limits(max_lost=allowed)).status == status


def test_a_quorum_that_holds_the_run_warns_and_fails_where_it_is_required() -> None:
    run = hit("dropout", GOOD, held="round.quorum is 1")
    assert judge_fault(run, WHOLE, CHANCE, limits()).status == WARNED
    assert judge_fault(run, WHOLE, CHANCE, limits(required=["dropout"])).status == FAILED
    fell = hit("dropout", {**GOOD, "b": 0.3}, held="round.quorum is 1")
    assert judge_fault(fell, WHOLE, CHANCE, limits()).status == FAILED


def test_a_site_that_was_away_and_yet_counted_is_noticed() -> None:
    found = judge_fault(hit("dropout", GOOD, counted=6), WHOLE, CHANCE, limits())
    assert found.status == FAILED
    assert "its updates were counted in 6 of 10 rounds" in found.why


@pytest.mark.parametrize("fault", ["poisoned", "late-labels"])
def test_a_fault_that_changes_no_bit_proves_nothing(fault: str) -> None:
    run = hit(fault, GOOD, model="m0")
    assert judge_fault(run, WHOLE, CHANCE, limits()).status == LEFT_OUT
    assert judge_fault(run, WHOLE, CHANCE, limits(required=[fault])).status == FAILED


def test_what_cannot_be_played_or_compared_is_left_out_with_the_reason() -> None:
    unplayable = Played("dropout", "a", unplayable="there is one site only")
    assert judge_fault(unplayable, WHOLE, CHANCE, limits()).why == "there is one site only"
    nothing = Played("undisturbed", scores=CHANCE, model="m0")
    assert judge_fault(hit("dropout", GOOD), nothing, CHANCE, limits()).status == LEFT_OUT


@pytest.mark.parametrize("whole", [Played("undisturbed", broke="it diverged"), replace(WHOLE, scores=CHANCE)])
def test_no_fault_is_judged_when_the_run_without_it_has_failed(whole: Played) -> None:
    untrained, fell = Played("untrained", scores=CHANCE), hit("dropout", dict.fromkeys(GOOD, 0.0))
    _, found = judge_all([untrained, whole, fell], limits(required=["dropout"]))
    assert [each.verdict.status for each in found] == [FAILED, LEFT_OUT]
    _, found = judge_all([untrained, WHOLE, fell], limits())
    assert [each.verdict.status for each in found] == [PASSED, FAILED]


def test_what_is_played_to_know_chance_is_no_scenario_of_its_own() -> None:
    untrained, luck = (
        Played("untrained", scores=CHANCE),
        Played("shuffled", scores={**CHANCE, "c": 0.6}, model="m9"),
    )
    by_chance, found = judge_all([untrained, WHOLE, luck, hit("dropout", GOOD)], limits())
    assert by_chance == {**CHANCE, "c": 0.6}
    assert [each.played.name for each in found] == ["undisturbed", "dropout"]


def test_it_is_said_that_a_mean_has_no_defence_against_a_liar() -> None:
    run = hit("poisoned", {**GOOD, "c": 0.1})
    assert (
        "fedavg takes a weighted mean, which has no defence" in judge_fault(run, WHOLE, CHANCE, limits()).why
    )
    robust = judge_fault(run, WHOLE, CHANCE, limits(strategy="median")).why
    assert "counted in 10 of 10 rounds" in robust
    assert "no defence" not in robust
    cut = judge_fault(hit("poisoned", GOOD, clipped=7), WHOLE, CHANCE, limits()).why
    assert "the grid cut 7 values, fedavg takes a weighted mean" in cut
    refused = judge_fault(hit("poisoned", GOOD, counted=0), WHOLE, CHANCE, limits()).why
    assert "counted in 0 of 10 rounds" in refused
    assert "no defence" not in refused


def test_one_failure_fails_all_and_a_warning_does_not() -> None:
    assert passed([PASSED, WARNED, LEFT_OUT])
    assert not passed([PASSED, FAILED])


SCORES = st.fixed_dictionaries({site: st.floats(0, 1) for site in CHANCE})


@given(SCORES, SCORES, st.booleans())
def test_a_loss_does_not_change_when_the_metric_is_scaled_or_turned_round(
    before: dict[str, float], after: dict[str, float], lower: bool
) -> None:
    """So one limit fits an F1 and an error in cycles."""

    def lost(scale: float, low: bool) -> dict[str, float]:
        whole, run, luck = (
            {site: scale * value for site, value in scores.items()} for scores in (before, after, CHANCE)
        )
        return losses(hit("dropout", run), Played("undisturbed", scores=whole), luck, low)

    found = lost(1.0, lower)
    assert lost(-8.0, not lower) == found
    assert lost(0.25, lower) == found


@given(SCORES, SCORES, st.sampled_from(["a", "b", "c"]), st.floats(0, 1))
def test_a_better_score_never_turns_a_pass_into_a_failure(
    before: dict[str, float], after: dict[str, float], site: str, more: float
) -> None:
    whole = Played("undisturbed", scores=before, model="m0")
    better = {**after, site: after[site] + more}
    statuses = [
        judge_fault(hit("late-labels", scores), whole, CHANCE, limits()).status for scores in (after, better)
    ]
    assert statuses != [PASSED, FAILED]
