"""The source `sparkplug` through a real broker: births that others wrote, a last will, a restart."""

from __future__ import annotations

import builtins
import json
import socket
from pathlib import Path

import pytest
from paho.mqtt.client import CallbackAPIVersion, Client

from reuna.adapters.clock import ThreadOffload
from reuna.adapters.mqtt import sparkplug
from reuna.adapters.mqtt.sparkplug import encode
from reuna.core.errors import ExtraMissing
from reuna.core.mqtt_settings import Broker, SparkplugSettings, SparkplugTag
from reuna.core.sources import BAD, Source
from reuna.core.sparkplug import Metric, Payload
from reuna.edge.read import opened
from tests.servers.mosquitto import Mosquitto
from tests.unit.adapters.collected import Collected, Quick

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "sparkplug-1.json").read_text())
T = 1_800_000_000_000
BIRTH, DATA, DEATH = (f"spBv1.0/plant/{kind}/robot" for kind in ("NBIRTH", "NDATA", "NDEATH"))
ASK = "spBv1.0/plant/NCMD/robot"


@pytest.fixture
def broker(tmp_path: Path):
    made = Mosquitto(tmp_path)
    made.start()
    yield made
    made.stop()


def reading(broker: Mosquitto, rebirth: bool = False, **more) -> Source:
    tags = (SparkplugTag("oil", "bar", "Oil"),)
    settings = SparkplugSettings(
        "robot", Broker("127.0.0.1", broker.port, **more), "plant", "robot", tags, rebirth
    )
    return opened(settings, Quick(), ThreadOffload())


def data(value: float, seq: int) -> bytes:
    return encode(Payload(T, seq, (Metric("", 1, T + 10, 0, value),)))


def born(broker: Mosquitto) -> None:
    """Its first number is 12."""
    broker.publish(BIRTH, bytes.fromhex(GOLDEN["tahu"]))


async def test_a_birth_that_tahu_wrote_and_the_data_after_it_are_read(broker: Mosquitto) -> None:
    async with Collected(reading(broker)) as found:
        await broker.until("Sending SUBACK")
        born(broker)
        broker.publish(DATA, data(3.5, 13))
        await found.until(lambda found: found.values() == [2.5, 3.5])
        assert found.batches[0].columns["oil"].codes.tolist()[0] == 192


async def test_the_last_will_of_a_node_makes_its_tags_bad(broker: Mosquitto) -> None:
    async with Collected(reading(broker)) as found:
        await broker.until("Sending SUBACK")
        node = Client(CallbackAPIVersion.VERSION2)
        node.will_set(DEATH, encode(Payload(T, None, (Metric("bdSeq", None, T, 8, 1),))), 1)
        node.connect("127.0.0.1", broker.port)
        node.loop()
        born(broker)
        await found.until(lambda found: found.values())
        line = node.socket()
        assert line is not None
        line.shutdown(socket.SHUT_RDWR)  # its power fails
        await found.until(lambda found: len(found.values()) == 2)
        (quality,) = found.batches[-1].columns["oil"].quality.tolist()
        assert quality == BAD
        node.loop()


async def test_after_a_restart_of_the_broker_a_birth_is_waited_for(broker: Mosquitto) -> None:
    async with Collected(reading(broker)) as found:
        await broker.until("Sending SUBACK")
        born(broker)
        await found.until(lambda found: found.values())
        broker.stop()
        before = len(broker.log)
        await found.until(lambda found: found.reasons)
        broker.start()
        await broker.until("Sending SUBACK", before)
        broker.publish(DATA, data(9.0, 13))
        await found.until(lambda found: "waits for a birth" in found.reasons[-1])
        born(broker)
        await found.until(lambda found: found.values() == [2.5, 2.5])
    assert not any(ASK in line for line in broker.log)


async def test_where_the_owner_allows_it_the_birth_is_asked_for(broker: Mosquitto) -> None:
    async with Collected(reading(broker, rebirth=True)):
        await broker.until("Sending SUBACK")
        at = await broker.until(f"'{ASK}'")
        assert "Received PUBLISH" in broker.log[at - 1]


async def test_nothing_is_ever_published_unless_that_is_allowed(broker: Mosquitto) -> None:
    async with Collected(reading(broker)) as found:
        at = await broker.until("Sending SUBACK")
        ours = broker.log[at - 1].split("SUBACK to ")[1]
        broker.publish(DATA, data(9.0, 13))
        await found.until(lambda found: found.reasons)
        born(broker)
        await found.until(lambda found: found.values())
    await broker.until("disconnected")
    assert not any(f"Received PUBLISH from {ours}" in line for line in broker.log)


def test_without_protobuf_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def gone(name: str, *rest, **more):
        if name.startswith("google"):
            raise ImportError(name)
        return there(name, *rest, **more)

    sparkplug._message.cache_clear()
    monkeypatch.setattr(builtins, "__import__", gone)
    with pytest.raises(ExtraMissing, match="protobuf"):
        opened(SparkplugSettings("s", Broker("b"), "g", "n", ()), Quick(), ThreadOffload())
