"""Runs that are begun by themselves: once for each cause, also after a restart; and nothing in arrears."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reuna.adapters.journal_dbos import DbosHost
from reuna.cloud.trigger import LOOK_S, MOST, Triggers
from reuna.core.errors import BlobNotFound, Corrupted, DiskFull, PlanError, ReunaError, RunNotFound
from reuna.core.labelled import Labelled
from reuna.core.records import RunSpec
from reuna.core.trigger import DAY_S, Trigger
from reuna.core.watched import Watched
from reuna.loop.monitor import Alarm, Finding
from reuna.loop.trigger import RETRY_S

NIGHTLY = Trigger("nightly", "r-1", "02:30")
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
    """Knows one run, a fleet, what is watched there, and which runs were begun or proposed."""

    def __init__(self, file: Path) -> None:
        self.file, self.clock = file, Clock()
        self.begun: list[RunSpec] = []
        self.proposed: list[RunSpec] = []
        self.whys: list[str] = []
        self.fleet: dict[str, tuple[str, ...]] = {"north": ("e1", "e2"), "south": ()}
        self.open_alarms: tuple[Alarm, ...] = ()
        self.watched: dict[str, Watched] = {}
        self.rows: dict[str, Labelled] = {}
        self.busy = ""
        self.fails: ReunaError | None = None
        self.power_cut = False
        self.open()

    def open(self) -> None:
        self.triggers = Triggers(self.file, self.clock, self)

    def fogs(self) -> dict[str, tuple[str, ...]]:
        return self.fleet

    def over(self) -> dict[str, str]:
        return {}

    def alarms(self) -> tuple[Alarm, ...]:
        return self.open_alarms

    async def told(self, project: str) -> dict[str, Watched]:
        assert project == "pumps"
        return self.watched

    async def labelled(self, project: str) -> dict[str, Labelled]:
        assert project == "pumps"
        return self.rows

    async def asked(self, run: str) -> RunSpec:
        if run != "r-1":
            raise RunNotFound(f"no run {run!r}")
        return SPEC

    async def last_of(self, project: str) -> RunSpec | None:
        assert project == "pumps"
        return self.begun[-1] if self.begun else None

    async def begin(self, why: str, what: RunSpec) -> None:
        if self.fails is not None:
            raise self.fails
        if what.run not in self.names():  # as the journal
            self.whys.append(why)
            self.begun.append(what)
        if self.power_cut:
            raise PowerCut

    async def propose(self, trigger: str, what: RunSpec) -> str:
        if what not in self.proposed:
            self.proposed.append(what)
        if self.power_cut:
            raise PowerCut
        return f"p{self.proposed.index(what)} of {trigger}"

    async def under_way(self, run: str, proposal: str) -> str:
        self.asked_about = (run, proposal)
        return self.busy

    def names(self) -> list[str]:
        return [spec.run for spec in self.begun]

    def said(self) -> dict[str, Any]:
        (found,) = self.triggers.listed()
        return found

    async def at(self, *seconds: float) -> None:
        """A life of the cloud, with a look at each of these times after midnight."""
        self.clock.at = MIDNIGHT + seconds[0]
        keeping = asyncio.create_task(self.triggers.keep())
        await self.clock.napping.wait()
        for each in seconds[1:]:
            await self.clock.turn(MIDNIGHT + each)
        await ended(keeping)
        self.clock.napping.clear()


class PowerCut(Exception):
    """Nothing is done any more."""


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path / "triggers.json")


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_run_is_begun_when_it_is_due_and_once(cloud: Cloud) -> None:
    await cloud.triggers.put(NIGHTLY)
    keeping = asyncio.create_task(cloud.triggers.keep())
    for hours in (1.0, 2.5, 2.6, 20.0, 26.4, 26.5):
        await cloud.clock.turn(MIDNIGHT + hours * 3600)
    await ended(keeping)
    assert cloud.names() == ["nightly-19720927-0230", "nightly-19720928-0230"]
    first = cloud.begun[0]
    assert first == msgspec.structs.replace(
        SPEC, run=first.run, fogs={"north": ("e1", "e2")}, why=first.why
    ), "on the fleet of now"
    assert cloud.whys == ["schedule nightly", "schedule nightly"]


async def test_what_was_due_before_it_was_kept_is_not_begun(cloud: Cloud) -> None:
    cloud.clock.at = MIDNIGHT + 3 * 3600
    await cloud.triggers.put(NIGHTLY)
    keeping = asyncio.create_task(cloud.triggers.keep())
    await cloud.clock.turn(MIDNIGHT + 4 * 3600)
    await ended(keeping)
    assert cloud.names() == []


async def test_a_cloud_that_was_away_for_days_begins_the_last_one_alone(cloud: Cloud) -> None:
    await cloud.triggers.put(NIGHTLY)
    cloud.clock.at = MIDNIGHT + 5 * DAY_S
    cloud.open()
    keeping = asyncio.create_task(cloud.triggers.keep())
    await cloud.clock.turn(cloud.clock.at + 1)
    await ended(keeping)
    assert cloud.names() == ["nightly-19721001-0230"]


async def test_a_schedule_that_is_put_again_as_it_is_begins_nothing_anew(cloud: Cloud) -> None:
    await cloud.triggers.put(NIGHTLY)
    before = cloud.file.read_bytes()
    cloud.clock.at += 1
    await cloud.triggers.put(NIGHTLY)
    assert cloud.file.read_bytes() == before


async def test_with_an_interval_it_wakes_when_the_next_one_is_due(cloud: Cloud) -> None:
    cloud.clock.at = MIDNIGHT + 7.0
    await cloud.triggers.put(Trigger("often", "r-1", every="10s"))
    keeping = asyncio.create_task(cloud.triggers.keep())
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
    (found,) = cloud.triggers.listed()
    assert (found["at"], found["days"], found["every"]) == ("02:30", ("mon",), "")


async def test_what_goes_wrong_is_shown_and_the_next_time_is_tried_again(cloud: Cloud) -> None:
    await cloud.triggers.put(NIGHTLY)
    cloud.fails = BlobNotFound("no blob abab")
    keeping = asyncio.create_task(cloud.triggers.keep())
    due = MIDNIGHT + 2.5 * 3600
    await cloud.clock.turn(due)
    (said,) = cloud.triggers.listed()
    assert (said["last"], said["wrong"], said["next"]) == (
        None,
        f"{BlobNotFound.code} no blob abab",
        due + DAY_S,
    )
    cloud.fails = None
    await cloud.clock.turn(due + DAY_S)
    await ended(keeping)
    assert len(cloud.begun) == 1
    assert cloud.triggers.listed()[0]["wrong"] == ""


async def test_what_is_dropped_is_begun_no_more(cloud: Cloud) -> None:
    await cloud.triggers.put(NIGHTLY)
    cloud.triggers.drop("nightly")
    cloud.open()
    assert cloud.triggers.listed() == []
    with pytest.raises(RunNotFound):
        cloud.triggers.drop("nightly")


async def test_what_cannot_be_kept_is_refused_and_nothing_changes(cloud: Cloud) -> None:
    with pytest.raises(RunNotFound):
        await cloud.triggers.put(Trigger("nightly", "r-9", "02:30"))
    with pytest.raises(PlanError, match="nightly: needs at or every"):
        await cloud.triggers.put(Trigger("nightly", "r-1"))
    with pytest.raises(PlanError, match="must be some of"):
        await cloud.triggers.put(Trigger("nightly", "r-1", "02:30", ("so",)))
    for number in range(MOST):
        await cloud.triggers.put(Trigger(f"s-{number}", "r-1", "02:30"))
    with pytest.raises(PlanError, match="64 schedules and triggers"):
        await cloud.triggers.put(NIGHTLY)
    assert len(cloud.triggers.listed()) == MOST


@pytest.mark.parametrize("data", [b"", b"{", b"[{}]", b"\xff"])
def test_a_damaged_file_is_said_with_what_to_do(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "triggers.json"
    file.write_bytes(data)
    nothing: Any = None
    with pytest.raises(Corrupted, match="cannot be read"):
        Triggers(file, nothing, nothing)


async def test_after_a_restart_at_the_same_moment_the_journal_begins_the_run_no_second_time(
    tmp_path: Path,
) -> None:
    host, begun = DbosHost(tmp_path / "journal"), list[str]()

    async def body(_journal: Any, spec: str) -> str:
        begun.append(msgspec.json.decode(spec, type=RunSpec).run)
        return "done"

    class Real(Cloud):
        async def begin(self, why: str, what: RunSpec) -> None:
            await host.submit("train", what.run, msgspec.json.encode(what).decode())
            if self.power_cut:
                raise PowerCut

    host.register("train", body)
    await host.start()
    try:
        cloud = Real(tmp_path / "s.json")
        await cloud.triggers.put(NIGHTLY)
        cloud.power_cut = True
        cloud.clock.at = MIDNIGHT + 3 * 3600
        with pytest.raises(PowerCut):
            await cloud.triggers.keep()
        cloud.power_cut = False
        for _ in range(2):  # lives of the cloud
            cloud.open()
            await cloud.at(3 * 3600 + 1)
        assert await host.result("nightly-19720927-0230") == "done"
        assert begun == ["nightly-19720927-0230"]
    finally:
        await host.stop()


async def test_a_schedule_whose_run_goes_on_is_passed_over(cloud: Cloud) -> None:
    await cloud.triggers.put(Trigger("often", "r-1", every="10s"))
    await cloud.at(10)
    cloud.busy = "run often-19720927-000010 goes on"
    await cloud.at(20)
    assert cloud.said()["wrong"] == cloud.busy
    cloud.busy = ""
    await cloud.at(25, 30)
    assert cloud.names() == ["often-19720927-000010", "often-19720927-000030"]


# --- drift, nodes, limits -------------------------------------------------------------------------------

MOVED = Trigger("moved", "r-1", on="drift", for_s=60.0, cooldown_s=3600.0, machines=2)
FOUND = Finding("process", ("e1", "e2"), ("north",), ("oil",))
ALARM = Alarm("7", FOUND, MIDNIGHT)
WHY = "drift: the process moved at 2 machines (e1, e2): oil"


async def test_an_alarm_that_goes_on_begins_one_run_on_the_fleet_of_now(cloud: Cloud) -> None:
    await cloud.triggers.put(MOVED)
    cloud.open_alarms = (ALARM,)
    await cloud.at(10, 30)
    assert (cloud.said()["state"], cloud.names()) == ("holds", [])
    await cloud.at(70, 80, 20_000)
    assert (cloud.names(), cloud.whys) == (["moved-19720927-000110"], [WHY])
    assert cloud.begun[0].fogs == {"north": ("e1", "e2")}
    said = cloud.said()
    assert (said["state"], said["run"], said["last"]) == ("rests", "moved-19720927-000110", MIDNIGHT + 70)
    assert said["why"] == "moved-19720927-000110 answers what is seen"


async def test_the_watch_begins_anew_with_a_release_and_what_moves_after_it_begins_another_run(
    cloud: Cloud,
) -> None:
    await cloud.triggers.put(MOVED)
    cloud.open_alarms = (ALARM,)
    await cloud.at(10, 70)
    cloud.open_alarms = (msgspec.structs.replace(ALARM, ended=MIDNIGHT + 200),)
    await cloud.at(210)
    cloud.open_alarms = (*cloud.open_alarms, Alarm("8", FOUND, MIDNIGHT + 300))
    await cloud.at(300, 400)
    assert (len(cloud.begun), cloud.said()["state"]) == (1, "waits")
    assert cloud.said()["why"] == "cools down until 1972-09-27 01:01:10 UTC"
    await cloud.at(3669, 3670)
    assert cloud.names() == ["moved-19720927-000110", "moved-19720927-010110"]


async def test_an_alarm_that_somebody_has_seen_begins_nothing(cloud: Cloud) -> None:
    await cloud.triggers.put(MOVED)
    cloud.open_alarms = (ALARM,)
    await cloud.at(10)
    cloud.open_alarms = (msgspec.structs.replace(ALARM, by="anna"),)
    await cloud.at(70, 200)
    assert cloud.names() == []


@pytest.mark.parametrize("approval", [False, True])
async def test_a_power_cut_before_or_after_a_run_begins_leaves_one_run(cloud: Cloud, approval: bool) -> None:
    await cloud.triggers.put(msgspec.structs.replace(MOVED, for_s=0.0, approval=approval))
    cloud.open_alarms = (ALARM,)
    cloud.power_cut, cloud.clock.at = True, MIDNIGHT + 10
    for _ in range(2):
        cloud.open()
        with pytest.raises(PowerCut):
            await cloud.triggers.keep()
        cloud.clock.at += 5
    cloud.power_cut = False
    cloud.fleet = {"north": ("e1", "e2", "e3")}
    cloud.open()
    await cloud.at(40, 50)
    cloud.open()
    await cloud.at(60)
    done = cloud.proposed if approval else cloud.begun
    assert [(each.run, each.why) for each in done] == [("moved-19720927-000010", WHY)]
    assert done[0].fogs == {"north": ("e1", "e2")}, "as it was decided"


async def test_nothing_begins_that_could_not_be_written_down(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cloud.triggers.put(msgspec.structs.replace(MOVED, for_s=0.0))
    cloud.open_alarms = (ALARM,)

    def full(*_: Any) -> None:
        raise DiskFull("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("reuna.cloud.trigger.replace_file", full)
        await cloud.at(10, 20)
    assert (cloud.names(), cloud.said()["state"]) == ([], "waits")
    assert "no space left" in cloud.said()["why"]
    await cloud.at(30)
    assert cloud.names() == ["moved-19720927-000030"]


async def test_a_run_that_cannot_be_begun_is_tried_again_and_counts_for_no_limit(cloud: Cloud) -> None:
    await cloud.triggers.put(msgspec.structs.replace(MOVED, for_s=0.0))
    cloud.open_alarms, cloud.fails = (ALARM,), BlobNotFound("no blob abab")
    await cloud.at(10)
    assert (cloud.said()["run"], cloud.said()["last"]) == ("", None)
    assert "no blob abab" in cloud.said()["wrong"]
    cloud.fails = None
    await cloud.at(20, 9 + RETRY_S)
    assert cloud.names() == []
    await cloud.at(10 + RETRY_S)
    assert (cloud.names(), cloud.said()["wrong"]) == (["moved-19720927-000510"], "")


async def test_with_approval_a_run_waits_for_a_second_person_and_no_other_is_proposed(cloud: Cloud) -> None:
    await cloud.triggers.put(msgspec.structs.replace(MOVED, for_s=0.0, approval=True, cooldown_s=1.0))
    cloud.open_alarms = (ALARM,)
    await cloud.at(10)
    assert cloud.said()["proposal"] == "p0 of moved"
    cloud.busy = "run moved-19720927-000010 waits for a second person"
    cloud.open_alarms = (Alarm("8", FOUND, MIDNIGHT),)
    await cloud.at(20)
    assert (cloud.begun, len(cloud.proposed)) == ([], 1)
    assert cloud.asked_about == ("moved-19720927-000010", "p0 of moved")
    assert (cloud.said()["state"], cloud.said()["why"]) == ("waits", cloud.busy)


async def test_what_is_told_of_a_metric_begins_a_run_too(cloud: Cloud) -> None:
    above = Trigger("safe", "r-1", on="drift", metric="safe_share", above=0.1, cooldown_s=60.0)
    await cloud.triggers.put(above)
    cloud.watched = {"e1": Watched(windows=100, safe=10), "e2": Watched()}
    await cloud.at(10)
    assert cloud.names() == []
    cloud.watched = {"e1": Watched(windows=100, safe=11), "e2": Watched()}
    await cloud.at(20, 200)
    assert cloud.whys == ["drift: safe_share 0.11 at e1"]


async def test_new_labelled_rows_begin_a_run_and_until_then_it_is_told_how_many_there_are(
    cloud: Cloud,
) -> None:
    await cloud.triggers.put(Trigger("rows", "r-1", on="data", rows=500, cooldown_s=60.0))
    cloud.rows = {"e1": Labelled("r-1", 499)}
    await cloud.at(10)
    assert cloud.said()["why"] == "499 of 500 new labelled rows; not known at e2, whose site keeps it"
    cloud.rows = {"e1": Labelled("r-1", 499), "e2": Labelled("r-1", 1)}
    await cloud.at(20, 200)
    assert cloud.whys == ["data: 500 new labelled rows at 2 machines (e1, e2)"]


async def test_a_node_that_the_last_run_did_not_have_begins_one_with_it(cloud: Cloud) -> None:
    await cloud.triggers.put(Trigger("new", "r-1", on="nodes", cooldown_s=1.0))
    cloud.fleet = {"north": ("e1",)}
    await cloud.at(10)
    assert cloud.names() == []
    cloud.fleet = {"north": ("e1",), "south": ("e9",)}
    await cloud.at(20, 30, 40)
    assert cloud.whys == ["nodes: e9 of south joined"]
    assert cloud.begun[0].fogs == cloud.fleet


async def test_limits_go_on_when_a_trigger_is_changed_and_after_a_restart(cloud: Cloud) -> None:
    await cloud.triggers.put(msgspec.structs.replace(MOVED, for_s=0.0))
    cloud.open_alarms = (ALARM,)
    await cloud.at(10)
    await cloud.triggers.put(msgspec.structs.replace(MOVED, for_s=0.0, machines=1))
    cloud.open()
    cloud.open_alarms = (ALARM, Alarm("8", FOUND, MIDNIGHT))
    await cloud.at(20)
    assert len(cloud.begun) == 1
    assert cloud.said()["why"].startswith("cools down until")


async def test_news_are_looked_at_at_once(cloud: Cloud) -> None:
    keeping = asyncio.create_task(cloud.triggers.keep())
    await cloud.clock.napping.wait()
    for news in ("a trigger", "an alarm"):
        cloud.clock.napping.clear()
        if news == "a trigger":
            await cloud.triggers.put(msgspec.structs.replace(MOVED, for_s=0.0))
        else:
            cloud.open_alarms = (ALARM,)
            cloud.triggers.news.set()
        await cloud.clock.napping.wait()
    await ended(keeping)
    assert cloud.names() == ["moved-19720927-000000"]


@pytest.mark.parametrize("when", ["told", "begin"])
async def test_what_is_dropped_while_it_is_looked_at_is_gone(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    level = Trigger("level", "r-1", on="drift", metric="level", cooldown_s=60.0)
    await cloud.triggers.put(level)
    cloud.watched = {"e1": Watched(level=2.0)}
    real = getattr(cloud, when)

    async def dropped(*words: Any) -> Any:
        cloud.triggers.drop("level")
        return await real(*words)

    monkeypatch.setattr(cloud, when, dropped)
    await cloud.at(10)
    assert len(cloud.begun) == (1 if when == "begin" else 0)
    cloud.open()
    assert cloud.triggers.listed() == []


async def test_a_run_that_was_decided_begins_after_a_restart_before_anything_else_is_decided(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut(*_: Any) -> None:
        raise PowerCut

    await cloud.triggers.put(msgspec.structs.replace(MOVED, for_s=0.0, cooldown_s=1.0))
    cloud.open_alarms, cloud.clock.at = (ALARM,), MIDNIGHT + 10
    with monkeypatch.context() as patch:
        patch.setattr(cloud, "begin", cut)
        with pytest.raises(PowerCut):
            await cloud.triggers.keep()
    cloud.open_alarms = (ALARM, Alarm("8", FOUND, MIDNIGHT))
    cloud.open()
    await cloud.at(60)
    assert cloud.names() == ["moved-19720927-000010"]
