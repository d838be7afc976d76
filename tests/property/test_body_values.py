"""A body is taken exactly when each of its integers lies on the plan's grid, whatever its width."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import Refused
from reuna.core.records import Contribution, Grid, Member, Plan
from reuna.exchange.bodies import Check
from reuna.learn.grid import WIDTHS, pack, unpack
from reuna.loop import train
from reuna.loop.plan import round_plan
from reuna.sim.faults import Walker, fleet_of
from reuna.sim.fleet import make_spec
from reuna.sim.storage import MemoryBlob


def plan_on(grid: Grid) -> Plan:
    fogs = fleet_of(1, 1)
    spec, _, _ = make_spec(fogs, Walker(), 1, grid=grid)
    return round_plan(spec, "fog-0", 1, 1, "train", spec.model)


def is_taken(plan: Plan, manifest: Contribution, data: bytes) -> bool:
    """The same whether its bytes were seen as they came, in part or not at all."""
    told = {seen: is_taken_of(plan, manifest, data, seen) for seen in (0, manifest.width, len(data))}
    assert len(set(told.values())) == 1, told
    return told[0]


def is_taken_of(plan: Plan, manifest: Contribution, data: bytes, seen: int) -> bool:
    check = Check(plan, manifest)
    for at in range(0, seen, manifest.width):
        check.see(data[at : at + manifest.width])
    try:
        check.end(manifest, MemoryBlob(data, ""))
    except Refused as refusal:
        return refusal.reason != "range"
    return True


@given(st.sampled_from([8, 16, 32]), st.sampled_from(WIDTHS), st.sampled_from([0, 1, 2, 70]), st.data())
def test_a_body_is_taken_when_every_value_is_of_the_grid(
    bits: int, width: int, weight: int, data: st.DataObject
) -> None:
    plan = msgspec.structs.replace(plan_on(Grid(bits, -4)), params=3)
    member = Member("edge-0-0", max(1, weight), "ab" * 32)
    manifest = train.answer(plan, "cd" * 32, member, "ab" * 32, width)
    if weight:
        manifest = msgspec.structs.replace(manifest, kind="partial", weight=weight)
    bound = (2 ** (bits - 1) - 1) * max(1, weight)
    lowest, highest = -(2 ** (8 * width - 1)), 2 ** (8 * width - 1) - 1
    edges = [each for each in (-bound - 1, -bound, bound, bound + 1) if lowest <= each <= highest]
    values = data.draw(
        st.lists(
            st.integers(lowest, highest) | st.sampled_from([lowest, highest, *edges]), min_size=3, max_size=3
        )
    )
    body = pack(np.array(values, np.int64), width)
    assert unpack(body, width).tolist() == values
    assert is_taken(plan, manifest, bytes(body)) == all(-bound <= each <= bound for each in values)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_the_most_negative_integer_of_a_type_is_no_value_of_the_grid(bits: int) -> None:
    """The one value that the grid's own type holds and the grid does not."""
    plan, width = msgspec.structs.replace(plan_on(Grid(bits, -4)), params=1), bits // 8
    manifest = train.answer(plan, "cd" * 32, Member("edge-0-0", 1, "ab" * 32), "ab" * 32, width)
    lowest = np.array([-(2 ** (bits - 1))])
    assert not is_taken(plan, manifest, bytes(pack(lowest, width)))
    assert is_taken(plan, manifest, bytes(pack(lowest + 1, width)))
