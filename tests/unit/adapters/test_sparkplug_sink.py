"""Answers as an edge node of Sparkplug B: through a real broker, read by the source and by the letter."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.adapters.mqtt.sparkplug import decode, encode
from reuna.adapters.mqtt.sparkplug_sink import SparkplugSink
from reuna.core.errors import Unreachable
from reuna.core.mqtt_settings import Broker, SparkplugSettings, SparkplugTag
from reuna.core.outcomes import Outcome
from reuna.core.sink_settings import SparkplugTarget
from reuna.core.sinks import Answer, told
from reuna.core.sparkplug import REBIRTH, Metric, Payload
from reuna.edge.read import opened
from tests.servers.mosquitto import Mosquitto
from tests.unit.adapters.collected import Collected, Quick
from tests.unit.adapters.test_mqtt_sink import Listener


def answer(number: int, project: str = "p", value: float | None = 1.0) -> Answer:
    moment = (1_800_000_000 + number) * 10**9
    return told("edge-1", Outcome(project, 3, "d" * 64, moment, moment, "answered", value, (0.25, 0.75)))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    running = Mosquitto(tmp_path)
    running.start()
    yield running
    running.stop()


def sink_at(broker: Mosquitto) -> SparkplugSink:
    target = SparkplugTarget(Broker("127.0.0.1", broker.port), "plant", "answers")
    return SparkplugSink("line", target, SystemClock())


class Heard(Listener):
    """Every message of the group, by another library."""

    topics = "spBv1.0/plant/#"

    def kinds(self) -> list[tuple[str, int | None]]:
        return [(topic.split("/")[2], decode(data).seq) for topic, _, data in self.got]


async def until(heard: Heard, count: int) -> list[Any]:
    await asyncio.to_thread(heard.wait_for, count)
    return heard.kinds()


async def test_births_come_before_data_and_numbers_follow_each_other(broker: Mosquitto) -> None:
    heard, sink = Heard(broker.port), sink_at(broker)
    try:
        messages = sink.encode([answer(1), answer(2)])
        assert await sink.send(messages)
        assert await sink.send(sink.encode([answer(3, "q", None)]))
        assert await until(heard, 5) == [
            ("NBIRTH", 0), ("NDATA", 1), ("NDATA", 2), ("NBIRTH", 0), ("NDATA", 1),
        ]  # fmt: skip
        assert {qos for _, qos, _ in heard.got} == {0}
        first, data, *_ = (data for _, _, data in heard.got)
        assert data.startswith(messages[0]), "the bytes that the ledger has, and the number behind"
        assert len(data) - len(messages[0]) <= 3
        born = {each.name: each for each in decode(first).metrics}
        assert {"bdSeq", REBIRTH, "p/answer", "p/state", "p/id", "p/version", "p/confidence"} == set(born)
        assert born["p/answer"].is_null, "no answer leaves by a birth"
        values = {each.name: each.value for each in decode(data).metrics}
        assert (values["p/answer"], values["p/state"], values["p/version"]) == (1.0, "answered", 3)
        null = {each.name: each.is_null for each in decode(heard.got[-1][2]).metrics}
        assert null == {
            "q/answer": True,
            "q/confidence": False,
            "q/state": False,
            "q/version": False,
            "q/id": False,
        }
        broker.publish(
            "spBv1.0/plant/NCMD/answers", encode(Payload(1, None, (Metric(REBIRTH, None, 1, 11, True),)))
        )
        assert (await until(heard, 7))[-1] == ("NBIRTH", 0)
        await sink.close()
        assert (await until(heard, 8))[-1] == ("NDEATH", None)
    finally:
        heard.close()


async def test_the_source_reads_what_the_sink_tells(broker: Mosquitto) -> None:
    tags = (SparkplugTag("fault", "", "p/answer"),)
    settings = SparkplugSettings("line", Broker("127.0.0.1", broker.port), "plant", "answers", tags)
    sink = sink_at(broker)
    async with Collected(opened(settings, Quick(), ThreadOffload())) as found:
        await broker.until("Sending SUBACK")
        assert await sink.send(sink.encode([answer(1, value=4.0), answer(2, value=5.0)]))
        await found.until(lambda found: found.values("fault")[-2:] == [4.0, 5.0])
        await sink.close()


async def test_a_broker_that_was_away_gets_a_new_birth_of_a_new_connection(broker: Mosquitto) -> None:
    sink = sink_at(broker)
    assert await sink.send(sink.encode([answer(1)]))
    broker.stop()
    again = sink.encode([answer(2)])
    with pytest.raises(Unreachable, match=f"sink line: 127.0.0.1:{broker.port}"):
        await sink.send(again)
    broker.start()
    heard = Heard(broker.port)
    try:
        assert await sink.send(again)
        assert await until(heard, 2) == [("NBIRTH", 0), ("NDATA", 1)]
    finally:
        heard.close()
        await sink.close()
