"""A plan as the node sees that works on it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core import plans
from reuna.core.records import Task, Work
from tests.plans import PLAN


def test_a_plan_is_newer_by_run_round_or_attempt() -> None:
    assert plans.newer(PLAN, None)
    assert not plans.newer(PLAN, PLAN)
    assert plans.newer(msgspec.structs.replace(PLAN, attempt=2), PLAN)
    assert not plans.newer(msgspec.structs.replace(PLAN, round=2, attempt=9), PLAN)
    assert plans.newer(msgspec.structs.replace(PLAN, run="r-2", round=1), PLAN)


@pytest.mark.parametrize(
    ("task", "purpose"), [("train", "training"), ("local", "training"), ("evaluate", "evaluation")]
)
def test_what_a_bundle_does_with_a_sites_data_is_training_unless_it_only_evaluates(
    task: Task, purpose: str
) -> None:
    assert plans.work(msgspec.structs.replace(PLAN, task=task)) == Work("r-1", "b" * 64, purpose)  # type: ignore[arg-type]


@given(seed=st.integers(0, 2**63), round=st.integers(0, 2**31), node=st.text(max_size=20))
def test_a_seed_is_the_same_after_any_restart_and_another_for_each_node_and_round(
    seed: int, round: int, node: str
) -> None:
    found = plans.work_seed(seed, round, node)
    assert found == plans.work_seed(seed, round, node)
    assert 0 <= found < 2**31
    assert len({found, plans.work_seed(seed, round + 1, node), plans.work_seed(seed, round, f"{node}'")}) == 3


def test_seeds_are_those_that_runs_were_trained_with() -> None:
    assert [plans.work_seed(7, number, "pump-1") for number in (0, 1)] == [1665690815, 1921806479]
