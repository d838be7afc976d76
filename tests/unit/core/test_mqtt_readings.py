"""Messages as readings, and JSON pointers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from reuna.core.errors import SettingsError
from reuna.core.json_pointer import NOTHING, at, parsed, wrong_pointer
from reuna.core.mqtt_readings import MessageReader, decoded, number_in, quality_in, time_in
from reuna.core.mqtt_settings import Broker, MqttSettings, MqttTag
from reuna.core.settings import Source, parse
from reuna.core.source_settings import SOURCES, sources_of
from reuna.core.sources import BAD, GOOD, UNCERTAIN, Scaling

NOW = 1_800_000_000 * 10**9
#: The examples of RFC 6901, section 5.
RFC = {
    "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, 'k"l': 6, " ": 7, "m~n": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", RFC), ("/foo", ["bar", "baz"]), ("/foo/0", "bar"), ("/", 0), ("/a~1b", 1), ("/c%d", 2), ("/e^f", 3),
        ("/g|h", 4), ("/i\\j", 5), ('/k"l', 6), ("/ ", 7), ("/m~0n", 8), ("/foo/01", NOTHING), ("/foo/-", NOTHING),
        ("/foo/2", NOTHING), ("/foo/0/x", NOTHING), ("/foo/²", NOTHING),
    ],
)  # fmt: skip
def test_pointers_are_those_of_the_standard(pointer: str, value: Any) -> None:
    assert not wrong_pointer(pointer)
    assert at(RFC, parsed(pointer)) == value


@pytest.mark.parametrize("text", ["a", "a/b", "/~2", "/~"])
def test_a_pointer_that_is_none_is_told(text: str) -> None:
    assert wrong_pointer(text)


@pytest.mark.parametrize(
    ("payload", "document"),
    [
        (b"12.5", 12.5), (b" +5 ", "+5"), (b"1.", "1."), (b'"a"', "a"), (b"Err", NOTHING), (b"", NOTHING),
        (b"\xff", NOTHING), (b"[" * 5000, NOTHING), (b"1_0", NOTHING), (b" " * 200 + b"+1", NOTHING), (b"NaN", NOTHING),
    ],
)  # fmt: skip
def test_a_message_is_json_or_a_number(payload: bytes, document: Any) -> None:
    assert decoded(payload) is document or decoded(payload) == document


def test_true_is_one_and_what_is_no_number_is_none() -> None:
    assert [number_in(each) for each in (True, False, 5, "1e3")] == [1, 0, 5, 1000]
    assert all(math.isnan(number_in(each)) for each in (None, [], {}, "x", NOTHING, 10**400))


def test_times_are_numbers_in_their_unit_or_iso() -> None:
    assert time_in(1_800_000_000_123_456_789, 1) == 1_800_000_000_123_456_789
    assert time_in(1_800_000_000_500, 10**6) == time_in(1_800_000_000.5, 10**9) == NOW + 5 * 10**8
    assert time_in("2027-01-15T08:00:00Z", 10**9) == time_in("1800000000", 10**9) == NOW
    wrong = (None, True, "x", [], math.nan, math.inf, 10**40, NOTHING)
    assert all(time_in(each, 10**9) is None for each in wrong)


def test_quality_is_what_the_settings_call_good_or_uncertain() -> None:
    tag = MqttTag("a", "", "a", (), None, ("q",), ("0", "ok", "True"), ("1",))
    assert [quality_in(each, tag) for each in (True, 0, "ok", 1, "1", 2, "OK", False, None, NOTHING)] == [
        GOOD, GOOD, GOOD, UNCERTAIN, UNCERTAIN, BAD, BAD, BAD, BAD, BAD,
    ]  # fmt: skip


def taken(payload: bytes, *tags: MqttTag, retained: bool = False, topic: str = "a"):
    reader = MessageReader(MqttSettings("s", Broker("b"), tags))
    reader.take(topic, payload, retained, NOW)
    batches = reader.collected(NOW)
    assert not reader.collected(NOW)
    return batches[0] if batches else None


def test_a_message_without_the_place_of_a_tag_is_no_reading_of_it() -> None:
    found = taken(b'{"x": 1}', MqttTag("x", "", "a", ("x",)), MqttTag("y", "", "a", ("y",)))
    assert list(found.columns) == ["x"]
    assert taken(b"{}", MqttTag("x", "", "a", ("x",))) is None
    assert taken(b"{}", MqttTag("x", "", "other")) is None


def test_scale_and_offset_are_applied_and_null_is_bad() -> None:
    found = taken(
        b"[2, null]", MqttTag("x", "", "a", ("0",), scaling=Scaling(10, 1)), MqttTag("y", "", "a", ("1",))
    )
    assert found.columns["x"].values.tolist() == [21]
    assert found.columns["y"].quality.tolist() == [BAD]


def test_trouble_is_told_once_for_each_tag_and_reason() -> None:
    reader = MessageReader(MqttSettings("s", Broker("b"), (MqttTag("x", "", "+"),)))
    for topic in ("a", "b", "c"):
        reader.take(topic, b"Err", False, NOW)
    (batch,) = reader.collected(NOW)
    assert [gap.reason for gap in batch.gaps] == ["a: a message is no JSON"]
    assert batch.columns["x"].quality.tolist() == [BAD] * 3


LINE = {"kind": "mqtt", "host": "b", "tags": {"x": {"topic": "a/+", "value": "/v"}}}


def read(**line: Any) -> Any:
    table = {**LINE, **line}
    (found,) = sources_of(parse(SOURCES, [Source("sources.toml", {"sources": {"line": table}})]))
    return found


def test_a_broker_has_its_usual_port_and_tls_where_an_authority_is_named() -> None:
    assert (read().broker.port, read().broker.tls) == (1883, False)
    secure = read(authority="ca.pem").broker
    assert (secure.port, secure.tls, secure.authority) == (8883, True, "ca.pem")
    assert read(port=1, tls=True).broker.port == 1


def test_the_time_of_the_source_holds_for_tags_that_say_none() -> None:
    tags = {"x": {"topic": "a"}, "y": {"topic": "a", "time": "/own"}}
    found = read(time="/t", time_unit="ms", tags=tags)
    assert [tag.time for tag in found.tags] == [("t",), ("own",)]
    assert found.time_unit_ns == 10**6


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"tags": {"x": {}}}, "sources.line.tags.x.topic is '', must have"),
        ({"tags": {"x": {"topic": "a#"}}}, "has [+] or # beside"),
        ({"tags": {"x": {"topic": "a", "value": "v"}}}, "sources.line.tags.x.value is 'v', must be empty"),
        ({"tags": {"x": {"topic": "a", "address": 1}}}, "x.address is not for a source of kind mqtt"),
        ({"time": "t"}, "sources.line.time is 't', must be empty"),
        ({"certificate": "c.pem"}, "certificate and key go together"),
        ({"password_file": "p"}, "there is no user"),
        ({"session": True}, "needs a client_id"),
        ({"session": True, "client_id": "x"}, "needs a client_id"),
        ({"qos": 3}, "sources.line.qos is 3, must be one of 0, 1, 2"),
        ({"time_unit": "min"}, "must be one of s, ms, us, ns"),
        ({"kind": "sparkplug"}, "sources.line has no group"),
        (
            {"kind": "sparkplug", "group": "g/1", "node": "n", "tags": {"x": {}}},
            "sources.line.group is 'g/1'",
        ),
        (
            {"kind": "sparkplug", "group": "g", "node": "n", "tags": {"x": {}, "y": {"metric": "x"}}},
            "sources.line.tags.y is the same metric as x",
        ),
        ({"kind": "sparkplug", "group": "g", "node": "n"}, "x.topic is not for a source of kind sparkplug"),
    ],
)
def test_a_mistake_names_the_setting(line: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said.replace(".", r"\.")):
        read(**line)
