"""The whole fleet under seeded faults: the same bits as undisturbed, and planted bugs are caught.

``python -m tests.system.test_simulator`` prints the faults by kind and the seeds per second.
"""

from __future__ import annotations

import time
from collections import Counter

import pytest

from reuna.core.errors import ReunaError
from reuna.sim.clock import Deadlock
from reuna.sim.faults import Chances, rehearse, undisturbed
from tests.system.planted import PLANTED

SEEDS = 200
CHUNK = 25
CAUGHT_WITHIN = 60  #: seeds
KINDS = (
    "kill all",
    "kill place",
    "kill egress",
    "full disk",
    "lost word",
    "doubled word",
    "late word",
    "cut transfer",
    "lost answer",
    "line down",
)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_any_faults_give_the_same_bits(first: int) -> None:
    expected, faults = undisturbed(), Counter[str]()
    for seed in range(first, first + CHUNK):
        found = rehearse(seed)
        assert found.outcome == expected, f"reproduce with reuna.sim.faults.rehearse({seed})"
        faults += found.faults
    print(dict(faults))
    assert all(faults[kind] > 0 for kind in KINDS)


def test_the_same_seed_gives_the_same_history() -> None:
    assert rehearse(7) == rehearse(7)


def caught(seed: int, expected: object) -> bool:
    """Whether a seed shows that something is wrong: another outcome, an error, or a hang."""
    try:
        return rehearse(seed, longest_s=2000.0, deadline_s=300.0).outcome != expected
    except (ReunaError, TimeoutError, Deadlock, ValueError, KeyError, AssertionError, OverflowError):
        return True


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_caught(name: str) -> None:
    expected = undisturbed()
    with PLANTED[name]():
        assert any(caught(seed, expected) for seed in range(CAUGHT_WITHIN))


def test_silent_nodes_cost_only_their_own_part() -> None:
    """With a short deadline and half a quorum, a run under heavy faults ends and counts who was there."""
    rough = Chances(kill=0.02, lose=0.3, line_down=0.2)
    found = rehearse(3, rough, deadline_s=5.0, quorum=0.5, rounds=6)
    assert sorted(found.members) == [1, 2, 3, 4, 5, 6]
    assert all(3 <= count <= 6 for count in found.members.values())


def main() -> None:
    """Print what `SEEDS` seeds did."""
    expected, faults, retrained, same = undisturbed(), Counter[str](), 0, 0
    began = time.perf_counter()
    for seed in range(SEEDS):
        found = rehearse(seed)
        same += found.outcome == expected
        faults += found.faults
        retrained += found.retrained
    seconds = time.perf_counter() - began
    for kind, count in faults.most_common():
        print(f"{count:7d}  {kind}")
    print(
        f"{SEEDS} seeds, {same} with the same bits, {retrained} rounds retrained, {SEEDS / seconds:.0f} seeds/s"
    )


if __name__ == "__main__":
    main()
