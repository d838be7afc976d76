"""Slots, self-test, shadow, trial, and the way back, one at a time."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from reuna.core.health import Health
from reuna.loop.operate import (
    MOST_GIVEN_UP,
    Booted,
    Choice,
    Chosen,
    Counts,
    Failed,
    Fill,
    GivenUp,
    Put,
    Ran,
    Run,
    SelfTest,
    SelfTested,
    State,
    Trial,
    Which,
    due,
    running,
    step,
)
from tests.operating import HEALTHY, RULES, Machine, which

ONE, TWO, THREE = which(1), which(2), which(3)


def machine_with(*kinds: str) -> Machine:
    """Releases 1, 2, … are of these kinds; the first is confirmed."""
    machine = Machine((kinds[-1], *kinds[:-1]))
    machine.happen(Chosen(Choice((ONE,))))
    machine.settle()
    assert running(machine.state) is not None
    return machine


def choose(machine: Machine, live: Which | None, shadow: Which | None = None, *held: Which) -> None:
    machine.happen(Chosen(Choice(held or (THREE, TWO, ONE), live, shadow)))


def to_trial(machine: Machine, of: Which) -> None:
    choose(machine, of)
    while machine.work():
        pass
    assert machine.state.phase == "trial"


def version(machine: Machine) -> int:
    copy = running(machine.state)
    return copy.which.version if copy else 0


def test_the_first_release_is_copied_tests_itself_and_is_on_trial() -> None:
    machine = Machine(("good",))
    machine.happen(Chosen(Choice((ONE,))))
    assert due(machine.state) == (Run(), Fill("a", ONE))
    machine.work()
    assert due(machine.state) == (Run(), SelfTest("a", ONE.digest))
    machine.work()
    assert due(machine.state) == (Run("a"),)
    assert (machine.state.phase, version(machine)) == ("trial", 1)


def test_a_trial_ends_after_its_time_and_its_windows_not_before() -> None:
    machine = Machine(("good",))
    machine.happen(Chosen(Choice((ONE,))))
    machine.work()
    machine.work()
    machine.happen(Ran(100.0, Counts(windows=3)))
    assert machine.state.phase == "trial", "three windows are too few"
    machine.state = replace(machine.state, trial=Trial())
    machine.happen(Ran(9.0, HEALTHY))
    assert machine.state.phase == "trial", "nine seconds are too short"
    machine.happen(Ran(1.0))
    assert machine.state.phase == "confirmed"


def test_where_no_machine_is_read_the_time_alone_counts() -> None:
    machine = Machine(("good",))
    machine.happen(Chosen(Choice((ONE,))))
    machine.work()
    machine.work()
    machine.happen(Ran(10.0, reads=False))
    assert machine.state.phase == "confirmed"


def test_a_clock_that_jumps_ends_no_trial() -> None:
    machine = Machine(("good",))
    machine.happen(Chosen(Choice((ONE,))))
    machine.work()
    machine.work()
    machine.state, _ = step(machine.state, Ran(-1e9, HEALTHY), now=1e12)
    assert machine.state.phase == "trial"


def test_the_next_release_goes_to_the_other_slot_while_the_first_goes_on() -> None:
    machine = machine_with("good", "good")
    choose(machine, TWO)
    assert due(machine.state) == (Run("a"), Fill("b", TWO))
    machine.work()
    assert due(machine.state) == (Run("a"), SelfTest("b", TWO.digest))
    machine.work()
    assert due(machine.state) == (Run("b"),)


def test_without_a_stage_the_newest_that_is_held_goes_live() -> None:
    machine = machine_with("good", "good", "good")
    machine.happen(Chosen(Choice((THREE, TWO, ONE))))
    machine.settle()
    assert version(machine) == 3


def test_what_fails_its_test_never_answers_and_is_not_tried_again() -> None:
    machine = machine_with("good", "fails its test")
    choose(machine, TWO)
    machine.settle()
    assert (version(machine), machine.state.phase, machine.state.reason) == (1, "rolled_back", "self-test")
    assert machine.state.detail == "row 1 is off"
    choose(machine, TWO)
    assert due(machine.state) == (Run("a"),)


def test_another_rollout_has_it_tried_again() -> None:
    machine = machine_with("good", "fails its test")
    choose(machine, replace(TWO, rollout="r-1"))
    machine.settle()
    choose(machine, replace(TWO, rollout="r-1"))
    assert machine.state.candidate is None
    choose(machine, replace(TWO, rollout="r-2"))
    assert machine.state.candidate is not None


@pytest.mark.parametrize(
    ("kind", "reason", "said"),
    [("restarts", "restarts", "its worker ended 3 times, 2 are allowed"),
     ("safe", "safe", "100% of 4 windows are safe answers, 50% may be"),
     ("slow", "latency", "25.0% of 4 windows took over 1000 ms")],
)  # fmt: skip
def test_what_is_not_healthy_on_trial_goes_back_with_the_reason(kind: str, reason: str, said: str) -> None:
    machine = machine_with("good", kind)
    to_trial(machine, TWO)
    machine.run()
    assert (version(machine), machine.state.phase, machine.state.reason) == (1, "rolled_back", reason)
    assert machine.state.detail == said
    assert machine.state.trial is None, "what was confirmed before need not prove itself again"
    machine.settle()
    assert version(machine) == 1


def test_few_windows_say_nothing_but_a_worker_that_ends_again_and_again_does() -> None:
    machine = machine_with("good", "safe")
    to_trial(machine, TWO)
    machine.happen(Ran(1.0, Counts(windows=3, safe=3)))
    assert machine.state.phase == "trial"
    machine.happen(Ran(1.0, Counts(restarts=3)))
    assert machine.state.reason == "restarts"


def test_a_first_release_that_is_not_healthy_leaves_none_and_an_older_one_is_better_than_that() -> None:
    machine = Machine(("good", "good", "safe"))
    machine.happen(Chosen(Choice((TWO,), TWO)))
    machine.settle()
    assert (version(machine), machine.state.phase) == (0, "rolled_back")
    choose(machine, TWO, None, TWO, ONE)
    machine.settle()
    assert version(machine) == 1


def test_a_newer_release_than_what_is_asked_for_does_not_go_live_for_want_of_it() -> None:
    machine = Machine(("good",))
    machine.happen(Chosen(Choice((THREE,), TWO)))
    assert machine.state.candidate is None


def test_a_shadow_runs_beside_and_never_alone() -> None:
    machine = Machine(("good",))
    machine.happen(Chosen(Choice((TWO,), None, TWO)))
    assert machine.state.candidate is None
    machine = machine_with("good", "good")
    choose(machine, ONE, TWO)
    machine.settle()
    assert due(machine.state) == (Run("a", "b"),)
    assert machine.state.phase == "shadow"


def test_a_shadow_waits_until_a_trial_is_over() -> None:
    machine = machine_with("good", "good", "good")
    to_trial(machine, TWO)
    choose(machine, TWO, THREE)
    assert machine.state.candidate is None, "the other slot is the way back"
    machine.run(10.0)
    assert machine.state.candidate is not None


def test_a_shadow_that_agrees_too_seldom_is_given_up_and_what_answers_goes_on() -> None:
    machine = machine_with("good", "good")
    choose(machine, ONE, TWO)
    machine.settle()
    machine.happen(Ran(5.0, HEALTHY, Counts(windows=4, agreed=1)))
    assert (version(machine), machine.state.phase, machine.state.reason) == (1, "rolled_back", "agreement")
    choose(machine, ONE, TWO)
    assert machine.state.candidate is None


def test_a_shadow_that_is_to_go_live_tests_itself_once_more_and_is_on_trial() -> None:
    machine = machine_with("good", "good")
    choose(machine, ONE, TWO)
    machine.settle()
    choose(machine, TWO)
    assert due(machine.state) == (Run("a"), SelfTest("b", TWO.digest)), "it is there already"
    machine.work()
    assert (version(machine), machine.state.phase) == (2, "trial")


def test_a_shadow_that_nobody_wants_any_more_ends() -> None:
    machine = machine_with("good", "good")
    choose(machine, ONE, TWO)
    machine.settle()
    choose(machine, ONE)
    assert due(machine.state) == (Run("a"),)
    assert (machine.state.phase, machine.state.reason) == ("confirmed", "withdrawn")


def test_back_to_what_was_confirmed_before_needs_no_second_trial() -> None:
    machine = machine_with("good", "good")
    choose(machine, TWO)
    machine.settle()
    choose(machine, replace(ONE, rollout="back"))
    assert due(machine.state) == (Run("b"), SelfTest("a", ONE.digest))
    machine.work()
    assert (version(machine), machine.state.phase, machine.state.trial) == (1, "confirmed", None)


def test_another_release_during_a_trial_first_goes_back_to_what_was_confirmed() -> None:
    machine = machine_with("good", "good", "good")
    to_trial(machine, TWO)
    choose(machine, THREE)
    assert (version(machine), machine.state.reason) == (1, "replaced")
    assert due(machine.state) == (Run("a"), Fill("b", THREE))
    machine.settle()
    assert version(machine) == 3


def test_what_was_confirmed_goes_on_under_the_rollout_that_wants_it_again_during_a_trial() -> None:
    machine = machine_with("good", "good")
    to_trial(machine, TWO)
    choose(machine, replace(ONE, rollout="back"))
    copy = running(machine.state)
    assert copy is not None
    assert copy.which == replace(ONE, rollout="back")


def test_the_same_release_under_another_rollout_goes_on_as_it_is() -> None:
    machine = machine_with("good")
    choose(machine, replace(ONE, rollout="r-9"))
    copy = running(machine.state)
    assert copy is not None
    assert (copy.which.rollout, copy.confirmed) == ("r-9", True)


def test_a_damaged_file_of_what_answers_is_left_for_the_other_slot_and_fetched_again() -> None:
    machine = machine_with("good", "good")
    choose(machine, TWO)
    machine.settle()
    machine.files["b"] = "torn"
    machine.boot()
    assert (version(machine), machine.state.reason) == (1, "damaged")
    assert due(machine.state) == (Run("a"), Fill("b", TWO)), "it is not given up"
    machine.settle()
    assert version(machine) == 2


def test_a_power_cut_while_a_slot_is_written_begins_that_again() -> None:
    machine = machine_with("good", "good")
    choose(machine, TWO)
    machine.work(torn=True)
    machine.boot()
    assert due(machine.state) == (Run("a"), Fill("b", TWO))


def test_a_shadow_tests_itself_again_after_a_start() -> None:
    machine = machine_with("good", "good")
    choose(machine, ONE, TWO)
    machine.settle()
    machine.boot()
    assert due(machine.state) == (Run("a"), SelfTest("b", TWO.digest))


def test_what_does_not_start_any_more_gives_way_to_what_does() -> None:
    machine = machine_with("good", "good")
    choose(machine, TWO)
    machine.settle()
    machine.happen(Failed("b", TWO.digest, "no memory"))
    assert (version(machine), machine.state.phase, machine.state.reason) == (1, "rolled_back", "start")
    machine.happen(Failed("a", ONE.digest, "no memory"))
    assert version(machine) == 1, "there is nothing else: it is tried on and on"
    assert machine.state.detail == "no memory"


def test_words_about_another_slot_or_another_file_change_nothing() -> None:
    machine = machine_with("good", "good")
    choose(machine, TWO)
    before = machine.state
    for event in (
        Put("a", TWO.digest), Put("b", THREE.digest), SelfTested("b", TWO.digest), Failed("a", TWO.digest, "x"),
        Failed("b", ONE.digest, "x"), Ran(1e9, HEALTHY, reads=False),
    ):  # fmt: skip
        machine.happen(event)
        assert machine.state == before, event
    machine.work()
    tested = machine.state
    machine.happen(SelfTested("b", ONE.digest))
    machine.happen(Put("b", TWO.digest, Health(trial_s=0.0)))
    assert machine.state == tested


def test_each_release_is_judged_by_the_rules_that_it_brings() -> None:
    state = Machine(("good",)).state
    state, _ = step(state, Chosen(Choice((ONE,))), 1.0)
    state, _ = step(state, Put("a", ONE.digest, replace(RULES, max_restarts=0)), 1.0)
    state, _ = step(state, SelfTested("a", ONE.digest), 1.0)
    state, _ = step(state, Ran(1.0, Counts(restarts=1)), 1.0)
    assert state.reason == "restarts"


def test_only_the_last_failures_are_kept() -> None:
    many = tuple(GivenUp(which(number), "safe", "", 1.0) for number in range(1, MOST_GIVEN_UP + 1))
    state = State(given_up=many, choice=Choice((which(99),)))
    state, _ = step(state, Booted({}), 1.0)
    state, _ = step(state, Put("a", which(99).digest), 1.0)
    state, _ = step(state, SelfTested("a", which(99).digest, "bad"), 2.0)
    assert len(state.given_up) == MOST_GIVEN_UP
    assert state.given_up[-1] == GivenUp(which(99), "self-test", "bad", 2.0)


def test_since_says_when_the_phase_began() -> None:
    state, _ = step(State(), Chosen(Choice((ONE,))), 5.0)
    state, _ = step(state, Put("a", ONE.digest), 6.0)
    state, _ = step(state, SelfTested("a", ONE.digest), 7.0)
    state, _ = step(state, Ran(1.0), 8.0)
    assert (state.phase, state.since) == ("trial", 7.0)


def test_what_has_not_tested_itself_is_no_way_back() -> None:
    machine = Machine(("good", "safe"))
    machine.happen(Chosen(Choice((ONE,))))
    machine.work()
    machine.work()
    choose(machine, TWO)
    machine.work()
    assert due(machine.state) == (Run("a"), SelfTest("b", TWO.digest))
    machine.run()
    assert due(machine.state) == (Run(), Fill("a", TWO)), "nothing answers, and it begins anew"


# --- after it was confirmed ----------------------------------------------------------------------------


def machine_on_two() -> Machine:
    """Release 2 is confirmed, 1 was before it."""
    machine = machine_with("good", "good", "good")
    choose(machine, TWO)
    machine.settle()
    assert (version(machine), machine.state.phase) == (2, "confirmed")
    return machine


def test_what_degrades_after_it_was_confirmed_goes_back_to_the_release_before() -> None:
    machine = machine_on_two()
    machine.sour.add(TWO.digest)
    for _ in range(4):
        machine.run()
    assert due(machine.state) == (Run("b"), SelfTest("a", ONE.digest)), "the one before tests itself first"
    machine.work()
    assert due(machine.state) == (Run("b", "a"),), "and is asked beside"
    machine.run()
    assert (version(machine), machine.state.phase, machine.state.reason) == (1, "rolled_back", "safe")
    assert machine.state.detail == "100% of 16 windows are safe answers, 50% may be"
    choose(machine, TWO)
    assert due(machine.state) == (Run("a"),), "it is given up under this rollout"


def test_what_the_machine_does_to_every_release_is_no_fault_of_one_and_the_safe_answer_is_given() -> None:
    machine = machine_on_two()
    machine.weather = True
    machine.live_on(12)
    assert (version(machine), machine.state.phase, machine.state.reason) == (2, "confirmed", "safe")
    assert due(machine.state) == (Run("b", muted=True),)
    assert machine.state.given_up == ()


def test_what_is_muted_speaks_again_once_it_was_well_for_the_whole_time() -> None:
    machine = machine_on_two()
    machine.weather = True
    machine.live_on(30)
    machine.weather = False
    machine.live_on(11)
    assert machine.state.muted, "55 of 60 seconds"
    machine.live_on(15)
    assert (machine.state.muted, machine.state.reason) == (False, "")


def test_without_a_release_before_the_safe_answer_is_given() -> None:
    machine = machine_with("good")
    machine.sour.add(ONE.digest)
    machine.live_on(10)
    assert (version(machine), machine.state.muted, machine.state.reason) == (1, True, "safe")


@pytest.mark.parametrize(
    ("counts", "reason"),
    [(Counts(windows=20, failed=20), "safe"), (Counts(windows=200, slow=20), "latency"), (Counts(restarts=3), "restarts")],
)  # fmt: skip
def test_each_rule_goes_on_after_it_was_confirmed(counts: Counts, reason: str) -> None:
    machine = machine_on_two()
    machine.happen(Ran(5.0, counts))
    assert machine.state.candidate is not None
    assert (machine.state.candidate.mode, machine.state.candidate.why) == ("back", reason)


@pytest.mark.parametrize(
    "counts", [Counts(windows=4, failed=3), Counts(windows=100, slow=2), Counts(windows=3, failed=3)]
)
def test_what_chance_may_do_is_no_reason(counts: Counts) -> None:
    machine = machine_on_two()
    machine.happen(Ran(5.0, counts))
    assert (machine.state.candidate, machine.state.muted) == (None, False)


def test_a_machine_that_has_changed_makes_a_confirmed_release_unsure_and_that_is_none_either() -> None:
    machine = machine_on_two()
    for _ in range(20):
        machine.happen(Ran(5.0, Counts(windows=4, safe=4)))
    assert (machine.state.candidate, machine.state.muted) == (None, False)


def test_a_long_time_in_which_all_was_well_hides_nothing_that_begins_now() -> None:
    machine = machine_on_two()
    machine.live_on(100)
    machine.sour.add(TWO.digest)
    machine.live_on(6)
    assert version(machine) == 1


def test_restarts_of_long_ago_are_forgotten() -> None:
    machine = machine_on_two()
    machine.happen(Ran(5.0, Counts(windows=4, restarts=2)))
    machine.live_on(30)
    machine.happen(Ran(5.0, Counts(windows=4, restarts=2)))
    assert machine.state.candidate is None


def test_there_is_one_way_back_in_a_while_and_no_to_and_fro() -> None:
    machine = machine_on_two()
    machine.sour.add(TWO.digest)
    machine.live_on(6)
    choose(machine, replace(TWO, rollout="again"))
    machine.sour.clear()
    machine.settle()
    machine.sour.add(TWO.digest)
    machine.live_on(20)
    assert (version(machine), machine.state.muted) == (2, True), "100 of 600 seconds"
    machine.live_on(110)
    assert (version(machine), machine.state.muted) == (1, False)


def test_a_release_that_is_not_listed_any_more_is_no_way_back() -> None:
    machine = machine_on_two()
    choose(machine, TWO, None, TWO)
    machine.sour.add(TWO.digest)
    machine.live_on(10)
    assert (version(machine), machine.state.muted) == (2, True)


def test_a_release_before_that_fails_its_self_test_is_no_way_back() -> None:
    machine = machine_on_two()
    machine.sour.add(TWO.digest)
    for _ in range(4):
        machine.run()
    machine.happen(SelfTested("a", ONE.digest, "row 1 is off"))
    assert (version(machine), machine.state.muted, machine.state.candidate) == (2, True, None)
    assert machine.state.given_up == ()


def test_an_older_release_is_fetched_where_the_other_slot_is_empty() -> None:
    machine = machine_with("good", "good", "fails its test")
    choose(machine, TWO)
    machine.settle()
    choose(machine, THREE)
    machine.settle()
    assert (version(machine), machine.state.a) == (2, None)
    machine.sour.add(TWO.digest)
    machine.live_on(8)
    copy = running(machine.state)
    assert copy is not None
    assert (copy.which, copy.confirmed) == (ONE, True)


def test_what_had_passed_when_the_one_before_was_asked_changes_nothing() -> None:
    machine = machine_on_two()
    machine.sour.add(TWO.digest)
    for _ in range(4):
        machine.run()
    machine.sour.clear()
    machine.live_on(3)
    assert (version(machine), machine.state.candidate, machine.state.muted) == (2, None, False)


def test_a_release_before_that_is_not_asked_is_no_way_back() -> None:
    """As one of other windows."""
    machine = machine_on_two()
    machine.sour.add(TWO.digest)
    for _ in range(4):
        machine.run()
    machine.work()
    machine.happen(Ran(5.0, Counts(windows=4, failed=4)))
    assert (version(machine), machine.state.muted) == (2, True)


def test_a_new_release_is_better_than_a_way_back_and_speaks() -> None:
    machine = machine_on_two()
    machine.weather = True
    machine.live_on(30)
    choose(machine, THREE)
    while machine.work():
        pass
    assert due(machine.state) == (Run("a"),)
    assert (version(machine), machine.state.phase) == (3, "trial")


def test_a_start_in_the_middle_of_a_way_back_goes_on_with_it() -> None:
    machine = machine_on_two()
    machine.sour.add(TWO.digest)
    for _ in range(4):
        machine.run()
    machine.work()
    machine.boot()
    machine.live_on(2)
    assert version(machine) == 1


def test_a_release_whose_rules_say_so_is_not_watched() -> None:
    state = Machine(("good",)).state
    for event in (
        Chosen(Choice((ONE,))), Put("a", ONE.digest, replace(RULES, watch_s=0.0)), SelfTested("a", ONE.digest),
        Ran(10.0, HEALTHY), Ran(10.0, Counts(windows=100, failed=100)),
    ):  # fmt: skip
        state, _ = step(state, event, 1.0)
    assert (state.phase, state.muted) == ("confirmed", False)


# --- a release that was not measured here --------------------------------------------------------------


def machine_that_was_away() -> Machine:
    """Release 1 is confirmed; 2 was not measured here, and has tested itself."""
    machine = machine_with("good", "good", "good")
    machine.away.add(TWO.digest)
    choose(machine, TWO)
    while machine.work():
        pass
    return machine


def test_a_release_that_was_not_measured_here_runs_beside_before_it_answers() -> None:
    machine = machine_that_was_away()
    assert due(machine.state) == (Run("a", "b"),)
    assert machine.state.phase == "shadow"
    machine.run(9.0)
    assert version(machine) == 1, "nine seconds are too short"
    machine.run(1.0)
    assert (version(machine), machine.state.phase) == (2, "trial")
    assert machine.state.trial == Trial(), "what it did beside is no part of it"
    machine.settle()
    assert machine.state.phase == "confirmed"


def test_one_that_does_badly_beside_never_answers() -> None:
    machine = machine_that_was_away()
    machine.sour.add(TWO.digest)
    machine.run()
    assert (version(machine), machine.state.phase, machine.state.reason) == (1, "rolled_back", "safe")
    choose(machine, TWO)
    assert due(machine.state) == (Run("a"),), "it is given up"


def test_one_that_cannot_run_beside_goes_on_trial() -> None:
    machine = machine_that_was_away()
    machine.happen(Ran(1.0, HEALTHY))
    assert (version(machine), machine.state.phase) == (2, "trial")
    machine = machine_that_was_away()
    machine.happen(Ran(1.0, reads=False))
    assert (version(machine), machine.state.phase) == (2, "trial")


def test_where_nothing_answers_there_is_nothing_to_run_beside() -> None:
    machine = Machine(("good",))
    machine.away.add(ONE.digest)
    machine.happen(Chosen(Choice((ONE,))))
    machine.settle()
    assert (version(machine), machine.state.phase) == (1, "confirmed")


def test_one_that_was_confirmed_here_before_need_not_run_beside() -> None:
    machine = machine_that_was_away()
    machine.settle()
    machine.live_on(8)
    choose(machine, ONE)
    machine.settle()
    choose(machine, replace(TWO, rollout="again"))
    assert machine.work()
    assert version(machine) == 2


def test_a_start_while_it_runs_beside_tests_it_again_and_goes_on() -> None:
    machine = machine_that_was_away()
    machine.run(9.0)
    machine.boot()
    assert due(machine.state) == (Run("a"), SelfTest("b", TWO.digest))
    machine.live_on(2)
    assert version(machine) == 2
