"""The step of the next round, told by a robust step: a few who lie move it no further than the model."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from reuna.cloud.train import next_exponent
from reuna.core.records import Contribution, Encoding, Grid, Member
from reuna.learn.rounding import FARTHEST, Size, parts_of
from reuna.loop import train
from reuna.loop.plan import round_plan
from reuna.sim.faults import Walker, fleet_of
from reuna.sim.fleet import make_spec

GRID = Grid(16, -16)
SPEC = make_spec(
    fleet_of(1, 5), Walker(), 1, strategy="median", grid=GRID, encoding=Encoding(feedback=True, follow=True)
)[0]
FOG = next(iter(SPEC.fogs))


def rows(clipped: list[int]) -> list[Contribution]:
    plan = round_plan(SPEC, FOG, 1, 1, "train", SPEC.model)
    members = tuple(Member(edge, 1, saturated=n) for edge, n in zip(plan.cohort, clipped, strict=True))
    row = train.closing_row(plan, "", FOG, plan.cohort, [])
    return [msgspec.structs.replace(row, kind="updates", members=members)]


def following(step: float, clipped: list[int], strategy: str = "median") -> int | None:
    size = Size()
    size.add(parts_of(np.full(SPEC.params, step), GRID))
    return next_exponent(msgspec.structs.replace(SPEC, strategy=strategy), GRID, size, rows(clipped))


@pytest.mark.parametrize(("step", "exponent"), [(2**-14, -13), (2**-17, -16), (-(2**-20), -19), (0.0, -24)])
def test_the_next_step_follows_the_size_of_a_robust_step_below_one_of_the_grid_too(
    step: float, exponent: int
) -> None:
    assert following(step, [0] * 5) == exponent


def test_two_of_five_who_say_that_much_was_clipped_move_no_step_and_three_do() -> None:
    assert following(2**-17, [2**40, 2**40, 0, 0, 0]) == -16
    assert following(2**-17, [2**40, 2**40, 2**40, 0, 0]) == -16 + FARTHEST // 2
