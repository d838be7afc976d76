"""Whatever happens in whatever order, crashes among it: a machine that had a working release has one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from reuna.loop.operate import Choice, Chosen, is_given_up, running
from tests.operating import KINDS, Machine, which

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
@given(st.permutations(KINDS).map(tuple), st.lists(STEP, max_size=40))
def test_there_is_always_a_working_release_and_a_bad_one_never_stays(
    kinds: tuple[str, ...], steps: list[tuple[str, Choice | None]]
) -> None:
    machine = Machine(kinds)
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
