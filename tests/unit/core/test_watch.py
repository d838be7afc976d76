"""Whether a machine still sees what it saw: false alarms keep their stated number, drifts are found."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.bins import INNER, Counted, count
from reuna.core.conformity import Columns
from reuna.core.contract import Contract, Signal
from reuna.core.drift import jensen_shannon
from reuna.core.errors import DataError
from reuna.core.watch import (
    CONFIDENCE,
    LEAST,
    MOST,
    Compared,
    Reference,
    Rule,
    Said,
    State,
    bet,
    compare,
    limits,
    reference,
    step,
)

SIGNALS = 6
AGREED = Contract(signals=tuple(Signal(f"s{n}", min=-4, max=4) for n in range(SIGNALS)))
ROWS = 60


def blocks(seed: int, number: int, phi: float = 0.8, moved: tuple[float, ...] = ()) -> list[list[Counted]]:
    """Of signals that remember what they were (an autoregression), moved by so much of their deviation."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(number * ROWS, SIGNALS))
    for at in range(1, len(values)):
        values[at] = phi * values[at - 1] + np.sqrt(1 - phi**2) * values[at]
    values += np.array(moved or (0.0,) * SIGNALS)
    return [
        list(count(AGREED, Columns(ROWS, {f"s{n}": part[:, n] for n in range(SIGNALS)})))
        for part in values.reshape(number, ROWS, SIGNALS)
    ]


def until_alarm(rule: Rule, against: Reference, found: list[list[Counted]]) -> tuple[int, Said]:
    """How many blocks it takes, and what is said then."""
    state = State()
    for number, block in enumerate(found, 1):
        state, said = step(rule, state, compare(against, block))
        if said.alarm:
            return number, said
    return 0, said


def test_without_drift_alarms_are_no_more_than_the_rule_says() -> None:
    rule, alarms, seen = Rule(100), 0, 0
    for seed in range(12):
        made = blocks(seed, 150)
        against, state = reference(made[:50]), State()
        for block in made[50:]:
            state, said = step(rule, state, compare(against, block))
            seen += 1
            if said.alarm:
                alarms, state = alarms + 1, State()
    assert alarms <= seen / rule.periods


def test_a_signal_that_moves_is_found_and_named() -> None:
    against = reference(blocks(1, 100))
    drifted = blocks(2, 40, moved=(0, 0, 1.5, 0, 0, 0))
    number, _ = until_alarm(Rule(500), against, drifted)
    assert 0 < number <= 20
    state = State()
    for block in drifted:
        state, said = step(Rule(500), state, compare(against, block))
    assert said.moved == ("s2",)


def test_many_signals_that_move_a_little_are_found_too() -> None:
    number, _ = until_alarm(Rule(500), reference(blocks(1, 100)), blocks(2, 40, moved=(0.7,) * SIGNALS))
    assert 0 < number <= 20


def test_a_sensor_that_stands_still_or_tells_nothing_is_found() -> None:
    against = reference(blocks(1, 60))
    for broken in ((0, 0, ROWS, *[0] * (INNER - 3)), (0,) * INNER):
        made = [[Counted("s0", broken), *block[1:]] for block in blocks(2, 40)]
        assert compare(against, made[0]).scores[0] > 0.6
        assert until_alarm(Rule(200), against, made)[0]


def test_scores_are_the_distances_that_drift_measures() -> None:
    made = blocks(3, 31)
    found = compare(reference(made[:30]), made[30])
    rest = np.sum([[each.cells for each in block] for block in made[:30]], axis=0)
    for at in range(SIGNALS):
        assert found.scores[at] == pytest.approx(jensen_shannon(rest[at].tolist(), made[30][at].cells))


@given(st.permutations(range(LEAST)))
def test_the_order_of_the_reference_changes_nothing(order: list[int]) -> None:
    made = blocks(4, LEAST + 1, phi=0)
    there, mixed = (
        compare(reference(made[:-1]), made[-1]),
        compare(reference([made[n] for n in order]), made[-1]),
    )
    assert there.scores.tobytes() == mixed.scores.tobytes()
    assert (there.whole, there.limits.tolist()) == (mixed.whole, mixed.limits.tolist())


@given(st.integers(LEAST, 150))
def test_limits_rise_and_hold_with_the_stated_confidence(number: int) -> None:
    found = limits(number)
    assert len(found) == number + 1
    assert all(low < high for low, high in pairwise(found))
    assert found[0] == pytest.approx(1 - (1 - CONFIDENCE) ** (1 / number), rel=1e-6)
    assert all(limit > count / number for count, limit in enumerate(found[:-1]))


def test_limits_are_those_of_clopper_and_pearson() -> None:
    beta = pytest.importorskip("scipy.stats").beta
    for number in (LEAST, 100, MOST):
        expected = [beta.ppf(CONFIDENCE, count + 1, number - count) for count in range(number)]
        assert limits(number)[:-1] == pytest.approx(expected, rel=1e-6)


def test_a_bet_gains_nothing_on_average_where_nothing_moved() -> None:
    edges = np.concatenate([[0.0], np.logspace(-12, 0, 4000)])
    mean = sum(bet(high) * (high - low) for low, high in pairwise(edges))
    assert 0.9 < mean <= 1, "each p-value is taken for the upper end of its piece, which pays less"


def test_a_bet_pays_more_the_rarer_what_was_seen() -> None:
    found = [bet(float(p)) for p in np.linspace(0.001, 1, 200)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == 0.5


def test_with_too_few_blocks_nothing_can_be_unusual_and_that_is_said() -> None:
    with pytest.raises(DataError, match=f"{LEAST - 1} blocks are too few"):
        reference(blocks(1, LEAST - 1))


def test_of_very_many_blocks_some_are_taken_evenly() -> None:
    one = blocks(1, LEAST)
    found = reference(one * 50)
    assert len(found) == MOST


def test_the_sums_are_a_state_that_can_be_kept() -> None:
    found = Compared(("a", "b"), np.array([0.1, 0.9]), np.array([0.1, 0.1]), np.array([1.0, 1e-9]), 1e-9)
    state, said = step(Rule(10), State(), found)
    assert state.seen == 1
    assert said == Said(True, said.level, ("b",))
    again, _ = step(Rule(10), State(1, state.whole, state.sums), found)
    assert again == step(Rule(10), state, found)[0]


def test_a_sum_does_not_grow_without_end() -> None:
    found = Compared(("a",), np.array([1.0]), np.array([0.1]), np.array([1e-9]), 1e-9)
    state = State()
    for _ in range(50):
        state, said = step(Rule(10), state, found)
    assert np.isfinite(said.level)
