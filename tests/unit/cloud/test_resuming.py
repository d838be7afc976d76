"""A run that ended early and is resumed: it goes on at its last finished round, to the same bits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reuna.cloud.train import MAX_ATTEMPTS
from reuna.core.errors import DataError, ReunaError, RunFailed
from reuna.loop import train
from reuna.loop.plan import edges_of
from reuna.sim.clock import SimClock, run_virtual
from reuna.sim.faults import Walker, fleet_of
from reuna.sim.fleet import FairWeather, Faults, SimFleet, make_spec
from reuna.sim.journal import JournalStore, SimJournal
from reuna.sim.lives import adopting_tasks

EDGES = ("edge-0-0", "edge-0-1", "edge-1-0", "edge-1-1")


class Stops(Faults):
    """Stops the run at the n-th effect of the cloud, and resumes it a second later."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.seen = at, 0
        self.fleet: Fleet | None = None

    def point(self, node: str, what: str) -> None:
        if node != "cloud" or self.fleet is None:
            return
        self.seen += 1
        if self.seen == self.at:
            self.fleet.kill_place("cloud")
            self.fleet.store.resume(failed=False)
            asyncio.get_running_loop().call_later(1.0, self.fleet.start, "cloud")


class Fleet(SimFleet):
    """Two fogs with two edges each, and the store of their run's journal."""

    def __init__(self, faults: Faults | None = None, **changes: Any) -> None:
        fogs, self.store = fleet_of(2, 2), JournalStore()
        super().__init__(fogs, SimClock(), lambda: SimJournal(self.store), faults or FairWeather())
        self.spec, self.model, self.bundle = make_spec(
            fogs, Walker(), 3, local=True, evaluate=True, **changes
        )
        self.told: list[tuple[str, Any]] = []

    async def _report(self, spec: Any, what: str, fields: Any) -> None:
        await super()._report(spec, what, fields)
        self.told.append((what, fields))

    def carry_out(self) -> Any:
        return run_virtual(self.run(self.spec, self.model, self.bundle), adopting_tasks)

    def attempts(self, number: int) -> list[int]:
        """Attempts of a round of which the cloud has the end."""
        rows = self.disks["cloud"].spool.rows_of_run(self.spec.run)
        return sorted({row.attempt for row in rows if row.round == number and row.sender == "cloud"})


def stopped(at: int) -> tuple[Fleet, Any]:
    faults = Stops(at)
    fleet = faults.fleet = Fleet(faults)
    return fleet, fleet.carry_out()


def test_stopped_at_any_effect_and_resumed_a_run_ends_in_the_bits_of_one_that_was_not() -> None:
    calm = Stops(0)
    fleet = calm.fleet = Fleet(calm)
    expected = fleet.carry_out()
    assert calm.seen > 10
    for at in range(1, calm.seen + 1):
        fleet, outcome = stopped(at)
        assert outcome == expected, f"stopped at effect {at}"
        assert [fields["attempt"] for what, fields in fleet.told if what == "resumed"] == [2]


def test_an_attempt_that_was_closed_with_its_quorum_counts_in_the_next_life() -> None:
    kept = 0
    for at in range(1, 20):
        fleet, _ = stopped(at)
        assert [len(fleet.attempts(number)) for number in (1, 2, 3)] == [1, 1, 1], "none is closed twice"
        kept += fleet.attempts(1) == [1]
    assert kept, "some life ended between a round's close and its line in the journal"


def _broken(_bundle: str, _unsigned: str) -> int:
    raise DataError("no column 'flow'")


def failed(**changes: Any) -> Fleet:
    """A run that ended in its first round: two edges were too few."""
    fleet = Fleet(**changes)
    for edge in EDGES[:2]:
        setattr(fleet.meters[edge], "approved", _broken)
    with pytest.raises(RunFailed):
        fleet.carry_out()
    for edge in EDGES[:2]:
        delattr(fleet.meters[edge], "approved")
    fleet.store.resume(failed=True)
    return fleet


def test_a_run_that_failed_for_its_quorum_goes_on_when_the_nodes_are_well() -> None:
    fleet = failed()
    assert fleet.carry_out() == Fleet().carry_out()
    assert fleet.attempts(1) == [1, train.first_attempt(2)]
    assert fleet.attempts(2) == [train.first_attempt(2)]
    assert len(fleet.told) == len(
        {(what, fields.get("round"), fields.get("attempt")) for what, fields in fleet.told}
    )


def test_without_attempts_of_its_own_a_life_would_read_what_the_last_one_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = failed()
    monkeypatch.setattr(train, "first_attempt", lambda _life: 1)
    with pytest.raises(ReunaError, match="did not reach its quorum"):
        fleet.carry_out()


def test_attempts_of_a_life_lie_above_all_of_the_lives_before() -> None:
    assert train.first_attempt(1) == 1
    assert train.first_attempt(3) > train.first_attempt(2) + 10_000 * MAX_ATTEMPTS
    assert train.first_attempt(2000) < 2**31, "what the spool takes as a number"
    assert set(edges_of(Fleet().spec)) == set(EDGES)
