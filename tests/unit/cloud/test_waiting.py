"""A run whose code the sites have yet to approve: it waits, and ends in the bits of one that did not."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from reuna.cloud.train import LAST_WAIT_S, MAX_ATTEMPTS
from reuna.core.errors import DataError, NotApproved, Refused, RunFailed
from reuna.core.records import Plan
from reuna.loop import plan as planning
from reuna.loop import train
from reuna.sim.clock import SimClock, run_virtual
from reuna.sim.faults import Walker, fleet_of
from reuna.sim.fleet import FairWeather, SimFleet, make_spec
from reuna.sim.journal import JournalStore, SimJournal
from reuna.sim.lives import adopting_tasks
from reuna.wire import decode

HOUR = 3600.0
EDGES = ("edge-0-0", "edge-0-1", "edge-1-0", "edge-1-1")


class Fleet(SimFleet):
    """Edges whose officers approve at a time of their own, s after the start."""

    def __init__(self, officers: dict[str, float], **changes: Any) -> None:
        fogs, store = fleet_of(2, 2), JournalStore()
        super().__init__(fogs, SimClock(), lambda: SimJournal(store), FairWeather())
        self.spec, self.model, self.bundle = make_spec(fogs, Walker(), 3, **changes)
        self.told: list[str] = []
        for edge, at in officers.items():
            setattr(self.meters[edge], "approved", partial(self.judge, at))

    def judge(self, at: float, _bundle: str, _unsigned: str) -> int:
        if asyncio.get_running_loop().time() < at:
            raise NotApproved("it waits")
        return 0

    async def _report(self, spec: Any, what: str, fields: Any) -> None:
        await super()._report(spec, what, fields)
        if what == "waits":
            self.told.append(fields["nodes"])

    def carry_out(self) -> tuple[Any, float]:
        async def whole() -> tuple[Any, float]:
            outcome = await self.run(self.spec, self.model, self.bundle)
            return outcome, asyncio.get_running_loop().time()

        return run_virtual(whole(), adopting_tasks)


def test_a_run_waits_for_hours_and_goes_on_soon_after_the_last_approval() -> None:
    expected, _ = Fleet({}).carry_out()
    fleet = Fleet({EDGES[0]: HOUR, EDGES[3]: 2 * HOUR})
    outcome, end = fleet.carry_out()
    assert outcome == expected
    assert 2 * HOUR <= end < 2 * HOUR + 2 * LAST_WAIT_S
    assert fleet.told == ["edge-0-0, edge-1-1", "edge-1-1"], "each change is told once"


def test_a_quorum_that_has_approved_begins_and_others_join_later() -> None:
    fleet = Fleet({EDGES[0]: 3 * HOUR}, quorum=0.75)
    _, end = fleet.carry_out()
    assert end < HOUR
    assert fleet.timeline["round", 1]["took_part"] == 3
    assert train.AWAITED in str(fleet.timeline["round", 1]["absent"])


def test_without_the_guard_the_run_fails_after_its_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "waits", lambda *_: False)
    with pytest.raises(RunFailed, match=f"quorum in {MAX_ATTEMPTS} attempts"):
        Fleet({EDGES[0]: HOUR}).carry_out()


def test_an_edge_that_is_silent_for_another_reason_still_ends_the_run() -> None:
    fleet = Fleet({EDGES[0]: HOUR}, deadline_s=2.0)
    setattr(fleet.meters[EDGES[1]], "approved", _never)
    with pytest.raises(RunFailed):
        fleet.carry_out()


def test_the_plans_of_a_run_with_many_attempts_are_one_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[int, set[tuple[str, str]]] = {}
    real = planning.plans

    def heard(*args: Any) -> dict[str, bytes]:
        found = real(*args)
        for data in found.values():
            plan = decode(Plan, data)
            asked.setdefault(plan.round, set()).add((planning.shared(plan), plan.before))
        return found

    monkeypatch.setattr(planning, "plans", heard)
    Fleet({EDGES[0]: HOUR}, local=True, evaluate=True).carry_out()
    assert [len(asked[number]) for number in sorted(asked)] == [1] * len(asked)
    links = [asked[number].pop() for number in sorted(asked)]
    assert len(links) == 5, "three rounds, the local baseline, the evaluation"
    assert [before for _, before in links] == ["", *(mine for mine, _ in links[:-1])]


def _never(_bundle: str, _unsigned: str) -> int:
    raise Refused("policy", "no new code")


def _broken(_bundle: str, _unsigned: str) -> int:
    raise DataError("no column 'flow'")


def test_a_mistake_that_stays_ends_the_run_at_once_and_says_who_made_it() -> None:
    fleet = Fleet({EDGES[0]: 0.0})
    for edge in EDGES[:2]:
        setattr(fleet.meters[edge], "approved", _broken)
    with pytest.raises(RunFailed) as told:
        fleet.carry_out()
    assert "another attempt would not change that" in told.value.message
    assert f"{EDGES[0]}, {EDGES[1]}: R103" in told.value.message
    assert fleet.timeline["short", 1]["attempt"] == 1


def test_while_one_of_the_absent_may_come_back_the_round_is_tried_again() -> None:
    fleet = Fleet({EDGES[0]: 0.0})
    setattr(fleet.meters[EDGES[0]], "approved", _broken)
    setattr(fleet.meters[EDGES[1]], "approved", _never)
    with pytest.raises(RunFailed, match=f"quorum in {MAX_ATTEMPTS} attempts"):
        fleet.carry_out()
