"""Published bytes: what each kind of sink is sent for the same answers, and for the same alarms.

Receivers parse these; a field may be added, none may change its meaning. Regenerate on purpose with
``python -m tests.golden.test_sinks``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from msgspec.structs import replace

from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.adapters.file_sink import FileSink
from reuna.adapters.mqtt.sink import MqttSink
from reuna.adapters.mqtt.sparkplug_sink import SparkplugSink
from reuna.adapters.opcua.sink import OpcUaSink
from reuna.adapters.webhook_sink import WebhookSink
from reuna.core.mqtt_settings import Broker
from reuna.core.notices import Notice
from reuna.core.notices import told as told_alarm
from reuna.core.opcua_settings import OpcUaSettings, OpcUaTag, node
from reuna.core.outcomes import Outcome
from reuna.core.sink_settings import FileTarget, MqttTarget, OpcUaTarget, SparkplugTarget, WebhookTarget
from reuna.core.sinks import Sink, told

GOLDEN = Path(__file__).with_name("sinks-1.json")
AT = 1_800_000_000 * 10**9
OUTCOMES = (
    Outcome("pumps", 3, "ab" * 32, AT, AT + 59 * 10**9, "answered", 2.0, (0.25, 0.0, 0.75), took_ms=4.0),
    Outcome("pumps", 3, "ab" * 32, AT + 10**9, AT + 60 * 10**9, "safe", None, (math.nan,), why="stays here"),
)
RAISED = Notice("inputs", "pumps", "ab" * 32, "1", "raised", AT, AT, ("oil", "heat"), 600, 1)
NOTICES = (RAISED, replace(RAISED, state="ended", at_ns=AT + 60 * 10**9, going=0))
OFFLOAD, BROKER = ThreadOffload(), Broker("broker.plant")
PRESS = OpcUaSettings("panel", "opc.tcp://press", (OpcUaTag("answer", node("ns=2;s=Fault")),), "none")


def sinks() -> dict[str, Sink]:
    return {
        "file jsonl": FileSink("a", FileTarget("/a"), OFFLOAD),
        "file csv": FileSink("a", FileTarget("/a", "csv"), OFFLOAD),
        "webhook": WebhookSink("a", WebhookTarget("https://a/"), OFFLOAD),
        "mqtt": MqttSink("a", MqttTarget(BROKER, "t")),
        "sparkplug": SparkplugSink("a", SparkplugTarget(BROKER, "g", "n"), SystemClock()),
        "opcua": OpcUaSink(OpcUaTarget(PRESS), SystemClock(), OFFLOAD),
        "opcua stamped": OpcUaSink(OpcUaTarget(PRESS, "Int32", True), SystemClock(), OFFLOAD),
    }


def golden_text() -> str:
    answers = [told("edge-1", each) for each in OUTCOMES]
    alarms = [told_alarm("edge-1", each) for each in NOTICES]
    found = {name: sink.encode(answers) for name, sink in sinks().items()}
    found |= {f"{name} of alarms": sink.encode(alarms) for name, sink in sinks().items()}
    said = {name: [_text(name, each) for each in messages] for name, messages in found.items()}
    return json.dumps(said, indent=1) + "\n"


def _text(name: str, data: bytes) -> str:
    return data.hex() if name.split()[0] in ("sparkplug", "opcua") else data.decode()


def test_the_published_bytes_are_those_of_the_golden_file() -> None:
    assert golden_text() == GOLDEN.read_text(encoding="utf-8")


def test_no_word_of_a_projects_code_is_in_them() -> None:
    text = GOLDEN.read_text(encoding="utf-8")
    assert "stays" not in text
    assert b"stays".hex() not in text


if __name__ == "__main__":
    GOLDEN.write_text(golden_text(), encoding="utf-8")
