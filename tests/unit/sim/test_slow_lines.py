"""In a simulated fleet an edge on a slow line counts, and one that trickles costs nobody a second."""

from __future__ import annotations

import pytest

from reuna.core.patience import MOST
from reuna.loop.train import read_members
from reuna.sim.clock import SimClock, run_virtual
from reuna.sim.faults import Walker
from reuna.sim.fleet import FairWeather, SimEdge, SimFleet, make_spec
from reuna.sim.freight import Weather
from reuna.sim.journal import JournalStore, SimJournal

DEADLINE_S = 60.0
SLOW = "edge-1"


class Line(Weather):
    """Needs so many seconds for an update."""

    def __init__(self, takes_s: float) -> None:
        self._takes_s = takes_s

    def seconds(self, what: str, size: int) -> float:
        return self._takes_s if what == "send" else 0.0


class OneSlow(FairWeather):
    """One edge has such a line, all others the best."""

    def __init__(self, takes_s: float) -> None:
        super().__init__()
        self._takes_s = takes_s

    def weather(self, node: str) -> Weather:
        return Line(self._takes_s) if node == SLOW else Weather()


def counted(takes_s: float) -> tuple[list[str], float]:
    """Who is in the sum of a round, and how long it took in virtual seconds."""
    fogs = {f"fog-{number}": {f"edge-{number}": SimEdge(Walker(), 1)} for number in range(3)}
    store = JournalStore()
    fleet = SimFleet(fogs, SimClock(), lambda: SimJournal(store), OneSlow(takes_s))
    run_virtual(fleet.run(*make_spec(fogs, Walker(), 1, quorum=0.5, deadline_s=DEADLINE_S)))
    fields = fleet.timeline["round", 1]
    return sorted(read_members(str(fields["members"]))), float(fields["seconds"])


@pytest.mark.parametrize("takes_s", [1.0, 50.0, 90.0, 110.0])
def test_an_update_that_moves_counts_also_after_the_deadline(takes_s: float) -> None:
    """Its fog holds its own round open, and the cloud learns from the fog's hello to wait for it."""
    members, seconds = counted(takes_s)
    assert members == ["edge-0", "edge-1", "edge-2"]
    assert takes_s <= seconds < takes_s + 5


@pytest.mark.parametrize("takes_s", [200.0, 100_000.0])
def test_who_could_not_be_in_by_the_bound_is_not_waited_for(takes_s: float) -> None:
    members, seconds = counted(takes_s)
    assert members == ["edge-0", "edge-2"]
    assert seconds <= 1.25 * DEADLINE_S + 1 < MOST * DEADLINE_S
