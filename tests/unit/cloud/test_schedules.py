"""Runs that are begun by the clock: once for each time, also after a restart; and nothing in arrears."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reuna.adapters.journal_dbos import DbosHost
from reuna.cloud.schedules import LOOK_S, MOST, Schedules
from reuna.core.errors import BlobNotFound, Corrupted, PlanError, ReunaError, RunNotFound
from reuna.core.records import RunSpec
from reuna.core.schedule import DAY_S, Schedule

NIGHTLY = Schedule("nightly", "r-1", "02:30")
MIDNIGHT = 1000 * DAY_S
SPEC = RunSpec("r-1", "pumps", "t", "all", 3, "fedavg", {"north": ("e1",)}, "ab" * 32, 72, 10, "cd" * 32, 5)


class Clock:
    """Each nap ends when a test turns the clock."""

    def __init__(self) -> None:
        self.at, self.turned = MIDNIGHT, asyncio.Event()
        self.napping = asyncio.Event()
        self.naps: list[float] = []

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.napping.set()
        await self.turned.wait()
        self.turned.clear()

    async def turn(self, to: float) -> None:
        await self.napping.wait()
        self.napping.clear()
        self.at = to
        self.turned.set()
        await self.napping.wait()


class Cloud:
    """Knows one run, a fleet, and which runs were begun."""

    def __init__(self, file: Path) -> None:
        self.file, self.clock = file, Clock()
        self.begun: list[RunSpec] = []
        self.whys: list[str] = []
        self.fogs: dict[str, tuple[str, ...]] = {"north": ("e1", "e2"), "south": ()}
        self.fails: ReunaError | None = None
        self.open()

    def open(self) -> None:
        self.schedules = Schedules(self.file, self.clock, self.spec_of, self.begin, lambda: self.fogs)

    async def spec_of(self, run: str) -> RunSpec:
        if run != "r-1":
            raise RunNotFound(f"no run {run!r}")
        return SPEC

    async def begin(self, why: str, spec: RunSpec) -> None:
        if self.fails is not None:
            raise self.fails
        self.whys.append(why)
        self.begun.append(spec)

    def names(self) -> list[str]:
        return [spec.run for spec in self.begun]


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path / "schedules.json")


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_run_is_begun_when_it_is_due_and_once(cloud: Cloud) -> None:
    await cloud.schedules.put(NIGHTLY)
    keeping = asyncio.create_task(cloud.schedules.keep())
    for hours in (1.0, 2.5, 2.6, 20.0, 26.4, 26.5):
        await cloud.clock.turn(MIDNIGHT + hours * 3600)
    await ended(keeping)
    assert cloud.names() == ["nightly-19720927-0230", "nightly-19720928-0230"]
    first = cloud.begun[0]
    assert first == msgspec.structs.replace(SPEC, run=first.run, fogs={"north": ("e1", "e2")}), (
        "on the fleet of now"
    )
    assert cloud.whys == ["schedule nightly", "schedule nightly"]


async def test_what_was_due_before_it_was_kept_is_not_begun(cloud: Cloud) -> None:
    cloud.clock.at = MIDNIGHT + 3 * 3600
    await cloud.schedules.put(NIGHTLY)
    keeping = asyncio.create_task(cloud.schedules.keep())
    await cloud.clock.turn(MIDNIGHT + 4 * 3600)
    await ended(keeping)
    assert cloud.names() == []


async def test_a_cloud_that_was_away_for_days_begins_the_last_one_alone(cloud: Cloud) -> None:
    await cloud.schedules.put(NIGHTLY)
    cloud.clock.at = MIDNIGHT + 5 * DAY_S
    cloud.open()
    keeping = asyncio.create_task(cloud.schedules.keep())
    await cloud.clock.turn(cloud.clock.at + 1)
    await ended(keeping)
    assert cloud.names() == ["nightly-19721001-0230"]


async def test_a_schedule_that_is_put_again_as_it_is_begins_nothing_anew(cloud: Cloud) -> None:
    await cloud.schedules.put(NIGHTLY)
    before = cloud.file.read_bytes()
    cloud.clock.at += 1
    await cloud.schedules.put(NIGHTLY)
    assert cloud.file.read_bytes() == before


async def test_with_an_interval_it_wakes_when_the_next_one_is_due(cloud: Cloud) -> None:
    cloud.clock.at = MIDNIGHT + 7.0
    await cloud.schedules.put(Schedule("often", "r-1", every="10s"))
    keeping = asyncio.create_task(cloud.schedules.keep())
    for seconds in (10.0, 14.0, 20.0):
        await cloud.clock.turn(MIDNIGHT + seconds)
    await ended(keeping)
    assert cloud.names() == ["often-19720927-000010", "often-19720927-000020"]
    assert cloud.clock.naps == [3.0, LOOK_S, 6.0, LOOK_S]


def test_schedules_that_were_kept_before_there_were_intervals_are_read(cloud: Cloud) -> None:
    schedule = {"name": "nightly", "again": "r-1", "at": "02:30", "days": ["mon"]}
    kept = [{"schedule": schedule, "since": 1.0, "spec": msgspec.to_builtins(SPEC)}]
    cloud.file.write_bytes(msgspec.json.encode(kept))
    cloud.open()
    (found,) = cloud.schedules.listed()
    assert (found["at"], found["days"], found["every"]) == ("02:30", ("mon",), "")


async def test_what_goes_wrong_is_shown_and_the_next_time_is_tried_again(cloud: Cloud) -> None:
    await cloud.schedules.put(NIGHTLY)
    cloud.fails = BlobNotFound("no blob abab")
    keeping = asyncio.create_task(cloud.schedules.keep())
    due = MIDNIGHT + 2.5 * 3600
    await cloud.clock.turn(due)
    (said,) = cloud.schedules.listed()
    assert (said["last"], said["wrong"], said["next"]) == (
        due,
        f"{BlobNotFound.code} no blob abab",
        due + DAY_S,
    )
    cloud.fails = None
    await cloud.clock.turn(due + DAY_S)
    await ended(keeping)
    assert len(cloud.begun) == 1
    assert cloud.schedules.listed()[0]["wrong"] == ""


async def test_what_is_dropped_is_begun_no_more(cloud: Cloud) -> None:
    await cloud.schedules.put(NIGHTLY)
    cloud.schedules.drop("nightly")
    cloud.open()
    assert cloud.schedules.listed() == []
    with pytest.raises(RunNotFound):
        cloud.schedules.drop("nightly")


async def test_what_cannot_be_kept_is_refused_and_nothing_changes(cloud: Cloud) -> None:
    with pytest.raises(RunNotFound):
        await cloud.schedules.put(Schedule("nightly", "r-9", "02:30"))
    with pytest.raises(PlanError, match="schedule nightly: needs at or every"):
        await cloud.schedules.put(Schedule("nightly", "r-1"))
    with pytest.raises(PlanError, match="must be some of"):
        await cloud.schedules.put(Schedule("nightly", "r-1", "02:30", ("so",)))
    for number in range(MOST):
        await cloud.schedules.put(Schedule(f"s-{number}", "r-1", "02:30"))
    with pytest.raises(PlanError, match="64 schedules"):
        await cloud.schedules.put(NIGHTLY)
    assert len(cloud.schedules.listed()) == MOST


@pytest.mark.parametrize("data", [b"", b"{", b"[{}]", b"\xff"])
def test_a_damaged_file_is_said_with_what_to_do(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "schedules.json"
    file.write_bytes(data)
    nothing: Any = None
    with pytest.raises(Corrupted, match="cannot be read"):
        Schedules(file, nothing, nothing, nothing, nothing)


async def test_after_a_restart_at_the_same_moment_the_journal_begins_the_run_no_second_time(
    tmp_path: Path,
) -> None:
    host, clock, begun = DbosHost(tmp_path / "journal"), Clock(), list[str]()

    async def body(_journal: Any, spec: str) -> str:
        begun.append(msgspec.json.decode(spec, type=RunSpec).run)
        return "done"

    async def submit(_why: str, spec: RunSpec) -> None:
        await host.submit("train", spec.run, msgspec.json.encode(spec).decode())

    async def spec_of(run: str) -> RunSpec:
        return msgspec.json.decode(await host.spec(run), type=RunSpec)

    host.register("train", body)
    await host.start()
    try:
        await submit("", SPEC)
        first = Schedules(tmp_path / "s.json", clock, spec_of, submit, lambda: SPEC.fogs)
        await first.put(NIGHTLY)
        for _ in range(2):  # lives of the cloud
            again = Schedules(tmp_path / "s.json", clock, spec_of, submit, lambda: SPEC.fogs)
            keeping = asyncio.create_task(again.keep())
            await clock.turn(MIDNIGHT + 3 * 3600)
            await ended(keeping)
            clock.napping.clear()
        assert await host.result("nightly-19720927-0230") == "done"
        assert begun == ["r-1", "nightly-19720927-0230"]
    finally:
        await host.stop()
