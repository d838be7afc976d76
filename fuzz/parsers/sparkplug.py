"""`reuna.core.sparkplug` and its codec: what an edge node of others sends, three messages in a row."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.kit import attempt
from reuna.adapters.mqtt.sparkplug import decode, encode
from reuna.core.errors import BadMessage
from reuna.core.mqtt_settings import Broker, SparkplugSettings, SparkplugTag
from reuna.core.sources import Tag, check_batch
from reuna.core.sparkplug import Metric, Payload, SparkplugReader

KINDS = ("NBIRTH/n", "NDATA/n", "NDEATH/n", "DBIRTH/n/d", "DDATA/n/d", "DDEATH/n/d")
TAGS = (SparkplugTag("oil", "bar", "Oil"), SparkplugTag("torque", "", "Torque", "d"))
NOW = 1_800_000_000 * 10**9


def seeds() -> Iterator[bytes]:
    oil = Metric("Oil", 1, 1_800_000_000_000, 10, 1.5, properties={"Quality": 192, "engUnit": "bar"})
    torque = Metric("Torque", 2, 1_800_000_000_000, 3, 7)
    born = encode(Payload(1_800_000_000_000, 0, (Metric("bdSeq", datatype=8, value=1), oil)))
    device = encode(Payload(1_800_000_000_000, 1, (torque,)))
    data = encode(Payload(1_800_000_000_000, 2, (Metric("", 2, None, 0, 8, is_historical=True),)))
    yield _joined((0, born), (3, device), (4, data))
    yield _joined((0, born), (1, data), (2, born))
    yield _joined((0, born), (3, device), (5, device))


def check(data: bytes) -> None:
    reader = SparkplugReader(SparkplugSettings("s", Broker("b"), "g", "n", TAGS, True), decode)
    for kind, payload in _parted(data):
        found = attempt(lambda payload=payload: decode(payload), BadMessage)  # type: ignore[misc]
        if found is not None:
            assert decode(encode(found)) == found or _has_nan(found)
        reader.take(f"spBv1.0/g/{KINDS[kind % len(KINDS)]}", payload, False, NOW)
        for batch in reader.collected(NOW):
            check_batch(batch, [Tag(tag.name, tag.unit) for tag in TAGS])
        reader.request(NOW)


def _joined(*messages: tuple[int, bytes]) -> bytes:
    return b"".join(bytes([kind]) + len(data).to_bytes(2) + data for kind, data in messages)


def _parted(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 3:
        size = int.from_bytes(data[1:3])
        yield data[0], data[3 : 3 + size]
        data = data[3 + size :]


def _has_nan(found: Payload) -> bool:
    values = [each for metric in found.metrics for each in (metric.value, *metric.properties.values())]
    return any(value != value for value in values)  # noqa: PLR0124 # true for NaN alone
