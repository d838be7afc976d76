"""The plan of the next round goes out while a round is made durable and journalled; nothing is lost by that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from reuna.cloud import train as train_at_cloud
from reuna.cloud.turns import Turns
from reuna.core.errors import Refused, Unreachable
from reuna.core.records import Contribution
from reuna.exchange.intake import Intake
from reuna.loop import train
from reuna.loop.plan import plans
from reuna.sim.clock import SimClock, run_virtual
from reuna.sim.faults import Walker, fleet_of
from reuna.sim.fleet import FairWeather, Faults, SimFleet, make_spec
from reuna.sim.journal import JournalStore, SimJournal
from reuna.sim.lives import Killed, adopting_tasks
from reuna.sim.storage import MemoryBlobs, MemorySpool
from reuna.wire import decode_plan, message_digest

SLOW_S = 10.0  #: that a journal takes to write down what a round left
TRAINS_S = 2.0


class SlowJournal(SimJournal):
    """The journal of a disk that takes its time. ``on_done``: told what is not yet written down."""

    def __init__(self, store: JournalStore, on_done: Callable[[str, Any], None]) -> None:
        super().__init__(store)
        self._on_done = on_done

    async def step(self, name: str, work: Callable[[], Awaitable[Any]]) -> Any:
        async def slowly() -> Any:
            result = await work()
            await asyncio.sleep(SLOW_S)
            self._on_done(name, result)
            return result

        return await super().step(name, slowly)


class Fleet(SimFleet):
    """Two fogs with two edges each, and a cloud with a slow journal."""

    def __init__(self, faults: Faults | None = None, **changes: Any) -> None:
        fogs, self.store = fleet_of(2, 2), JournalStore()
        fogs = {
            fog: {name: replace(edge, takes_s=TRAINS_S) for name, edge in edges.items()}
            for fog, edges in fogs.items()
        }
        super().__init__(
            fogs, SimClock(), lambda: SlowJournal(self.store, self.done), faults or FairWeather()
        )
        self.spec, self.model, self.bundle = make_spec(fogs, Walker(), 3, **changes)
        self.on_done: Callable[[str, Any], None] = lambda _name, _result: None
        self.on_report: Callable[[str, Any], None] = lambda _what, _fields: None

    async def _report(self, spec: Any, what: str, fields: Any) -> None:
        await super()._report(spec, what, fields)
        self.on_report(what, fields)

    def done(self, name: str, result: Any) -> None:
        self.on_done(name, result)

    def trained_in(self, number: int) -> set[str]:
        return {node for node, key in self.trained if key[1] == number}

    def carry_out(self) -> Any:
        return run_virtual(self.run(self.spec, self.model, self.bundle), adopting_tasks)


def test_nodes_train_the_next_round_while_a_round_is_journalled() -> None:
    fleet, seen = Fleet(), dict[str, tuple[int, int]]()

    def look(name: str, _result: Any) -> None:
        number = int(name.removeprefix("round "))
        seen[name] = len(fleet.trained_in(number + 1)), len(fleet.store.results)

    fleet.on_done = look
    fleet.carry_out()
    assert seen == {"round 1": (4, 0), "round 2": (4, 1), "round 3": (0, 2)}


def test_a_round_lasts_from_the_end_of_the_one_before() -> None:
    fleet = Fleet()
    fleet.carry_out()
    lasted = [fleet.timeline["round", number]["seconds"] for number in (1, 2, 3)]
    assert lasted[0] == pytest.approx(TRAINS_S, abs=0.5)
    assert lasted[1:] == [pytest.approx(SLOW_S, abs=0.5)] * 2, "all were in, and waited for the journal"


@pytest.fixture(params=["inside", "freight"])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether models ride in plans, and are in memory until they are durable, or are files."""
    if request.param == "freight":
        monkeypatch.setattr(train_at_cloud, "INLINE_LIMIT", 1)


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("power", [False, True])
def test_a_cloud_killed_before_it_journalled_ends_in_the_same_bits_and_refuses_nobody(power: bool) -> None:
    expected, fleet = Fleet().carry_out(), Fleet(Faults())
    killed: list[str] = []

    def kill(name: str, _result: Any) -> None:
        if name not in killed:
            killed.append(name)
            fleet.kill("cloud", power)
            asyncio.get_running_loop().call_later(1.0, fleet.start, "cloud")
            raise Killed

    fleet.on_done = kill
    assert fleet.carry_out() == expected
    assert killed == ["round 1", "round 2", "round 3"]
    rows = fleet.disks["cloud"].spool.rows_of_run(fleet.spec.run)
    assert [row.refused for row in rows] == [{}] * len(rows)
    assert {row.attempt for row in rows} == {1}
    assert len(fleet.trained) == len(set(fleet.trained)), "nobody trains a round twice"


@pytest.mark.usefixtures("model")
def test_what_is_journalled_is_on_the_disk() -> None:
    fleet, lost = Fleet(strategy="fedavgm"), list[str]()

    def cut_power(_name: str, result: Any) -> None:
        blobs = fleet.disks["cloud"].blobs
        blobs.crash(power=True)
        lost.extend(digest for digest in (result["model"], result["state"]) if blobs.get(digest) is None)

    fleet.on_done = cut_power
    fleet.carry_out()
    assert lost == []


def test_a_check_that_waits_for_its_turn_comes_before_the_next_plan() -> None:
    fleet, states = Fleet(), list[str]()

    async def live() -> None:
        running = asyncio.ensure_future(fleet.run(fleet.spec, fleet.model, fleet.bundle))
        await asyncio.sleep(TRAINS_S / 2)
        assert fleet.checks is not None
        fleet.checks.begin(msgspec.structs.replace(fleet.spec, run="c-1", deadline_s=5.0))
        await running

    def look(what: str, _fields: Any) -> None:
        assert fleet.checks is not None
        states.append(fleet.checks.status("c-1")["state"])

    fleet.on_report = look
    run_virtual(live(), adopting_tasks)
    assert states == ["queued", "done", "done"], "a round is told of and journalled meanwhile"


async def test_turns_know_whether_somebody_waits() -> None:
    turns, went = Turns(), list[str]()

    async def take(name: str) -> None:
        async with turns:
            went.append(name)
            await asyncio.sleep(0)

    before = turns.wanted
    async with turns:
        waiting = [asyncio.ensure_future(take(name)) for name in ("first", "second", "given up")]
        await asyncio.sleep(0)
        meanwhile = turns.wanted
        waiting[2].cancel()
    await asyncio.gather(*waiting[:2])
    assert went == ["first", "second"]
    assert (before, meanwhile, turns.wanted) == (False, True, False)


async def test_an_answer_to_the_next_round_waits_while_a_closed_one_is_carried_out_once_more() -> None:
    spec = make_spec(fleet_of(1, 1), Walker(), 3)[0]
    intake = Intake("cloud", MemoryBlobs(), MemorySpool())
    first, second, third = (plans(spec, number, 1, "train", spec.model, None) for number in (1, 2, 3))
    plan = decode_plan(first["fog-0"])
    answers = {number: _answer(asked["fog-0"]) for number, asked in ((2, second), (3, third))}
    intake.open(first)
    with pytest.raises(Refused, match="was replaced"):
        intake.receive("fog-0", answers[2])
    intake.close(train.closing_row(plan, "", "cloud", plan.cohort, ()))
    assert intake.open(first), "it was closed"
    with pytest.raises(Unreachable, match="carries out round 1 once more"):
        intake.receive("fog-0", answers[2])
    with pytest.raises(Refused, match="was replaced"):
        intake.receive("fog-0", answers[3])
    intake.open(second)
    intake.receive("fog-0", answers[2])


def _answer(data: bytes) -> Contribution:
    """A fog's report to a plan."""
    plan = decode_plan(data)
    return train.closing_row(plan, message_digest(data), "fog-0", plan.cohort, ())
