"""How long a round waits for who is slow but moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reuna.core import patience
from reuna.core.patience import LONGEST_S, MOST, STILL_S, Transfer, again_s, ends_s, moves

DEADLINE_S = 60.0


def transfer(done: int, moved_s: float, size: int = 1_000, first: int = 0, began_s: float = 0.0) -> Transfer:
    return Transfer(first, done, size, began_s, moved_s)


def test_a_round_with_no_transfer_ends_at_its_deadline() -> None:
    assert ends_s(DEADLINE_S, [], 59.0) == DEADLINE_S


def test_a_transfer_that_moves_and_will_be_in_holds_the_round_open() -> None:
    assert ends_s(DEADLINE_S, [transfer(600, 59.0)], 60.0) == MOST * DEADLINE_S


def test_a_transfer_that_stood_still_is_not_waited_for() -> None:
    stalled = transfer(900, 60.0 - STILL_S)
    assert ends_s(DEADLINE_S, [stalled], 60.0) == DEADLINE_S
    assert ends_s(DEADLINE_S, [stalled, transfer(600, 59.0)], 60.0) == MOST * DEADLINE_S


def test_who_trickles_is_not_waited_for_at_all() -> None:
    """At ten bytes a second the rest would take until long after the bound."""
    assert ends_s(DEADLINE_S, [transfer(600, 60.0, size=10_000)], 60.0) == DEADLINE_S


def test_what_a_cut_left_behind_is_not_pace() -> None:
    """Of 1 000 bytes 990 were there before; ten in ten seconds are one a second, and the rest is near."""
    assert transfer(995, 60.0, first=990, began_s=50.0).expected_s == 70.0


def test_a_model_that_was_slow_to_come_down_is_worked_on_a_while() -> None:
    slow, quick = transfer(1_000, 65.0, began_s=10.0), transfer(1_000, 65.0, began_s=64.0)
    assert moves(slow, 70.0)
    assert not moves(slow, 65.0 + STILL_S)
    assert not moves(quick, 66.0), "who had it at once and says nothing is silent"


@given(
    st.lists(
        st.builds(
            Transfer, st.just(0), st.integers(0, 10**6), st.just(10**6), st.floats(0, 1e3), st.floats(0, 1e4)
        )
    ),
    st.floats(0.1, 1e4),
    st.floats(0, 1e5),
)
def test_no_transfers_hold_a_round_beyond_its_bound(
    transfers: list[Transfer], deadline_s: float, now_s: float
) -> None:
    assert deadline_s <= ends_s(deadline_s, transfers, now_s) <= patience.MOST * deadline_s


def test_a_plan_is_announced_less_and_less_often() -> None:
    assert [again_s(times, 1.0) for times in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, 8.0]
    assert again_s(1_000_000, 1.0) == LONGEST_S
    assert again_s(9, 90.0) == 90.0
