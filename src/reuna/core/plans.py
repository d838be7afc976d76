"""A plan as the node sees that works on it: which one is newer, what it asks for, and how to sit it out.

Apart from `reuna.loop.train`, whose sums bring numpy: an edge's agent has no other use for it in memory.
"""

from __future__ import annotations

import hashlib

from reuna.core.errors import ABSENCES, ReunaError
from reuna.core.records import Member, Plan, Work


def newer(plan: Plan, current: Plan | None) -> bool:
    """Whether ``plan`` replaces what a node works on: another run, or a later round or attempt."""
    if current is None or plan.run != current.run:
        return True
    return (plan.round, plan.attempt) > (current.round, current.attempt)


def goes_on(plan: Plan | None, newer_plan: Plan) -> bool:
    """Whether work on a plan counts also when a newer one is there."""
    return plan is not None and plan.run == newer_plan.run and plan.buffer > 0 and newer_plan.buffer > 0


def work(plan: Plan) -> Work:
    """What a plan has a bundle do with a site's data."""
    return Work(plan.run, plan.bundle, "evaluation" if plan.task == "evaluate" else "training")


def work_seed(seed: int, round: int, node: str) -> int:
    """Seed of one node's training in one round of a run with ``seed``, 0..2**31-1.

    The same after any restart, and in any run that asks for the same seed.
    """
    text = f"{seed}/{round}/{node}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big") >> 1


def absence(node: str, error: ReunaError) -> Member:
    """An edge that gives nothing because of an error: its code and our words, never what it says."""
    code = error.code if error.code in ABSENCES else ReunaError.code
    return Member(node, absent=f"{code} {ABSENCES[code]}")
