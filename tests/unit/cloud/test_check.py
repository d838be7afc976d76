"""A check before a run on a whole simulated fleet: who answers, who cannot, and whom it disturbs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import msgspec
import pytest

from reuna.cloud.check import KEPT, LONGEST_S, WAITING, Checks
from reuna.cloud.plan import Planner
from reuna.cloud.turns import Turns
from reuna.core.errors import PlanError, RunNotFound, SettingsError, TooMany
from reuna.core.readiness import ABOUT
from reuna.core.records import Rehearsal, RunSpec, Said, Terms
from reuna.exchange.intake import Intake
from reuna.exchange.presence import Presence
from reuna.loop import train
from reuna.sim.bus import MemoryBroker
from reuna.sim.clock import InPlace, SimClock, run_virtual
from reuna.sim.faults import Walker, fleet_of
from reuna.sim.fleet import FairWeather, SimFleet, make_spec, unsealed
from reuna.sim.journal import JournalStore, SimJournal
from reuna.sim.lives import adopting_tasks
from reuna.sim.storage import MemoryBlobs, MemorySpool

EDGES = ("edge-0-0", "edge-0-1", "edge-1-0", "edge-1-1")
WAIT_S = 10.0


class Fleet(SimFleet):
    """A fleet that carries out a run, of which the test asks checks meanwhile."""

    def __init__(
        self, rounds: int = 1, older: Collection[str] = (), above: dict[str, str] | None = None
    ) -> None:
        fogs, store = fleet_of(2, 2), JournalStore()
        super().__init__(fogs, SimClock(), lambda: SimJournal(store), FairWeather(), above=above)
        self.older = older
        self.over = False
        self.spec, self.model, self.bundle = make_spec(fogs, Walker(), rounds, above)

    def _presence(self, link: Any, name: str, about: Any) -> Presence:
        if name in self.older:
            link = Older(link)
        return super()._presence(link, name, about)

    async def ask(self, name: str = "c-1", **changes: Any) -> dict[str, Any]:
        """The answers to a check."""
        await asyncio.sleep(0.1)  # until the places have begun
        assert self.checks is not None
        spec = msgspec.structs.replace(self.spec, run=name, deadline_s=WAIT_S, **changes)
        self.checks.begin(spec)
        for _ in range(1000):
            if (found := self.checks.status(name))["state"] in ("done", "failed"):
                break
            await asyncio.sleep(0.1)
        return found

    def kill(self, node: str, power: bool = False) -> None:
        """The end of the run is not yet that of the fleet."""
        if self.over:
            super().kill(node, power)

    def live(self, story: Callable[[Fleet], Awaitable[Any]]) -> tuple[Any, Any]:
        """The run's outcome, and what came of the story beside it."""

        async def both() -> tuple[Any, Any]:
            telling = asyncio.ensure_future(story(self))
            running = asyncio.ensure_future(self.run(self.spec, self.model, self.bundle))
            await asyncio.wait([telling, running])
            self.over = True
            for node in self.nodes:
                self.kill(node)
            return running.result(), telling.result()

        return run_virtual(both(), adopting_tasks)


class Older:
    """A link to the parent of a node that was made before checks were."""

    def __init__(self, link: Any) -> None:
        self._link = link

    async def hello(self, hello: Any) -> None:
        await self._link.hello(msgspec.structs.replace(hello, protocol=1))


def absent(found: dict[str, Any]) -> dict[str, str]:
    return {each["node"]: each["absent"] for each in found["members"] if "absent" in each}


def test_every_edge_answers_and_nothing_is_trained_for_it() -> None:
    fleet = Fleet()
    _, found = fleet.live(lambda fleet: fleet.ask())
    assert found["state"] == "done"
    assert [each["node"] for each in found["members"]] == list(EDGES)
    assert {(each["about"], each.get("word", "yes")) for row in found["members"] for each in row["said"]} == {
        (about, "yes") for about in ABOUT if about != "memory"
    }
    assert not absent(found)
    assert {key[0] for _, key in fleet.trained} == {"r-sim"}


def test_edges_of_a_fog_under_a_fog_answer_through_both() -> None:
    _, found = Fleet(above={"fog-1": "fog-0"}).live(lambda fleet: fleet.ask())
    assert [each["node"] for each in found["members"]] == list(EDGES)
    assert not absent(found)


def test_a_fog_that_knows_no_fogs_under_fogs_is_named_with_its_edges_and_the_others_go_on() -> None:
    fleet = Fleet(older=["fog-1"], above={"fog-1": "fog-0"})
    fleet.spec = msgspec.structs.replace(fleet.spec, quorum=0.5)
    _, found = fleet.live(lambda fleet: fleet.ask())
    assert absent(found) == {"edge-1-0": train.OLDER, "edge-1-1": train.OLDER}
    assert fleet.timeline["round", 1]["took_part"] == 2


def test_a_run_that_goes_on_beside_a_check_ends_in_the_same_bits() -> None:
    async def ask_often(fleet: Fleet) -> list[str]:
        return [(await fleet.ask(f"c-{number}"))["state"] for number in range(3)]

    alone, _ = Fleet(4).live(lambda _fleet: asyncio.sleep(0))
    beside, states = Fleet(4).live(ask_often)
    assert states == ["done"] * 3
    assert beside == alone


def test_who_is_silent_is_named_when_the_time_is_over() -> None:
    async def without_one(fleet: Fleet) -> dict[str, Any]:
        await asyncio.sleep(0.1)
        SimFleet.kill(fleet, EDGES[1])
        return await fleet.ask()

    fleet = Fleet()
    fleet.spec = msgspec.structs.replace(fleet.spec, quorum=0.5, deadline_s=5.0)
    _, found = fleet.live(without_one)
    assert absent(found) == {EDGES[1]: train.UNHEARD}


def test_an_edge_or_a_fog_of_an_older_version_is_said_to_be_one_at_once() -> None:
    async def timed(fleet: Fleet) -> tuple[dict[str, Any], float]:
        await asyncio.sleep(2)  # until everybody has said hello
        began = asyncio.get_running_loop().time()
        return await fleet.ask(), asyncio.get_running_loop().time() - began

    for older, expected in ((EDGES[0], EDGES[:1]), ("fog-1", EDGES[2:])):
        _, (found, seconds) = Fleet(8, [older]).live(timed)
        assert absent(found) == dict.fromkeys(expected, train.OLDER)
        assert seconds < WAIT_S


def test_a_fleet_of_older_fogs_alone_is_asked_nothing() -> None:
    async def timed(fleet: Fleet) -> dict[str, Any]:
        return await fleet.ask()

    _, found = Fleet(1, ["fog-0", "fog-1"]).live(timed)
    assert absent(found) == dict.fromkeys(EDGES, train.OLDER)


def test_what_a_fogs_own_policy_keeps_is_told_of_each_of_its_edges() -> None:
    fleet = Fleet()
    no = Rehearsal(
        (Said("code", "no", "code"), Said("model_update", "no", "protection"), Said("metric")), Terms()
    )
    setattr(fleet.meters["fog-0"], "rehearse", lambda _ahead: no)
    _, found = fleet.live(lambda fleet: fleet.ask())
    words = {
        each["node"]: [(x["about"], x["why"]) for x in each["said"] if x.get("word", "yes") != "yes"]
        for each in found["members"]
    }
    told = [("model_update", "protection")]
    assert words == {EDGES[0]: told, EDGES[1]: told, EDGES[2]: [], EDGES[3]: []}


# --- asking -----------------------------------------------------------------------------------


def idle() -> tuple[Checks, RunSpec, Turns]:
    """Checks of a cloud whose turn somebody else has."""
    turn = Turns()
    intake = Intake("cloud", MemoryBlobs(), MemorySpool())
    planner = Planner(MemoryBroker().connect("cloud"), intake, unsealed)
    spec, _, _ = make_spec(fleet_of(1, 1), Walker(), 1, run="c-1", deadline_s=1.0)
    return Checks("cloud", planner, intake, turn, InPlace()), spec, turn


def run(story: Callable[[Checks, RunSpec, Turns], Awaitable[None]]) -> None:
    async def live() -> None:
        checks, spec, turn = idle()
        await turn.__aenter__()
        await story(checks, spec, turn)
        await checks.stop()

    run_virtual(live())


def test_a_check_has_a_name_that_no_run_has() -> None:
    async def story(checks: Checks, spec: RunSpec, _turn: Any) -> None:
        for name in ("r-20261124-081500-07dd", "c-", "c-A", "c-" + "a" * 61, "c-1\n"):
            with pytest.raises(PlanError, match="no name of a check"):
                checks.begin(msgspec.structs.replace(spec, run=name))

    run(story)


def test_what_cannot_be_asked_is_refused_before_anybody_is() -> None:
    async def story(checks: Checks, spec: RunSpec, _turn: Any) -> None:
        with pytest.raises(PlanError, match="a check waits"):
            checks.begin(msgspec.structs.replace(spec, deadline_s=LONGEST_S + 1))
        with pytest.raises(PlanError, match="no edge"):
            checks.begin(msgspec.structs.replace(spec, fogs={}))
        with pytest.raises(SettingsError, match="cannot be read"):
            checks.begin(msgspec.structs.replace(spec, settings={"check": "[]"}))
        with pytest.raises(RunNotFound, match="no check 'c-1'"):
            checks.status("c-1")

    run(story)


def test_only_so_many_checks_wait_and_one_that_is_asked_for_again_is_one() -> None:
    async def story(checks: Checks, spec: RunSpec, _turn: Any) -> None:
        for number in range(WAITING):
            checks.begin(msgspec.structs.replace(spec, run=f"c-{number}"))
        checks.begin(msgspec.structs.replace(spec, run="c-0"))
        await asyncio.sleep(60)  # somebody else has the turn
        assert {checks.status(f"c-{number}")["state"] for number in range(WAITING)} == {"queued"}
        with pytest.raises(TooMany):
            checks.begin(msgspec.structs.replace(spec, run="c-more"))

    run(story)


def test_the_oldest_answers_are_forgotten_and_none_that_somebody_waits_for() -> None:
    async def story(checks: Checks, spec: RunSpec, turn: Turns) -> None:
        await turn.__aexit__()
        for number in range(KEPT + 1):
            checks.begin(msgspec.structs.replace(spec, run=f"c-{number}"))
            await asyncio.sleep(5)
        with pytest.raises(RunNotFound):
            checks.status("c-0")
        assert checks.status(f"c-{KEPT}")["members"][0]["absent"] == train.UNHEARD
        await turn.__aenter__()

    run(story)
