"""Packing by the speed of the line: on a line that is known it never costs much more than the better way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reuna.core.line import AGAIN, PARENT_S, TELLING, Packing, after_plain, packs, pays, rate_of, step_pays

RATES = st.floats(1e2, 1e11)  #: 800 bit/s to 800 Gbit/s
COSTS = st.floats(1e-11, 1e-5)
RATIOS = st.floats(0.0, 1.0)
SIZES = st.integers(1, 10**9)


def took_s(packed: bool, size: int, rate: float, known: Packing) -> float:
    return known.cost * size + known.ratio * size / rate if packed else size / rate


@given(SIZES, RATES, COSTS, RATIOS)
def test_what_is_known_is_sent_the_faster_way(size: int, rate: float, cost: float, ratio: float) -> None:
    known = Packing(cost, ratio)
    chosen, other = (took_s(way, size, rate, known) for way in (pays(rate, known), not pays(rate, known)))
    assert chosen <= other * (1 + 1e-9)
    assert packs(size, rate, known) == pays(rate, known), "nothing was sent plain yet"


@given(st.lists(SIZES, min_size=1, max_size=200), RATES, COSTS, RATIOS)
def test_over_any_bodies_it_costs_a_twentieth_more_than_the_better_way_beside_the_first(
    sizes: list[int], rate: float, cost: float, ratio: float
) -> None:
    truth = Packing(cost, ratio)
    known: Packing | None = None
    spent = []
    for size in sizes:
        chosen = packs(size, rate, known)
        spent.append(took_s(chosen, size, rate, truth))
        known = truth if chosen or known is None else after_plain(known, size, rate)
    better = sum(min(took_s(way, size, rate, truth) for way in (True, False)) for size in sizes[1:])
    assert sum(spent[1:]) <= better * (1 + 1 / AGAIN) * (1 + 1e-6)


def test_what_is_not_known_yet_is_packed() -> None:
    assert packs(10**6, None, Packing(1.0, 1.0))
    assert packs(10**6, 1e12, None)


@given(SIZES, st.floats(1e8, 1e11))
def test_who_sends_plain_finds_out_when_packing_begins_to_pay(size: int, rate: float) -> None:
    known, tried = Packing(1e-6, 1.0), 0
    while not packs(size, rate, known):
        known, tried = after_plain(known, size, rate), tried + 1
        assert tried < 10_000_000 * 1e-6 * AGAIN * rate, "it is tried again"
        if tried > 1000:  # a fast line: what is left is a matter of time
            assert known.spent_s > 0
            break


@given(SIZES, RATES, st.floats(1e-9, 1e4))
def test_a_line_is_not_faster_than_its_transfer(size: int, rate: float, took: float) -> None:
    found = rate_of(size, took, rate)
    if size < TELLING:
        assert found is None
        return
    assert found is not None
    assert found <= rate
    if took > PARENT_S:
        assert found * (took - PARENT_S) <= size * (1 + 1e-9)
    assert rate_of(size, took, None) == size / took, "where the kernel says nothing"


def test_a_step_is_taken_on_a_thin_line_and_the_whole_model_on_a_fast_one() -> None:
    assert step_pays(74, 100, 1e4, 1e-8)
    assert not step_pays(74, 100, 1e9, 1e-8)
    assert step_pays(74, 100, None, 1e-8)
    assert step_pays(74, 100, 1e9, None)
