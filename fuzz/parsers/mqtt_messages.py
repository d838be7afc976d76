"""`reuna.core.mqtt_readings`: a message of anybody who may publish."""

from __future__ import annotations

from collections.abc import Iterator

from reuna.core.json_pointer import parsed
from reuna.core.mqtt_readings import MessageReader
from reuna.core.mqtt_settings import Broker, MqttSettings, MqttTag
from reuna.core.sources import Tag, check_batch

TAGS = (
    MqttTag("whole", "", "a"),
    MqttTag("part", "bar", "a", parsed("/oil/0"), parsed("/t"), parsed("/q"), ("0", "ok"), ("1",)),
)
NOW = 1_800_000_000 * 10**9


def seeds() -> Iterator[bytes]:
    yield b'{"t": 1800000000.25, "oil": [1.5, 2], "q": "ok"}'
    yield b'{"t": "2027-01-15T08:00:00Z", "oil": ["1e300"], "q": 1}'
    yield b" -12.5\n"
    yield b'[1, 2, {"a": null}]'


def check(data: bytes) -> None:
    reader = MessageReader(MqttSettings("s", Broker("b"), TAGS, 10**6))
    reader.take("a", data, bool(data[:1] == b"["), NOW)
    for batch in reader.collected(NOW):
        check_batch(batch, [Tag(tag.name, tag.unit) for tag in TAGS])
