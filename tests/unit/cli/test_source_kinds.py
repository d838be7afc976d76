"""`reuna source` with devices and brokers: looked at, recorded, and read from the store again."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from pyModbusTCP.server import ModbusServer
from typer.testing import CliRunner

from reuna.adapters.mqtt.sparkplug import encode
from reuna.cli import app
from reuna.core.sparkplug import Metric, Payload
from tests.servers.mosquitto import Mosquitto

T = 1_800_000_000_000
SETTINGS = """
[sources.press]
kind = "modbus"
host = "127.0.0.1"
port = {modbus}
every_s = 0.1
[sources.press.tags]
oil = {{ unit = "bar", address = 3, scale = 0.1 }}

[sources.line]
kind = "mqtt"
host = "127.0.0.1"
port = {mqtt}
time = "/t"
[sources.line.tags]
heat = {{ unit = "degC", topic = "plant/+/heat", value = "/v" }}

[sources.robot]
kind = "sparkplug"
host = "127.0.0.1"
port = {mqtt}
group = "plant"
node = "robot"
[sources.robot.tags]
torque = {{ unit = "N.m", metric = "Torque" }}

[store]
folder = "{folder}/store"
"""


@pytest.fixture
def settings(tmp_path: Path):
    broker = Mosquitto(tmp_path)
    broker.start()
    broker.publish("plant/press/heat", '{"t": 1800000000, "v": 21.5}', retain=True)
    birth = encode(Payload(T, 0, (Metric("Torque", 1, T, 10, 7.5),)))
    broker.publish("spBv1.0/plant/NBIRTH/robot", birth, retain=True)  # as some nodes do
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    device = ModbusServer("127.0.0.1", port, no_block=True)
    device.start()
    device.data_bank.set_holding_registers(3, [125])
    path = tmp_path / "sources.toml"
    path.write_text(SETTINGS.format(modbus=port, mqtt=broker.port, folder=tmp_path))
    yield path
    device.stop()
    broker.stop()


def test_devices_and_brokers_are_looked_at_recorded_and_read_again(settings: Path) -> None:
    def said(*words: str) -> dict:
        done = CliRunner().invoke(app, ["source", *words, "--json"])
        assert done.exit_code == 0, (done.output, done.exception)
        return json.loads(done.stdout)

    def values(found: dict) -> dict:
        tags = {name: tag for source in found["sources"].values() for name, tag in source["tags"].items()}
        return {name: (tag["value"], tag["unit"], tag["quality"]) for name, tag in tags.items()}

    live = {"oil": (12.5, "bar", "good"), "heat": (21.5, "degC", "good"), "torque": (7.5, "N.m", "good")}
    assert values(said("test", str(settings), "--seconds", "1.5")) == live
    assert said("record", str(settings), "--seconds", "1.5")["readings"] > 3
    assert values(said("stored", str(settings))) == live
