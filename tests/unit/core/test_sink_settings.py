"""`sinks.toml`: where answers go, and who each is for the site's policy."""

from __future__ import annotations

import re
from typing import Any

import pytest

from reuna.core.errors import SettingsError
from reuna.core.settings import Source, parse
from reuna.core.sink_settings import (
    SINKS,
    FileTarget,
    MqttTarget,
    OpcUaTarget,
    SinkSettings,
    WebhookTarget,
    sinks_of,
)

FILE = {"kind": "file", "folder": "/var/answers/"}
WEB = {"kind": "webhook", "url": "https://alarms.plant/reuna?key=secret"}
NODE = "nsu=http://example.com/press;s=My Answer"
OPCUA = {"kind": "opcua", "url": "opc.tcp://press:4840/", "node": NODE, "security": "none"}
SPARKPLUG = {"kind": "sparkplug", "host": "broker.plant", "group": "plant", "node": "a"}
MQTT = {"kind": "mqtt", "host": "broker.plant", "topic": "reuna/answers"}


def read(**sinks: Any) -> tuple[SinkSettings, ...]:
    return sinks_of(parse(SINKS, [Source("sinks.toml", {"sinks": sinks})]))


def test_each_kind_has_its_target_and_the_address_that_a_policy_names() -> None:
    archive, alarms, line = read(archive=FILE, alarms={**WEB, "what": "changes"}, line=MQTT)
    assert archive.target == FileTarget("/var/answers/")
    assert archive.recipient == "file:/var/answers"
    assert isinstance(alarms.target, WebhookTarget)
    assert alarms.recipient == "https://alarms.plant/reuna", "without a secret of the query"
    assert alarms.chosen.what == "changes"
    assert isinstance(line.target, MqttTarget)
    assert line.recipient == "mqtt://broker.plant:1883/reuna/answers"
    (press,) = read(press=OPCUA)
    assert isinstance(press.target, OpcUaTarget)
    assert press.recipient == "opc.tcp://press:4840/#nsu=http://example.com/press;s=My%20Answer"
    assert (press.target.type, press.target.stamp) == ("Double", False)
    (node,) = read(node=SPARKPLUG)
    assert node.recipient == "mqtt://broker.plant:1883/spBv1.0/plant/a"
    (safe,) = read(line={**MQTT, "authority": "ca.pem"})
    assert safe.recipient == "mqtts://broker.plant:8883/reuna/answers"


@pytest.mark.parametrize(
    ("sink", "said"),
    [
        ({"folder": "/a"}, "sinks.one has no kind, expected one of file, webhook, mqtt, sparkplug, opcua"),
        ({"kind": "fax"}, "sinks.one.kind is 'fax', must be one of file"),
        ({"kind": "file"}, "sinks.one has no folder"),
        ({**FILE, "folder": "answers"}, "sinks.one.folder is 'answers', expected an absolute path"),
        ({**FILE, "folder": "/my answers"}, "'file:/my answers' has signs other than plain ones"),
        ({**FILE, "folder": "/" + "a" * 250}, "is longer than 200 characters"),
        ({**FILE, "file_mib": 200}, "sinks.one.mib must be at least twice file_mib"),
        ({**FILE, "url": "https://a"}, "sinks.one.url is not for a sink of kind file"),
        ({**FILE, "format": "xml"}, "sinks.one.format is 'xml', must be one of jsonl, csv"),
        ({**FILE, "what": "change"}, "sinks.one.what is 'change', must be one of every, changes"),
        ({**WEB, "url": "ftp://a"}, "sinks.one.url is 'ftp://a', expected https://HOST"),
        ({**WEB, "url": "http://alarms.plant/"}, "what goes to another machine goes by https"),
        ({**WEB, "url": "http://127.0.0.1.plant/"}, "what goes to another machine goes by https"),
        ({**WEB, "key": "k.pem"}, "sinks.one: certificate and key go together"),
        ({**MQTT, "topic": "reuna/#"}, "sinks.one.topic is 'reuna/#'"),
        ({**SPARKPLUG, "group": "a/b"}, "sinks.one.group is 'a/b', and +, # and / cannot be in it"),
        ({**OPCUA, "url": "opc.tcp://me@press"}, "sinks.one.url is 'opc.tcp://me@press', must have no user"),
        ({**OPCUA, "node": "answer"}, "sinks.one.node is 'answer', is no node"),
        ({**OPCUA, "type": "Text"}, "sinks.one.type is 'Text', must be one of Double"),
        ({**OPCUA, "user": "me"}, "a password would travel where anyone can read it"),
        ({**OPCUA, "security": "Basic256Sha256"}, "sinks.one has no certificate"),
        ({**MQTT, "password_file": "p"}, "sinks.one.password_file is set, and there is no user"),
    ],
)
def test_a_mistake_names_the_setting(sink: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        read(one=sink)


def test_a_name_is_one_that_a_file_may_have() -> None:
    with pytest.raises(SettingsError, match="a name is of a-z"):
        read(**{"../up": FILE})


def test_one_address_has_one_sink() -> None:
    with pytest.raises(SettingsError, match=r"sinks\.b and sinks\.a go to the same address"):
        read(a=FILE, b=FILE)


def test_no_sink_at_all_is_a_mistake() -> None:
    with pytest.raises(SettingsError, match="sinks is empty"):
        read()


def test_this_machine_itself_may_be_reached_without_tls() -> None:
    assert read(one={"kind": "webhook", "url": "http://127.0.0.1:8080/in"})[0].recipient.startswith("http:")
