"""Models as steps from the one before: made as long as somebody fetches them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reuna.core.records import Encoding, Grid
from reuna.exchange.weigher import Weigher
from reuna.sim.clock import SimClock, run_virtual
from reuna.sim.faults import Walker, fleet_of
from reuna.sim.fleet import FairWeather, SimFleet, make_spec
from reuna.sim.journal import JournalStore, SimJournal
from reuna.sim.lives import adopting_tasks

PARAMS = 70_000  #: too many to ride in plans
ROUNDS = 18


def steps_of(rounds: int = ROUNDS) -> list[int]:
    """Rounds that left a step to their model."""
    fogs, store, learner = fleet_of(1, 1), JournalStore(), Walker(PARAMS)
    fogs = {fog: {name: _large(edge, learner) for name, edge in edges.items()} for fog, edges in fogs.items()}
    fleet = SimFleet(fogs, SimClock(), lambda: SimJournal(store), FairWeather())
    spec, model, bundle = make_spec(
        fogs, learner, rounds, grid=Grid(16, -10), encoding=Encoding(packed=True, by_line=True)
    )
    run_virtual(fleet.run(spec, model, bundle), adopting_tasks)
    left = [json.loads(str(result)) for name, result in store.results if name.startswith("round")]
    return [number for number, each in enumerate(left, 1) if each["step"]]


def _large(edge: Any, learner: Walker) -> Any:
    return type(edge)(learner, edge.data)


def test_each_round_leaves_a_step_while_somebody_fetches_them() -> None:
    assert steps_of(6) == [1, 2, 3, 4, 5, 6]


def test_steps_that_nobody_fetches_are_made_no_more_but_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Weigher, "steps", lambda *_: False)
    assert steps_of() == [1, 2, 3, 16]
