"""Alarms at a real broker: they stand there while they go on, whatever was away meanwhile."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from reuna.adapters.events import EventLog
from reuna.adapters.mqtt.alarm_board import AlarmBoard
from reuna.cloud.monitor import Monitor
from reuna.core.alarm_board import BoardSettings
from reuna.core.errors import AlarmNotFound
from reuna.core.mqtt_settings import Broker
from reuna.core.records import Event
from reuna.core.watched import WHAT, Watched, as_fields
from tests.servers.mosquitto import Mosquitto
from tests.unit.adapters.collected import Quick

QUIET = Watched(rows=600, blocks=9, reference=100, level=0.2)
OIL = Watched(rows=600, blocks=9, reference=100, level=3.0, alarm=True, moved={"oil": 3.5})
UNDER = "reuna/demo/alarms"


async def at_once(work: Callable[[], Any]) -> Any:
    return work()


class Panel:
    """A screen at the machine: what the broker has last given on each topic, by another library."""

    def __init__(self, port: int) -> None:
        self.shows: dict[str, Any] = {}
        self._changed = threading.Condition()
        ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._heard
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(f"{UNDER}/+", qos=1)
        self._client.loop_start()
        assert ready.wait(10)

    def _heard(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        with self._changed:
            self.shows.pop(message.topic, None)
            if message.payload:
                self.shows[message.topic] = json.loads(message.payload)
            self._changed.notify_all()

    def _wait(self, enough: Callable[[dict[str, Any]], object]) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: bool(enough(self.shows)), 10)

    async def until(self, enough: Callable[[dict[str, Any]], object]) -> None:
        assert await asyncio.to_thread(self._wait, enough), self.shows

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def panel_at(broker: Mosquitto) -> Iterator[Panel]:
    panel = Panel(broker.port)
    try:
        yield panel
    finally:
        panel.close()


class Cloud:
    """A cloud's monitor, and what shows its alarms."""

    def __init__(self, folder: Path, broker: Mosquitto) -> None:
        self._events = EventLog(folder / "events.sqlite")
        self._number = 0
        fleet = {"turku": ("e3", "e4")}
        file = folder / "alarms.json"
        self.monitor = Monitor("demo", file, self._events, lambda: fleet, [], Quick(), at_once)
        self.settings = BoardSettings(Broker("127.0.0.1", broker.port), UNDER)

    async def hear(self, node: str, said: Watched) -> None:
        self._number += 1
        event = Event(node, "b", self._number, 1.0, WHAT, fields=as_fields(said))
        self._events.record(event, last=True)
        await self.monitor.heard()

    @asynccontextmanager
    async def showing(self, acknowledge: bool = False) -> AsyncIterator[None]:
        board = AlarmBoard(replace(self.settings, acknowledge=acknowledge), self.monitor, Quick())
        task = asyncio.create_task(board.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    running = Mosquitto(tmp_path)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def cloud(tmp_path: Path, broker: Mosquitto) -> Cloud:
    return Cloud(tmp_path, broker)


async def test_an_alarm_stands_there_from_its_beginning_over_who_has_seen_it_to_its_end(
    broker: Mosquitto, cloud: Cloud
) -> None:
    async with cloud.showing():
        await cloud.hear("e4", OIL)
        with panel_at(broker) as panel:  # it comes later: the broker keeps the alarm
            await panel.until(lambda shows: shows)
            said = panel.shows[f"{UNDER}/1"]
            assert said["sentence"] == "one signal moved at e4 alone, perhaps its sensor: oil"
            assert (said["fleet"], said["id"], said["by"], said["ended"]) == ("demo", "1", "", 0.0)
            await cloud.monitor.acknowledge("1", "anna", "valve")
            await panel.until(lambda shows: shows[f"{UNDER}/1"]["by"] == "anna")
            await cloud.hear("e4", QUIET)
            await panel.until(lambda shows: not shows)


async def test_a_broker_that_lost_its_messages_is_given_them_again(broker: Mosquitto, cloud: Cloud) -> None:
    await cloud.hear("e4", OIL)
    async with cloud.showing():
        with panel_at(broker) as panel:
            await panel.until(lambda shows: shows)
        await asyncio.to_thread(broker.stop)
        await cloud.hear("e3", OIL)
        await asyncio.to_thread(broker.start)
        with panel_at(broker) as panel:
            await panel.until(lambda shows: set(shows) == {f"{UNDER}/1", f"{UNDER}/2"})


async def test_what_ended_while_the_cloud_was_away_does_not_stand_there_any_longer(
    broker: Mosquitto, cloud: Cloud
) -> None:
    broker.publish(f"{UNDER}/7", '{"id": "7"}', retain=True)
    broker.publish(f"{UNDER}/press", '{"of": "somebody else"}', retain=True)
    with panel_at(broker) as panel:
        await panel.until(lambda shows: len(shows) == 2)
        async with cloud.showing():
            await panel.until(lambda shows: set(shows) == {f"{UNDER}/press"})


async def test_who_has_seen_an_alarm_may_say_so_at_the_broker_where_that_is_on(
    broker: Mosquitto, cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    broker.publish(f"{UNDER}/1/acknowledge", '{"by": "of an alarm before"}', retain=True)
    await cloud.hear("e4", OIL)
    with panel_at(broker) as panel:
        async with cloud.showing(acknowledge=True):
            await panel.until(lambda shows: f"{UNDER}/1" in shows)
            for number, word in (("1", "no JSON"), ("9", '{"by": "anna"}')):
                broker.publish(f"{UNDER}/{number}/acknowledge", word.encode())
            broker.publish(f"{UNDER}/1/acknowledge", '{"by": "kai", "note": "valve"}')
            await panel.until(lambda shows: shows[f"{UNDER}/1"]["by"])
            broker.publish(f"{UNDER}/1/acknowledge", '{"by": "too late"}')
            await cloud.hear("e3", OIL)
            broker.publish(f"{UNDER}/2/acknowledge", '{"by": "kai"}')
            await panel.until(lambda shows: shows.get(f"{UNDER}/2", {}).get("by"))
        assert panel.shows[f"{UNDER}/1"]["by"] == "kai (by MQTT)"
        assert panel.shows[f"{UNDER}/1"]["note"] == "valve"
    assert [each.levelname for each in caplog.records if "does not count" in each.message] == ["WARNING"] * 3


async def test_no_word_at_the_broker_counts_where_that_is_off(broker: Mosquitto, cloud: Cloud) -> None:
    await cloud.hear("e4", OIL)
    with panel_at(broker) as panel:
        async with cloud.showing():
            await panel.until(lambda shows: f"{UNDER}/1" in shows)
            broker.publish(f"{UNDER}/1/acknowledge", '{"by": "kai"}')
            await cloud.hear("e4", QUIET)
            await panel.until(lambda shows: f"{UNDER}/1" not in shows)
    assert [each.by for each in cloud.monitor.alarms] == [""]


async def test_only_an_alarm_that_goes_on_and_nobody_has_seen_is_acknowledged_by_the_first(
    cloud: Cloud,
) -> None:
    await cloud.hear("e4", OIL)
    await cloud.monitor.acknowledge("1", "anna", "")
    with pytest.raises(AlarmNotFound, match="nobody has seen"):
        await cloud.monitor.acknowledge("1", "kai", "", first=True)
    await cloud.hear("e3", OIL)
    await cloud.hear("e3", QUIET)
    with pytest.raises(AlarmNotFound, match="goes on"):
        await cloud.monitor.acknowledge("2", "kai", "", first=True)
