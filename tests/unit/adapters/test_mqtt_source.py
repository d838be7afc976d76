"""The source `mqtt` against a real broker, mosquitto, in a process of its own."""

from __future__ import annotations

import asyncio
import builtins
from contextlib import suppress
from pathlib import Path

import pytest
from aiomqtt import Client, MqttError, Topic
from aiomqtt.message import Message

from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.clock import ThreadOffload
from reuna.adapters.mqtt import client
from reuna.adapters.mqtt import source as mqtt
from reuna.adapters.mqtt.source import Inbox
from reuna.core.errors import ExtraMissing, KeyProblem
from reuna.core.mqtt_settings import Broker, MqttSettings, MqttTag
from reuna.core.sources import BAD, UNCERTAIN, Source
from reuna.edge.read import opened
from tests.servers.mosquitto import Mosquitto
from tests.unit.adapters.collected import Collected, Quick

#: Of `secret`, made once with `mosquitto_passwd`.
PASSWORDS = (
    "reader:$7$101$x8RS6jUdEc0/hcXs$GoiUfBBRfmsgSfS8Ywc4apyqz8OjTYBOp0SRVHf"
    "TWSPk/06uWKIV4kcAflAo1GxNAwchsuCllCPwtmtMSK4vRQ==\n"
)


@pytest.fixture
def broker(tmp_path: Path):
    made = Mosquitto(tmp_path)
    made.start()
    yield made
    made.stop()


OIL = MqttTag("oil", "bar", "plant/press", ("oil",), ("t",))


def reading(broker: Mosquitto, *tags: MqttTag, **more) -> Source:
    settings = MqttSettings("press", Broker("127.0.0.1", broker.port, **more), tags or (OIL,))
    return opened(settings, Quick(), ThreadOffload())


async def test_values_times_and_quality_come_out_of_json_and_plain_numbers(broker: Mosquitto) -> None:
    heat = MqttTag("heat", "degC", "plant/+/heat", quality=None)
    state = MqttTag("state", "", "plant/press", ("state",), ("t",), ("q",), ("ok",), ("old",))
    async with Collected(reading(broker, OIL, heat, state)) as found:
        await broker.until("Sending SUBACK")
        broker.publish("plant/press", '{"t": 1800000000.5, "oil": 1.5, "state": true, "q": "old"}')
        broker.publish("plant/room/heat", "20.25")
        await found.until(lambda found: found.values("heat"))
        assert found.values() == [1.5]
        assert found.batches[0].columns["oil"].times.tolist() == [1_800_000_000_500_000_000]
        assert found.batches[0].columns["state"].quality.tolist() == [UNCERTAIN]
        assert found.values("heat") == [20.25]


async def test_a_message_that_cannot_be_read_is_bad_and_stops_no_other(broker: Mosquitto) -> None:
    async with Collected(reading(broker)) as found:
        await broker.until("Sending SUBACK")
        for payload in ("no JSON", '{"oil": 1}', '{"oil": "Err", "t": 5}', '{"t": 6}', '{"oil": 2, "t": 7}'):
            broker.publish("plant/press", payload)
        await found.until(lambda found: 2.0 in found.values())
        quality = [each for batch in found.batches for each in batch.columns["oil"].quality.tolist()]
        assert sorted(quality) == [0, BAD, BAD, BAD]
        assert sorted(found.reasons) == [
            "plant/press: a message is no JSON",
            "plant/press: no number where the value is expected",
            "plant/press: no time where one is expected",
        ]


async def test_what_the_broker_had_retained_and_has_no_time_is_uncertain(broker: Mosquitto) -> None:
    broker.publish("plant/press", '{"oil": 3, "t": 5}', retain=True)
    broker.publish("plant/heat", "4", retain=True)
    async with Collected(reading(broker, OIL, MqttTag("heat", "", "plant/heat"))) as found:
        await found.until(lambda found: found.values("heat") and found.values())
        qualities = {
            name: each.quality.tolist() for batch in found.batches for name, each in batch.columns.items()
        }
        assert qualities == {"oil": [0], "heat": [UNCERTAIN]}


async def test_a_restart_of_the_broker_is_a_gap_and_reading_goes_on(broker: Mosquitto) -> None:
    async with Collected(reading(broker)) as found:
        await broker.until("Sending SUBACK")
        broker.publish("plant/press", '{"oil": 1, "t": 5}')
        await found.until(lambda found: found.values())
        broker.stop()
        before = len(broker.log)
        await found.until(lambda found: found.reasons)
        broker.start()
        await broker.until("Sending SUBACK", before)
        broker.publish("plant/press", '{"oil": 2, "t": 9}')
        await found.until(lambda found: len(found.values()) == 2)
        assert found.reasons[-1].startswith(f"connected again after: 127.0.0.1:{broker.port}: ")
        (gap,) = [gap for batch in found.batches for gap in batch.gaps if gap.reason == found.reasons[-1]]
        assert gap.first_ns < gap.last_ns


async def test_with_a_session_the_broker_keeps_what_comes_in_between(tmp_path: Path) -> None:
    broker = Mosquitto(
        tmp_path, ["allow_anonymous true", "persistence true", f"persistence_location {tmp_path}/"]
    )
    broker.start()
    try:
        session = {"client_id": "reuna", "session": True, "qos": 1}
        async with Collected(reading(broker, **session)):
            before = await broker.until("Sending SUBACK")
        await broker.until("disconnected", before)
        broker.publish("plant/press", '{"oil": 7, "t": 5}')
        broker.stop()
        broker.start()
        async with Collected(reading(broker, **session)) as found:
            await found.until(lambda found: found.values() == [7.0])
    finally:
        broker.stop()


@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket")  # paho leaves it to be collected
async def test_a_broker_with_tls_is_read_with_our_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        client, "ANSWER_S", 0.5
    )  # aiomqtt does not see that the broker hung up before it answered
    authority = CertificateAuthority.create(tmp_path / "authority", "plant")
    other = CertificateAuthority.create(tmp_path / "other", "plant")
    server, mine = authority.issue("gateway", "broker", ["127.0.0.1"]), authority.issue("edge", "reader")
    settings = [f"cafile {server.authority}", f"certfile {server.certificate}", f"keyfile {server.key}"]
    broker = Mosquitto(tmp_path, [*settings, "require_certificate true", "use_identity_as_username true"])
    broker.start()
    try:
        trusting = {"tls": True, "authority": str(mine.authority)}
        ours = {**trusting, "certificate": str(mine.certificate), "key": str(mine.key)}
        async with Collected(reading(broker, **trusting)) as found:
            await found.until(lambda found: found.reasons)
        async with Collected(reading(broker, **{**ours, "authority": str(other.certificate)})) as found:
            await found.until(lambda found: found.reasons)
            assert "CERTIFICATE_VERIFY_FAILED" in found.reasons[0]
        async with Collected(reading(broker, **ours)) as found:
            await broker.until("Sending SUBACK")
            files = {"ca_certs": mine.authority, "certfile": mine.certificate, "keyfile": mine.key}
            broker.publish("plant/press", '{"oil": 1, "t": 5}', tls=files)
            await found.until(lambda found: found.values() == [1.0])
    finally:
        broker.stop()


async def test_it_signs_in_with_the_password_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text(PASSWORDS)
    broker = Mosquitto(tmp_path, ["allow_anonymous false", f"password_file {tmp_path / 'passwords'}"])
    broker.start()
    try:
        (tmp_path / "password").write_text("wrong\n")
        mine = {"user": "reader", "password_file": str(tmp_path / "password")}
        async with Collected(reading(broker, **mine)) as found:
            await found.until(lambda found: found.reasons)
            assert "Not authorized" in found.reasons[0]
            (tmp_path / "password").write_text("secret\n")
            await broker.until("Sending SUBACK")
    finally:
        broker.stop()


async def test_nothing_is_ever_published(broker: Mosquitto) -> None:
    async with Collected(reading(broker, OIL, MqttTag("heat", "", "plant/#"))) as found:
        await broker.until("Sending SUBACK")
        ours = next(line for line in broker.log if "Sending SUBACK to " in line).split("SUBACK to ")[1]
        broker.publish("plant/press", '{"oil": 1, "t": 5}')
        await found.until(lambda found: found.values())
    await broker.until("disconnected")
    assert any(f"Received SUBSCRIBE from {ours}" in line for line in broker.log)
    assert not any(f"Received PUBLISH from {ours}" in line for line in broker.log)


async def test_files_that_cannot_be_used_end_the_source(broker: Mosquitto, tmp_path: Path) -> None:
    for more in (
        {"user": "a", "password_file": str(tmp_path / "gone")},
        {"tls": True, "authority": str(tmp_path / "gone")},
    ):
        async with Collected(reading(broker, **more)) as found:
            with pytest.raises(KeyProblem, match="source press: .*gone cannot be used"):
                await found.until(lambda found: False)


async def test_without_aiomqtt_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def gone(name: str, *rest, **more):
        if name == "aiomqtt":
            raise ImportError(name)
        return there(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", gone)
    source = opened(MqttSettings("press", Broker("127.0.0.1", 1), (OIL,)), Quick(), ThreadOffload())
    async with Collected(source) as found:
        with pytest.raises(ExtraMissing, match="press: aiomqtt"):
            await found.until(lambda found: False)


def test_the_oldest_messages_give_way_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "MOST_MESSAGES", 3)
    monkeypatch.setattr(mqtt, "MOST_BYTES", 10)
    inbox = Inbox(iter(range(100)).__next__)
    for size in (1, 1, 1, 1, 9):
        inbox.put_nowait(Message(Topic("a"), b"x" * size, 0, False, 0, None))
    dropped, waiting = inbox.taken()
    assert dropped == (3, 0)
    assert [(came, len(message.payload)) for came, message in waiting] == [(3, 1), (4, 9)]
    assert inbox.taken() == (None, [])


async def test_messages_that_are_dropped_are_a_gap(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "MOST_BYTES", 30)
    async with Collected(reading(broker)) as found:
        await broker.until("Sending SUBACK")
        broker.publish("plant/press", " " * 31)
        broker.publish("plant/press", '{"oil": 2, "t": 5}')
        await found.until(lambda found: found.values() == [2.0])
        assert found.reasons == ["1 messages were dropped: they come faster than they are read"]


async def test_it_ends_when_it_is_cancelled_as_the_broker_answers(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Client.subscribe

    async def losing(self, *rest, **more):
        answers = await there(self, *rest, **more)
        await lost_cancellation()
        return answers

    monkeypatch.setattr(Client, "subscribe", losing)
    async with Collected(reading(broker)) as found:
        with pytest.raises(asyncio.CancelledError):
            await found.until(lambda found: False)
    await broker.until("disconnected")


async def test_it_ends_though_the_broker_takes_no_leave(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Client.__aexit__

    async def silent(self, *error) -> None:
        await there(self, *error)
        raise MqttError("Operation timed out")

    monkeypatch.setattr(Client, "__aexit__", silent)
    found = Collected(reading(broker))
    await found.__aenter__()
    await broker.until("Sending SUBACK")
    found.task.cancel()
    await asyncio.wait({found.task}, timeout=10)
    assert found.task.cancelled()


async def lost_cancellation() -> None:
    """As `asyncio.wait_for` of Python 3.11 leaves a task."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
