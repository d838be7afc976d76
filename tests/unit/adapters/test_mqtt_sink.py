"""Answers to a real broker: each a message, acknowledged, and again after the broker was away."""

from __future__ import annotations

import builtins
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from reuna.adapters.mqtt.sink import MqttSink
from reuna.core.errors import ExtraMissing, KeyProblem, Unreachable
from reuna.core.mqtt_settings import Broker
from reuna.core.outcomes import Outcome
from reuna.core.sink_settings import MqttTarget
from reuna.core.sinks import Answer, told
from tests.servers.mosquitto import Mosquitto

TOPIC = "plant/press-3/reuna"


def answer(number: int) -> Answer:
    return told("edge-1", Outcome("p", 1, "d" * 64, number, number + 2, "answered", 1.0, (0.25, 0.75)))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    running = Mosquitto(tmp_path)
    running.start()
    yield running
    running.stop()


class Listener:
    """Another client of the broker, of another library."""

    topics = "plant/#"

    def __init__(self, port: int) -> None:
        self.got: list[tuple[str, int, bytes]] = []
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._heard
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(self.topics, qos=1)
        self._client.loop_start()
        assert self._ready.wait(10)

    def _heard(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        with self._changed:
            self.got.append((message.topic, message.qos, bytes(message.payload)))
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.got) >= count, 10)

    def wait(self, count: int) -> list[str]:
        self.wait_for(count)
        return [json.loads(payload)["id"] for _, _, payload in self.got]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


async def test_each_answer_is_a_message_and_a_broker_that_was_away_gets_them_later(broker: Mosquitto) -> None:
    sink = MqttSink("line", MqttTarget(Broker("127.0.0.1", broker.port), TOPIC))
    listener = Listener(broker.port)
    try:
        first, again = sink.encode([answer(1), answer(2)]), sink.encode([answer(3)])
        assert await sink.send(first)
        assert listener.wait(2) == ["edge-1/p/1-3", "edge-1/p/2-4"]
        assert {(topic, qos) for topic, qos, _ in listener.got} == {(TOPIC, 1)}
        assert tuple(payload for _, _, payload in listener.got) == first, "the bytes that the ledger has"
    finally:
        listener.close()
    broker.stop()
    with pytest.raises(Unreachable, match=f"sink line: 127.0.0.1:{broker.port}"):
        await sink.send(again)
    broker.start()
    listener = Listener(broker.port)
    try:
        assert await sink.send(again)
        assert listener.wait(1) == ["edge-1/p/3-5"]
    finally:
        listener.close()
        await sink.close()


async def test_a_password_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    broker = Broker("127.0.0.1", 1, user="u", password_file=str(tmp_path / "none"))
    with pytest.raises(KeyProblem, match="sink line: .*none cannot be used"):
        await MqttSink("line", MqttTarget(broker, TOPIC)).send([b"{}"])


def test_without_aiomqtt_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name == "aiomqtt":
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ExtraMissing, match="sink line: aiomqtt is not installed"):
        MqttSink("line", MqttTarget(Broker("broker.plant"), TOPIC))
