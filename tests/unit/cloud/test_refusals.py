"""What a fog or the cloud refused is told of once, in the run's timeline, by sender and reason."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reuna.core.errors import Refused
from reuna.core.records import Member, RunSpec, Setting
from reuna.exchange.intake import Intake
from reuna.loop import train
from reuna.sim.clock import SimClock, run_virtual
from reuna.sim.faults import Walker, fleet_of
from reuna.sim.fleet import FairWeather, SimFleet, make_spec
from reuna.sim.journal import JournalStore, SimJournal
from reuna.sim.lives import adopting_tasks


class Fleet(SimFleet):
    """After its first round somebody sends what is refused: an edge at its fog, a fog at the cloud."""

    def __init__(self) -> None:
        fogs, store = fleet_of(2, 2), JournalStore()
        super().__init__(fogs, SimClock(), lambda: SimJournal(store), FairWeather())
        self.spec, self.model, self.bundle = make_spec(fogs, Walker(), 3)
        self.told: list[dict[str, Setting]] = []

    async def _report(self, spec: RunSpec, what: str, fields: dict[str, Setting]) -> None:
        await super()._report(spec, what, fields)
        if what == "refused":
            self.told.append(fields)
        if what == "round" and fields["round"] == 1:
            first, second = sorted(self.fogs)
            edge = next(iter(self.fogs[first]))
            self.send(first, edge, edge, times=2)
            self.send("cloud", second, first, times=1)

    def send(self, place: str, peer: str, sender: str, times: int) -> None:
        """What was made for another run, perhaps in another's name."""
        intake = self.depots[place]
        assert isinstance(intake, Intake)
        asked = next(iter(intake._asked.values()))
        old = msgspec.structs.replace(asked.plan, run="r-0")
        for _ in range(times):
            with pytest.raises(Refused):
                intake.receive(peer, train.answer(old, "p" * 64, Member(sender)))

    def carry_out(self) -> Any:
        return run_virtual(self.run(self.spec, self.model, self.bundle), adopting_tasks)


def test_what_was_refused_is_told_with_the_next_round_that_closes() -> None:
    fleet = Fleet()
    outcome = fleet.carry_out()
    first, second = sorted(fleet.fogs)
    edge = next(iter(fleet.fogs[first]))
    assert fleet.told == [
        {"round": 2, "attempt": 1, f"{first}/{edge}/stale": 2, f"cloud/{second}/identity": 1}
    ]
    quiet = Fleet()
    quiet.send = lambda *_, **__: None  # type: ignore[method-assign]
    assert quiet.carry_out() == outcome, "it cost only its sender"
    assert not quiet.told
