"""A run in which nodes were missing is repeated bit by bit by those that took part, and by no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

import reuna
from reuna.api import play, rounds_of, with_members
from reuna.core.errors import PlanError
from reuna.sim.faults import Chances, Rehearsal, Walker, fleet_of, rehearse
from reuna.sim.fleet import make_spec

ROUGH = Chances(kill=0.02, lose=0.3, line_down=0.2)
ROUNDS = 6
EDGES = [edge for edges in fleet_of(2, 3).values() for edge in edges]
NODES: dict[str, Any] = {"a": 3, "b": 5, "c": 7}  # a Walker's data is its weight
SOME = [("a", "b"), ("c",), ("a", "b", "c"), ("b", "c")]


def disturbed(seed: int) -> Rehearsal:
    """A run whose short deadline nodes miss."""
    return rehearse(seed, ROUGH, deadline_s=5.0, quorum=0.15, rounds=ROUNDS)


def replayed(seed: int, took_part: Sequence[Sequence[str]]) -> str:
    """The model of the same run with given members, when nothing goes wrong."""
    fogs = {
        fog: {name: replace(edge, rounds=rounds_of(name, took_part)) for name, edge in edges.items()}
        for fog, edges in fleet_of(2, 3).items()
    }
    spec, model, bundle = make_spec(fogs, Walker(), ROUNDS, strategy="fedavgm")
    return play(fogs, with_members(spec, took_part), model, bundle).digest


@pytest.mark.parametrize("seed", range(3, 9))
def test_a_replay_with_the_recorded_members_gives_the_same_bits(seed: int) -> None:
    found = disturbed(seed)
    assert any(len(names) < 6 for names in found.took_part), "somebody was missing"
    assert [len(names) for names in found.took_part] == list(found.members.values())
    assert replayed(seed, found.took_part) == found.outcome["model"]


def test_a_replay_with_other_members_gives_other_bits() -> None:
    found = disturbed(3)
    for number in range(ROUNDS):
        others = [list(names) for names in found.took_part]
        one = next(node for node in EDGES if others[number] != [node])
        others[number] = sorted({one}.symmetric_difference(others[number]))
        assert replayed(3, others) != found.outcome["model"], f"round {number + 1} with {others[number]}"


def test_a_simulation_says_who_took_part_and_takes_it_again() -> None:
    whole = reuna.simulate(Walker(), NODES, 4)
    assert whole.took_part == [("a", "b", "c")] * 4
    some = reuna.simulate(Walker(), NODES, 4, took_part=SOME)
    assert some.took_part == SOME
    assert some.digest != whole.digest
    assert reuna.simulate(Walker(), NODES, 4, took_part=some.took_part, fogs=3).digest == some.digest
    assert reuna.simulate(Walker(), NODES, 4, took_part=whole.took_part).digest == whole.digest
    assert set(some.scores) == set(NODES), "who is missing from a round is evaluated all the same"


@pytest.mark.parametrize(
    ("took_part", "said"),
    [
        (SOME[:3], "has 3 rounds, the run 4"),
        ([*SOME[:3], ()], "round 4 names nobody"),
        ([*SOME[:3], ("a", "d")], "round 4 names 'd'"),
    ],
)
def test_members_that_cannot_be_are_named(took_part: Any, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        reuna.simulate(Walker(), NODES, 4, took_part=took_part)
