"""What the plans of one round have in common, and how those of a run hang together."""

from __future__ import annotations

import msgspec
import pytest

from reuna.cloud.train import Ask
from reuna.core.records import Plan
from reuna.loop.plan import plans, round_plan, shared
from reuna.sim.faults import Walker, fleet_of
from reuna.sim.fleet import make_spec
from reuna.wire import decode

SPEC, MODEL, _ = make_spec(fleet_of(2, 2), Walker(), 3)


def test_every_fog_and_every_attempt_shares_a_rounds_digest() -> None:
    found = {
        shared(decode(Plan, data))
        for attempt in (1, 2)
        for inline in (None, b"the model")
        for data in plans(SPEC, 1, attempt, "train", "a" * 64, inline, "b" * 64).values()
    }
    assert found == {Ask(1, "train", "a" * 64, "b" * 64).shared(SPEC)}


@pytest.mark.parametrize(
    "changed", [{"model": "c" * 64}, {"seed": 9}, {"settings": {}}, {"before": "c" * 64}]
)
def test_other_work_or_another_past_gives_another_digest(changed: dict[str, object]) -> None:
    plan = round_plan(SPEC, next(iter(SPEC.fogs)), 2, 1, "train", "a" * 64, before="b" * 64)
    assert shared(msgspec.structs.replace(plan, **changed)) != shared(plan)
