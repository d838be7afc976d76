"""What nodes say of their watch becomes findings, alarms that are kept, and word of them that arrives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reuna.adapters.events import EventLog
from reuna.cloud.monitor import GONE_S, Monitor
from reuna.core.errors import AlarmNotFound, Corrupted, DiskFull, Unreachable
from reuna.core.labelled import Labelled, as_event
from reuna.core.operating import Operating, event_of
from reuna.core.records import Event
from reuna.core.watched import WHAT, Watched, as_fields

QUIET = Watched(rows=600, blocks=9, reference=100, level=0.2)
OIL = Watched(rows=600, blocks=9, reference=100, level=3.0, alarm=True, moved={"oil": 3.5})
FLEET = {"oulu": ("e1", "e2"), "turku": ("e3", "e4")}


async def at_once(work: Callable[[], Any]) -> Any:
    return work()


class Hook:
    """People who are told, as long as the line is there."""

    name = "webhook"

    def __init__(self) -> None:
        self.away = False
        self.told: list[Mapping[str, Any]] = []

    def send(self, said: Mapping[str, Any]) -> None:
        if self.away:
            raise Unreachable("no line")
        self.told.append(said)


class Cloud:
    """A cloud's monitor; each nap of it ends when a test says so."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.at = folder, 100.0
        self.events = EventLog(folder / "events.sqlite")
        self.hook = Hook()
        self.naps: asyncio.Queue[float] = asyncio.Queue()
        self.woken = asyncio.Event()
        self.number = 0
        self.open()

    def open(self) -> None:
        file = self.folder / "alarms.json"
        self.monitor = Monitor("demo", file, self.events, lambda: FLEET, [self.hook], self, at_once)

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.naps.put_nowait(seconds)
        await self.woken.wait()
        self.woken.clear()

    async def hear(self, node: str, said: Watched) -> None:
        self.number += 1
        event = Event(node, "b", self.number, self.at, WHAT, fields=as_fields(said))
        self.events.record(event, last=True)
        await self.monitor.heard()

    async def alarms(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.monitor.answer())["alarms"]
        return found


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


async def test_one_node_whose_signal_moved_raises_an_alarm_that_ends_with_it(cloud: Cloud) -> None:
    for node in ("e1", "e2", "e3"):
        await cloud.hear(node, QUIET)
    await cloud.hear("e4", OIL)
    (alarm,) = await cloud.alarms()
    assert alarm["sentence"] == "one signal moved at e4 alone, perhaps its sensor: oil"
    assert (alarm["kind"], alarm["sites"], alarm["since"], alarm["ended"]) == (
        "sensor",
        ["turku"],
        100.0,
        0.0,
    )
    cloud.at = 200.0
    await cloud.hear("e4", QUIET)
    assert (await cloud.alarms())[0]["ended"] == 200.0


async def test_what_moves_everywhere_is_one_alarm_of_the_process(cloud: Cloud) -> None:
    await cloud.hear("e4", QUIET)
    for node in ("e1", "e2", "e3"):
        await cloud.hear(node, OIL)
    going_on = [each for each in await cloud.alarms() if not each["ended"]]
    assert [(each["kind"], each["nodes"]) for each in going_on] == [("process", ["e1", "e2", "e3"])]


async def test_the_alarm_of_the_process_goes_on_until_its_last_machine_is_well(cloud: Cloud) -> None:
    await cloud.hear("e4", QUIET)
    for node in ("e1", "e2", "e3"):
        await cloud.hear(node, OIL)
    for node in ("e1", "e2"):
        await cloud.hear(node, QUIET)
    going_on = [each for each in await cloud.alarms() if not each["ended"]]
    assert [(each["kind"], each["nodes"]) for each in going_on] == [("process", ["e3"])]
    await cloud.hear("e3", QUIET)
    assert all(each["ended"] for each in await cloud.alarms())


async def test_who_left_the_fleet_is_not_heard(cloud: Cloud) -> None:
    await cloud.hear("gone", OIL)
    assert await cloud.monitor.answer() == {"fleet": "demo", "projects": {}, "alarms": []}


async def test_alarms_and_who_has_seen_them_are_there_after_a_restart(cloud: Cloud) -> None:
    await cloud.hear("e4", OIL)
    found = await cloud.monitor.acknowledge("1", "anna", "the pump was changed")
    assert (found["by"], found["seen"], found["note"]) == ("anna", 100.0, "the pump was changed")
    cloud.open()
    assert (await cloud.alarms()) == [found]
    with pytest.raises(AlarmNotFound, match="no alarm '7'"):
        await cloud.monitor.acknowledge("7", "anna", "")


async def test_word_arrives_once_and_waits_for_the_line(cloud: Cloud) -> None:
    cloud.hook.away = True
    await cloud.hear("e4", OIL)
    telling = asyncio.create_task(cloud.monitor.tell())
    assert [await cloud.naps.get()] == [1.0]
    cloud.woken.set()
    assert [await cloud.naps.get()] == [2.0]
    cloud.hook.away = False
    cloud.woken.set()
    while not (await cloud.alarms())[0]["told"]:
        await asyncio.sleep(0)
    await cloud.hear("e3", QUIET)
    await asyncio.sleep(0)
    telling.cancel()
    (told,) = cloud.hook.told
    assert (told["fleet"], told["id"], told["nodes"]) == ("demo", "1", ["e4"])
    assert "reuna watch acknowledge 1" in told["next_step"]


async def test_nobody_is_told_twice_after_a_restart_nor_of_what_somebody_has_seen(cloud: Cloud) -> None:
    await cloud.hear("e4", OIL)
    await cloud.monitor.acknowledge("1", "anna", "")
    cloud.open()
    telling = asyncio.create_task(cloud.monitor.tell())
    for _ in range(5):
        await asyncio.sleep(0)
    telling.cancel()
    assert not cloud.hook.told


async def test_alarms_that_cannot_be_read_are_an_error_that_names_the_file(cloud: Cloud) -> None:
    (cloud.folder / "alarms.json").write_text("{")
    with pytest.raises(Corrupted, match=r"alarms\.json cannot be read"):
        cloud.open()


async def test_on_a_full_disk_alarms_go_on(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from reuna.cloud import monitor

    def full(*_: object) -> None:
        raise DiskFull("no space left")

    monkeypatch.setattr(monitor, "replace_file", full)
    await cloud.hear("e4", OIL)
    assert len(await cloud.alarms()) == 1
    assert "alarms are not written down" in caplog.text


async def test_what_is_kept_is_json_that_people_can_read(cloud: Cloud) -> None:
    await cloud.hear("e4", OIL)
    (kept,) = json.loads((cloud.folder / "alarms.json").read_text())
    assert kept["finding"]["nodes"] == ["e4"]


async def test_what_triggers_look_at_is_what_nodes_of_the_fleet_told_last_and_every_alarm(
    cloud: Cloud,
) -> None:
    for node, said in (("e3", OIL), ("e4", OIL), ("e4", QUIET), ("gone", OIL)):
        await cloud.hear(node, said)
    assert await cloud.monitor.told("pumps") == {"e3": OIL, "e4": QUIET}
    assert [(each.finding.nodes, bool(each.ended)) for each in cloud.monitor.alarms] == [
        (("e3",), False),
        (("e4",), True),
    ]


def of(project: str, said: Watched) -> Watched:
    return msgspec.structs.replace(said, project=project)


async def test_each_project_of_a_node_is_watched_and_alarmed_by_itself(cloud: Cloud) -> None:
    await cloud.hear("e1", of("pumps", OIL))
    await cloud.hear("e1", of("presses", QUIET))
    found = await cloud.monitor.answer()
    assert {name: list(nodes) for name, nodes in found["projects"].items()} == {
        "presses": ["e1"],
        "pumps": ["e1"],
    }
    assert "project" not in found["projects"]["pumps"]["e1"]
    assert [each["project"] for each in found["alarms"]] == ["pumps"]
    assert await cloud.monitor.told("presses") == {"e1": of("presses", QUIET)}
    await cloud.hear("e1", of("presses", OIL))
    await cloud.hear("e1", of("pumps", QUIET))
    assert [(each["project"], bool(each["ended"])) for each in await cloud.alarms()] == [
        ("presses", False),
        ("pumps", True),
    ]


async def test_a_project_that_a_node_does_not_speak_of_any_more_is_not_heard_and_one_that_is_off_is(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reuna.adapters.events.SystemClock.now", lambda _: cloud.at)
    await cloud.hear("e1", of("pumps", OIL))
    await cloud.hear("e2", of("pumps", OIL))
    cloud.at += GONE_S
    await cloud.hear("e1", of("presses", QUIET))
    assert [(each["nodes"], bool(each["ended"])) for each in await cloud.alarms()] == [
        (["e2"], False),
        (["e1"], True),
    ]


async def test_errors_that_rose_are_an_alarm_of_the_concept_beside_what_moved(cloud: Cloud) -> None:
    await cloud.hear("e1", of("pumps", msgspec.structs.replace(OIL, errors_alarm=True, errors_level=1.5)))
    kinds = {each["kind"]: each["sentence"] for each in await cloud.alarms()}
    assert list(kinds) == ["concept", "sensor"]
    assert kinds["concept"].startswith("errors at e1 have risen, by labels that came later")


async def test_new_labelled_rows_count_since_the_newest_run_that_a_node_told_of(cloud: Cloud) -> None:
    for number, (node, run, rows) in enumerate(
        [("e1", "r-1", 900), ("e1", "r-2", 5), ("e2", "r-1", 70), ("e2", "presses-1", 8), ("gone", "r-2", 1)]
    ):
        cloud.events.record(as_event(node, "b", number, 1.0, Labelled(run, rows)), last=True)
    assert await cloud.monitor.labelled(["r-2", "r-1"]) == {
        "e1": Labelled("r-2", 5),
        "e2": Labelled("r-1", 70),
    }
    assert await cloud.monitor.labelled([]) == {}


async def test_a_release_that_gives_the_safe_answer_alone_is_one_alarm_until_the_last_has_another(
    cloud: Cloud,
) -> None:
    async def say(node: str, muted: bool) -> None:
        cloud.number += 1
        told = Operating("pumps", 3, "0" * 64, "confirmed", "safe" if muted else "", muted=muted)
        cloud.events.record(event_of(node, "b", cloud.number, cloud.at, [told]), last=True)
        await cloud.monitor.heard()

    await say("e1", muted=True)
    await say("e4", muted=True)
    (alarm,) = await cloud.alarms()
    assert (alarm["kind"], alarm["nodes"], alarm["ended"]) == ("release", ["e1", "e4"], 0.0)
    assert alarm["sentence"].startswith("what runs of pumps at e1, e4 breaks its rules (safe), and nothing")
    await say("e1", muted=False)
    assert [each["nodes"] for each in await cloud.alarms()] == [["e4"]]
    await say("e4", muted=False)
    assert all(each["ended"] for each in await cloud.alarms())
