"""Payloads of Sparkplug B that others wrote, and ours as others read them."""

from __future__ import annotations

import json
import math
from pathlib import Path

from reuna.adapters.mqtt.sparkplug import decode, encode
from reuna.core.sparkplug import REBIRTH, Metric, Payload, number_in

GOLDEN = json.loads((Path(__file__).parent / "sparkplug-1.json").read_text())
T = 1_800_000_000_000
OURS = (
    Metric(
        "Double", 1, T + 1, 10, 2.5, properties={"Quality": 192, "engUnit": "bar", "scale": 0.5, "on": True}
    ),
    Metric("Int32", 2, T + 2, 3, 2**32 - 5),
    Metric("UInt64", 3, T + 3, 8, 2**63),
    Metric("Float", 4, T + 4, 9, 0.25),
    Metric("Flag", 5, T + 5, 11, True),
    Metric("Text", 6, T + 6, 12, "ok"),
    Metric("Null", 7, T + 7, 9, None, True),
    Metric("Old", 8, 1_700_000_000_000, 7, 9, is_historical=True),
)


def golden(name: str) -> Payload:
    return decode(bytes.fromhex(GOLDEN[name]))


def test_a_birth_that_pysparkplug_wrote_is_read() -> None:
    found = golden("pysparkplug_birth")
    assert (found.timestamp_ms, found.seq) == (T + 500, 0)
    values = {
        metric.name.removeprefix("Group/"): number_in(metric, metric.datatype) for metric in found.metrics
    }
    assert values.pop("TEXT") != 0
    assert math.isnan(values.pop("null"))
    assert values == {
        "INT8": -8, "INT16": -16_000, "INT32": -(2**31), "INT64": -(2**63), "UINT8": 200, "UINT16": 65_535,
        "UINT32": 2**32 - 1, "UINT64": 2**63, "FLOAT": 0.5, "DOUBLE": -1e-300, "BOOLEAN": 1, "STRING": 12.5,
        "old": 7,
    }  # fmt: skip
    assert [metric.name for metric in found.metrics if metric.is_historical] == ["old"]
    assert [metric.name for metric in found.metrics if metric.is_null] == ["null"]


def test_data_that_pysparkplug_wrote_has_aliases_and_the_types_of_the_birth() -> None:
    birth, data = golden("pysparkplug_birth"), golden("pysparkplug_data")
    types = {metric.alias: metric.datatype for metric in birth.metrics}
    assert data.seq == 255
    assert {metric.name for metric in data.metrics} == {""}
    assert [number_in(metric, types[metric.alias]) for metric in data.metrics[:4]] == [
        -8, -16_000, -(2**31), -(2**63),
    ]  # fmt: skip


def test_a_payload_that_tahu_wrote_is_read_with_its_properties() -> None:
    found = golden("tahu")
    by_name = {metric.name: metric for metric in found.metrics}
    assert by_name["Oil"] == Metric("Oil", 1, T + 1, 10, 2.5, properties={"Quality": 192, "engUnit": "bar"})
    assert by_name["Stale"].properties == {"Quality": 500}
    assert number_in(by_name["Stale"], 3) == -5
    assert number_in(by_name["Long"], 4) == -1000
    assert by_name["Null"].is_null
    assert by_name["Old"].is_historical
    assert {by_name[name].value for name in ("Table", "Kind")} == {None}


def test_what_we_write_is_what_others_have_read() -> None:
    assert encode(Payload(T, 7, OURS)).hex() == GOLDEN["ours"]
    assert golden("ours") == Payload(T, 7, OURS)
    ask = Payload(T, None, (Metric(REBIRTH, timestamp_ms=T, datatype=11, value=True),))
    assert encode(ask).hex() == GOLDEN["rebirth"]
