"""A plan of three nodes, for tests that change a field of it."""

from __future__ import annotations

from reuna.core.records import Grid, Plan

PLAN = Plan(
    run="r-1",
    round=3,
    attempt=1,
    task="train",
    model="m" * 64,
    model_size=100,
    params=10,
    cohort=("a", "b", "c"),
    quorum=2,
    deadline_s=5.0,
    grid=Grid(32, -24),
    max_weight=100,
    capacity=6,
    seed=1,
    bundle="b" * 64,
    bundle_size=9,
)
