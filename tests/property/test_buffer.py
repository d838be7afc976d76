"""Laws of steps that are made of updates of several rounds: weights, nothing twice, the same after a restart."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core import plans
from reuna.core.cohort import at_pace, paces
from reuna.core.errors import Refused
from reuna.core.records import Contribution, Grid, Member, Plan
from reuna.exchange.buffer import Buffer
from reuna.learn.staleness import SCALE, factor, fold
from reuna.learn.sums import Part
from reuna.loop import train

NODES = [f"edge-{number}" for number in range(5)]
PLAN = Plan(
    run="r", round=9, attempt=1, task="train", model="", model_size=1, params=1, cohort=tuple(NODES), quorum=1,
    deadline_s=9.0, grid=Grid(8, -4), max_weight=100, capacity=5, seed=1, bundle="", bundle_size=0,
    combine="singly", enough=2, buffer=2, bases=("8" * 64, "7" * 64),
)  # fmt: skip


def update(node: str, round: int, weight: int = 1, run: str = "r") -> Contribution:
    """As an edge sends it."""
    plan = msgspec.structs.replace(PLAN, run=run, round=round)
    return train.answer(plan, str(round) * 64, Member(node, weight, digest="d" * 64), "d" * 64, 1)


@given(st.integers(0, 10_000))
def test_a_stale_update_counts_less_by_one_over_the_root_and_never_nothing(behind: int) -> None:
    exact = SCALE / math.sqrt(1 + behind)
    assert abs(factor(behind) - exact) <= 0.5 + 1e-9 or factor(behind) == 1
    assert 1 <= factor(behind + 1) <= factor(behind) <= SCALE


UPDATES = st.lists(
    st.tuples(st.integers(1, 100), st.integers(1, 9), st.lists(st.integers(1 - 2**31, 2**31 - 1), min_size=3, max_size=3)),
    min_size=1, max_size=12,
)  # fmt: skip


@given(UPDATES, st.randoms())
def test_the_sum_of_a_step_is_exact_whatever_its_order(
    updates: list[tuple[int, int, list[int]]], chance: object
) -> None:
    def total(some: list[tuple[int, int, list[int]]]) -> tuple[list[int], int]:
        times, whole = train.weighted([Member("e", weight, base=base) for weight, base, _ in some], 9)
        parts = [Part(values, 1, by) for (_, _, values), by in zip(some, times, strict=True)]
        read = lambda part, start, count: np.array(part.source[start : start + count], np.int32)  # noqa: E731
        return next(iter(fold(read, parts, 3))).tolist(), whole

    mixed = list(updates)
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    assert total(mixed) == total(updates)
    sums, whole = total(updates)
    assert sums == [float(sum(w * factor(9 - b) * v[i] for w, b, v in updates)) for i in range(3)], (
        "one rounding"
    )
    assert whole == SCALE * sum(weight for weight, _, _ in updates)
    assert all(abs(each) <= 2**31 * whole for each in sums), "stale ones make the step smaller, never larger"


@given(st.lists(st.integers(1, 100), min_size=1))
def test_with_fresh_updates_alone_the_weights_are_the_samples(weights: list[int]) -> None:
    times, whole = train.weighted([Member("e", weight, base=4) for weight in weights], 4)
    assert [each / whole for each in times] == [weight / sum(weights) for weight in weights]


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "close", "restart"]), st.sampled_from(NODES), st.integers(0, 2)),
    max_size=40,
)


@given(STEPS)
def test_each_update_is_in_one_step_at_most_and_a_restart_forgets_none(
    steps: list[tuple[str, str, int]],
) -> None:
    """Rows go to the spool first, as at a parent; what a restarted one reads there is all that it knows."""
    spool: list[Contribution] = []
    number, counted = 3, list[tuple[str, int]]()
    buffer, acknowledged = Buffer("fog", "r", [], number), set[tuple[str, int]]()
    for what, node, behind in steps:
        row = update(node, number - behind)
        if what == "add":
            if (node, number - behind) in acknowledged:
                with pytest.raises(Refused, match="second time"):
                    train.counts_twice(row, buffer.counted)
                continue
            train.counts_twice(row, buffer.counted)
            spool.append(row)
            buffer.add(row)
            acknowledged.add((node, number - behind))
        elif what == "restart":
            before = buffer.rows(None)
            buffer = Buffer("fog", "r", spool, number)
            assert buffer.rows(None) == before
        else:
            closing = train.buffered_row(
                msgspec.structs.replace(PLAN, round=number), "", "fog", buffer.rows(None), {}
            )
            spool.append(closing)
            assert buffer.rows(closing) == buffer.rows(None), "the round of a closed row is read again"
            counted += train.given(closing)
            buffer.take(closing)
            number += 1
    assert len(set(counted)) == len(counted)
    held = [key for row in buffer.rows(None) for key in train.given(row)]
    assert sorted([*counted, *held]) == sorted(acknowledged), (
        "what was acknowledged is counted, or still held"
    )


@given(st.lists(st.builds(Member, st.sampled_from(NODES), st.integers(1, 9), base=st.integers(0, 9))))
def test_what_is_told_of_a_step_is_read_again(members: list[Member]) -> None:
    found = train.read_updates(train.told_members(members))
    assert sorted(found) == sorted((member.node, member.base, member.weight) for member in members)
    totals = train.read_members(train.told_members(members))
    assert sum(totals.values()) == sum(member.weight for member in members)


SIZES = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(1, 30), min_size=1)


@given(SIZES, st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(0, 99)), st.integers(1, 100))
def test_parents_go_on_with_enough_for_a_step_and_need_no_more_than_they_have(
    sizes: dict[str, int], pace: dict[str, int], total: int
) -> None:
    dealt = at_pace(sizes, pace, min(total, sum(sizes.values())))
    assert all(1 <= dealt[name] <= size for name, size in sizes.items())
    if not pace:
        assert sum(dealt.values()) >= min(total, sum(sizes.values()))


def test_what_was_given_lately_counts_more() -> None:
    assert paces({"a": 8, "b": 1}, {"b": 3}) == {"a": 4, "b": 4}
    assert paces({"a": 4, "b": 4}, {"b": 3}) == {"a": 2, "b": 5}


# --- who may give what -------------------------------------------------------------------------------


def judged(row: Contribution, peer: str = "") -> str:
    """Why a parent refuses it, '' when it is admitted."""
    plan, digest = train.answers(PLAN, "9" * 64, row)
    try:
        train.admit(plan, digest, row, peer or row.sender, {*NODES, "fog"}, closed=False)
    except Refused as refusal:
        return refusal.reason
    return ""


@pytest.mark.parametrize(("round", "why"), [(9, ""), (8, ""), (7, ""), (6, "stale"), (10, "stale")])
def test_an_update_is_taken_for_as_many_rounds_as_the_plan_names(round: int, why: str) -> None:
    assert judged(update("edge-0", round)) == why


def test_an_update_has_to_answer_the_very_plan_of_its_round() -> None:
    assert judged(msgspec.structs.replace(update("edge-0", 8), plan="7" * 64)) == "plan"


def test_a_report_of_a_round_before_says_nothing_any_more() -> None:
    row = train.answer(msgspec.structs.replace(PLAN, round=8), "8" * 64, Member("edge-0", absent=train.OLDER))
    assert judged(row) == "stale"


def test_nobody_says_of_which_round_an_update_is_but_who_passes_several_on() -> None:
    row = update("edge-0", 9)
    assert judged(msgspec.structs.replace(row, members=(Member("edge-0", 1, base=8),))) == "malformed"
    passed = train.buffered_row(PLAN, "9" * 64, "fog", [update("edge-0", 8), update("edge-0", 9)], {})
    both = train.with_updates(passed, PLAN, [update("edge-0", 8), update("edge-0", 9)], "d" * 64)
    assert judged(both) == ""
    later = msgspec.structs.replace(both, members=(*both.members[:1], Member("edge-0", 1, base=10)))
    assert judged(later) == "malformed"
    twice = msgspec.structs.replace(both, members=(both.members[0],) * 2)
    assert judged(twice) == "identity"


def test_work_goes_on_beside_newer_plans_of_its_run_while_it_counts() -> None:
    newer = msgspec.structs.replace(PLAN, round=10)
    assert plans.goes_on(PLAN, newer)
    for other in ({"run": "s"}, {"buffer": 0, "task": "evaluate"}):
        assert not plans.goes_on(PLAN, msgspec.structs.replace(newer, **other))
    assert not plans.goes_on(None, newer)
