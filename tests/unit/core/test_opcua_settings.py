"""`kind = "opcua"` in sources.toml: what is right, and what each mistake says."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from reuna.core.errors import SettingsError
from reuna.core.opcua_settings import OPCUA, Node, OpcUaSettings, OpcUaTag, node, url_wrong
from reuna.core.settings import Source, parse
from reuna.core.source_kinds import Peer
from reuna.core.source_settings import SOURCES, sources_of
from reuna.core.sources import Scaling

PLAIN = {
    "kind": "opcua",
    "url": "opc.tcp://plc:4840",
    "security": "none",
    "tags": {"oil": {"node": "nsu=urn:press;s=Oil", "unit": "bar"}},
}
SECURE = {"security": None, "certificate": "c", "key": "k", "server_certificate": "s"}


def read(**table: Any) -> OpcUaSettings:
    kept = {key: value for key, value in {**PLAIN, **table}.items() if value is not None}
    (found,) = sources_of(parse(SOURCES, [Source("sources.toml", {"sources": {"press": kept}})]))
    assert isinstance(found, OpcUaSettings)
    return found


def test_a_source_has_its_tags_by_node() -> None:
    found = read(every_s=0.1, tags={"oil": {"node": "ns=2;i=7", "scale": 0.5, "deadband": 2.0}})
    assert found.tags == (
        OpcUaTag("oil", Node(2, "i", 7), "", Scaling(0.5, 0.0), every_s=0.1, queue=100, deadband=4.0),
    )
    assert (found.publish_s, found.timestamps, found.host) == (0.5, "source", "plc")


def test_a_simulated_machine_says_how_much_faster_than_life_it_is() -> None:
    assert (read().speed, read(speed=600.0).speed) == (1.0, 600.0)
    with pytest.raises(SettingsError, match="speed"):
        read(speed=0.0)


def test_sampling_and_queue_of_a_tag_win_over_those_of_the_source() -> None:
    own = {"node": "i=1", "every_s": 5.0, "queue": 3, "deadband_percent": 1.5}
    found = read(
        every_s=0.1, queue=7, tags={"a": own, "b": {"node": "i=2"}, "c": {"node": "i=3", "every_s": 60}}
    )
    a, b, c = found.tags
    assert (a.every_s, a.queue, a.deadband, a.percent) == (5.0, 3, 1.5, True)
    assert (b.every_s, b.queue) == (0.1, 7)
    assert c.queue == 7
    assert read(every_s=60.0).tags[0].queue == 2


def test_security_is_the_default_and_names_whom_it_trusts() -> None:
    found = read(**SECURE, mode="Sign", user="anna", password_file="p")
    assert (found.security, found.mode, found.user) == ("Basic256Sha256", "Sign", "anna")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"url": None}, "sources.press has no url"),
        ({"url": "http://plc"}, "sources.press.url is 'http://plc', must be opc.tcp://HOST:PORT"),
        ({"url": "opc.tcp://plc:0"}, "must be opc.tcp://HOST:PORT"),
        ({"url": "opc.tcp://a:b@plc"}, "must have no user in it"),
        ({"folder": "/x"}, "sources.press.folder is not for a source of kind opcua"),
        ({"security": "Basic256"}, "must be one of none, Basic256Sha256"),
        ({"security": None}, "sources.press has no certificate: make one with"),
        ({"security": None}, "sources.press does not say whom it trusts"),
        ({"trust": "x"}, "sources.press.trust: its security is none"),
        ({"user": "anna"}, "a password would travel where anyone can read it"),
        ({**SECURE, "user": "anna"}, "sources.press.user and password_file belong together"),
        ({"timestamps": "mine"}, "must be one of source, server, arrival"),
        ({"tags": {"oil": {"unit": "bar"}}}, "sources.press.tags.oil has no node"),
        ({"tags": {"oil": {"node": "Oil"}}}, "sources.press.tags.oil.node is 'Oil', is no node: write"),
        ({"tags": {"oil": {"node": "i=1", "column": "x"}}}, "oil.column is not for a source of kind opcua"),
        ({"tags": {"oil": {"node": "i=1", "deadband": 1, "deadband_percent": 1}}}, "say one of the two"),
        ({"tags": {"o\n": {"node": "i=1"}}}, "printable"),
    ],
)
def test_a_mistake_names_the_setting(table: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as told:
        read(**table)
    assert said in str(told.value)


def test_a_setting_of_opc_ua_is_none_of_another_kind() -> None:
    table = {
        "kind": "files",
        "folder": "/d",
        "time": "t",
        "url": "opc.tcp://x",
        "tags": {"a": {"node": "i=1"}},
    }
    with pytest.raises(SettingsError) as told:
        sources_of(parse(SOURCES, [Source("sources.toml", {"sources": {"press": table}})]))
    assert "sources.press.url is not for a source of kind files" in str(told.value)
    assert "sources.press.tags.a.node is not for a source of kind files" in str(told.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nsu=http://x/%3Ba;s=T;1=2", Node("http://x/;a", "s", "T;1=2")),
        (
            "g=09087e75-8e5e-499b-954f-f2a9603db28a",
            Node(0, "g", uuid.UUID("09087e75-8e5e-499b-954f-f2a9603db28a")),
        ),
        ("ns=1;b=AQI=", Node(1, "b", b"\1\2")),
        ("s=a%3Bb", Node(0, "s", "a%3Bb")),
    ],
)
def test_nodes_are_named_as_the_specification_says(text: str, found: Node) -> None:
    assert node(text) == found
    assert node(str(found)) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ns=65536;i=1", "no index between 0 and 65535"),
        ("ns=x;i=1", "no index"),
        ("nsu=;i=1", "no namespace"),
        ("i=4294967296", "no number"),
        ("i=-1", "no number"),
        ("s=", "no name"),
        ("g=1", "no UUID"),
        ("b=?", "no base64"),
        ("x=1", "is no node"),
        ("s=" + "x" * 5000, "is no node"),
    ],
)
def test_what_is_no_node_says_why(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        node(text)


def test_an_address_may_be_of_the_sixth_version_and_have_a_path() -> None:
    assert url_wrong("opc.tcp://[fe80::1]:4840/a/b") == ""
    assert OpcUaSettings("x", "opc.tcp://[fe80::1]:4840/a", ()).host == "fe80::1"
    assert url_wrong("opc.tcp://plc") == ""


def test_where_the_server_is_can_be_asked_of_the_kind() -> None:
    assert OPCUA.peer(read(url="opc.tcp://[fe80::1]:4841")) == Peer("fe80::1", 4841)
    assert OPCUA.peer(read(url="opc.tcp://plc")) == Peer("plc", 4840)


def test_units_that_cannot_be_read_are_no_reason_to_refuse_a_tag() -> None:
    tag = OpcUaTag("oil", node("i=1"), "bar")
    assert not tag.fits("kPa")
    assert tag.fits("")
    assert tag.fits("Striche")
    assert OpcUaTag("oil", node("i=1"), "bar", Scaling(0.01, 0)).fits("kPa")
