"""Whatever happens in whatever order, crashes among it: a machine that had a working release has one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from reuna.loop.operate import Choice, Chosen, Counts, Ran, is_given_up, running
from tests.operating import KINDS, RULES, Machine, which

#: one effect, all that are due, one cut by the power; a start; some seconds; all to its end; a bad block
WORDS = ("work", "work on", "work on", "tear", "boot", "run", "settle", "settle", "rot")
NUMBER = st.integers(1, 6)
ROLLOUT = st.sampled_from(["", "r-1", "r-2"])
MAYBE = st.none() | st.builds(which, NUMBER, ROLLOUT)
CHOICE = st.builds(
    lambda live, shadow, held: Choice(
        tuple(which(number) for number in sorted(held, reverse=True)), live, shadow
    ),
    MAYBE,
    MAYBE,
    st.sets(NUMBER, max_size=4),
)
STEP = st.one_of(
    st.tuples(st.just("choose"), CHOICE),
    st.tuples(st.sampled_from(WORDS), st.none()),
)


def play(machine: Machine, name: str, choice: Choice | None) -> None:
    match name:
        case "choose":
            assert choice is not None
            machine.happen(Chosen(choice))
        case "work":
            machine.work()
        case "tear":
            machine.work(torn=True)
            machine.boot()
        case "boot":
            machine.boot()
        case "work on":
            while machine.work():
                pass
        case "run":
            machine.run()
        case "settle":
            machine.settle()
        case "rot":
            machine.rot()


@settings(max_examples=300)
@given(st.permutations(KINDS).map(tuple), st.lists(STEP, max_size=40), st.sets(NUMBER))
def test_there_is_always_a_working_release_and_a_bad_one_never_stays(
    kinds: tuple[str, ...], steps: list[tuple[str, Choice | None]], away: set[int]
) -> None:
    machine = Machine(kinds, away={which(number).digest for number in away})
    for name, choice in steps:
        play(machine, name, choice)
    machine.settle()
    active = running(machine.state)
    if active is not None:
        assert machine.kind(active.which.digest) == "good"
    wanted = machine.state.choice.live
    held = {each.digest for each in machine.state.choice.held}
    if wanted is not None and wanted.digest in held and machine.kind(wanted.digest) == "good":
        assert active is not None
        assert active.which.digest == wanted.digest, "what is wanted, held and good runs in the end"


@given(st.lists(STEP, max_size=25), st.integers(0, 25))
def test_a_crash_anywhere_changes_where_it_is_and_not_where_it_ends(
    steps: list[tuple[str, Choice | None]], at: int
) -> None:
    """Among good releases: with a power cut before any step, the same release answers in the end."""
    calm, cut = Machine(("good",)), Machine(("good",))
    for number, (name, choice) in enumerate(steps):
        if number == at:
            cut.work(torn=True)
            cut.boot()
        for machine in (calm, cut):
            play(machine, name, choice)
    last = Chosen(Choice((which(9),), which(9, "r-9")))
    for machine in (calm, cut):
        machine.happen(last)
        machine.settle()
    ends = [running(machine.state) for machine in (calm, cut)]
    assert [copy.which if copy else None for copy in ends] == [which(9, "r-9")] * 2


@given(st.permutations(KINDS).map(tuple), st.lists(STEP, max_size=30))
def test_what_was_given_up_runs_no_more_until_another_rollout_asks_for_it(
    kinds: tuple[str, ...], steps: list[tuple[str, Choice | None]]
) -> None:
    machine = Machine(kinds)
    for name, choice in steps:
        play(machine, name, choice)
        run = running(machine.state)
        if run is not None and not run.confirmed and machine.state.trial is not None:
            assert not is_given_up(machine.state, run.which)


# --- after it was confirmed ----------------------------------------------------------------------------

LIFE = st.one_of(
    st.tuples(st.just("choose"), CHOICE),
    st.tuples(st.just("sour"), NUMBER),
    st.tuples(st.just("weather"), st.booleans()),
    st.tuples(st.just("live on"), st.integers(1, 30)),
    st.tuples(st.sampled_from(("boot", "tear")), st.none()),
)


def live(machine: Machine, name: str, value: object) -> None:
    match name, value:
        case "sour", int(number):
            machine.sour.add(which(number).digest)
        case "weather", bool(there):
            machine.weather = there
        case "live on", int(turns):
            machine.live_on(turns)
        case "choose", Choice():
            machine.happen(Chosen(value))
        case _:
            play(machine, name, None)


@settings(max_examples=200)
@given(st.lists(LIFE, max_size=25))
def test_after_it_was_confirmed_a_release_is_left_only_for_a_better_one_and_seldom(
    steps: list[tuple[str, object]],
) -> None:
    """The laws stand in `Machine`: something answers, it is listed, better, and not again for a while."""
    machine = Machine(("good",))
    machine.happen(Chosen(Choice((which(2), which(1)), which(1))))
    machine.settle()
    for name, value in steps:
        live(machine, name, value)


@given(st.lists(LIFE.filter(lambda each: each[0] not in ("choose", "sour")), max_size=20))
def test_what_every_release_suffers_changes_nothing_but_what_is_given_out(
    steps: list[tuple[str, object]],
) -> None:
    machine = Machine(("good",))
    for number in (1, 2):
        machine.happen(Chosen(Choice((which(2), which(1)), which(number))))
        machine.settle()
    for name, value in steps:
        live(machine, name, value)
    copy = running(machine.state)
    assert copy is not None
    assert (copy.which, machine.backs, machine.state.given_up) == (which(2), [], ())
    machine.weather = False
    machine.live_on(40)
    assert not machine.state.muted, "and in the end it speaks again"


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=60), st.floats(0.1, 100))
def test_a_release_that_keeps_its_rules_in_every_turn_is_never_doubted(
    turns: list[tuple[int, int]], seconds: float
) -> None:
    machine = Machine(("good",))
    machine.happen(Chosen(Choice((which(1),), which(1))))
    machine.settle()
    for failed, agreed in turns:
        machine.happen(Ran(seconds, Counts(windows=4, safe=4, agreed=agreed, failed=failed)))
        assert (machine.state.candidate, machine.state.muted) == (None, False)
        assert len(machine.state.lately) <= 3 * RULES.min_windows, "it does not grow"
