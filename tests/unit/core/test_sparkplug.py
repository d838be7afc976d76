"""Births, sequence numbers, aliases and deaths of a Sparkplug B node."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.adapters.mqtt.sparkplug import decode, encode
from reuna.core.errors import BadMessage
from reuna.core.mqtt_settings import Broker, SparkplugSettings, SparkplugTag
from reuna.core.sources import BAD, GOOD, NS, UNCERTAIN, Batch, Scaling, Tag, check_batch
from reuna.core.sparkplug import STALE, Metric, Payload, SparkplugReader, number_in

T = 1_800_000_000_000  # ms
NOW = (T + 10) * 1_000_000
TAGS = (
    SparkplugTag("oil", "bar", "Hydraulics/Oil"),
    SparkplugTag("torque", "N.m", "Torque", "axis", Scaling(10.0)),
)
OIL, TORQUE = Metric("Hydraulics/Oil", 1, T, 10, 1.5), Metric("Torque", 1, T, 3, 2**32 - 2)
BD = Metric("bdSeq", None, T, 8, 4)


class Node:
    """What a node sends, and what came of it."""

    def __init__(self, **more: Any) -> None:
        self.reader = SparkplugReader(
            SparkplugSettings("robot", Broker("b"), "plant", "robot", TAGS, **more), decode
        )
        self.seq = 0
        self.now = NOW

    def sends(self, kind: str, *metrics: Metric, device: str = "", seq: int | None = None) -> list[Batch]:
        topic = f"spBv1.0/plant/{kind}/robot" + (f"/{device}" if device else "")
        number = self.seq if seq is None else seq
        self.reader.take(
            topic, encode(Payload(T, None if kind == "NDEATH" else number, metrics)), False, self.now
        )
        if kind != "NDEATH":
            self.seq = (number + 1) % 256
        self.now += 1_000_000
        found = self.reader.collected(self.now)
        for batch in found:
            check_batch(batch, [Tag(tag.name, tag.unit) for tag in TAGS])
        return found

    def is_born(self, **oil: Any) -> list[Batch]:
        born = self.sends("NBIRTH", BD, replace(OIL, **oil), seq=0)
        return [*born, *self.sends("DBIRTH", TORQUE, device="axis")]


def values(batches: list[Batch], tag: str) -> list[float]:
    columns = [batch.columns[tag] for batch in batches if tag in batch.columns]
    return [value for each in columns for value in each.values.tolist()]


def reasons(batches: list[Batch]) -> list[str]:
    return [gap.reason for batch in batches for gap in batch.gaps]


def test_a_birth_gives_values_and_the_data_after_it_only_aliases() -> None:
    node = Node()
    found = node.is_born()
    assert (values(found, "oil"), values(found, "torque")) == ([1.5], [-20.0])
    found = node.sends("NDATA", Metric("", 1, T + 5, 0, 2.5))
    assert values(found, "oil") == [2.5]
    assert found[0].columns["oil"].times.tolist() == [(T + 5) * 1_000_000]
    found = node.sends("DDATA", Metric("", 1, T + 6, 0, 2**32 - 1), device="axis")
    assert values(found, "torque") == [-10.0]
    assert not reasons(found)


def test_before_a_birth_nothing_is_read_which_is_told_once() -> None:
    node = Node()
    found = node.sends("NDATA", replace(OIL, alias=None), seq=5)
    assert reasons(found) == ["waits for a birth: the birth of plant/robot has not been seen"]
    assert not node.sends("NDATA", OIL)
    (gap,) = node.is_born()[0].gaps
    assert gap.reason.startswith("born again after: the birth")


def test_after_a_lost_message_nothing_is_read_before_the_next_birth() -> None:
    node = Node()
    node.is_born()
    whole = node.now - 1_000_000
    found = node.sends("NDATA", Metric("", 1, T, 0, 9.0), seq=7)
    assert reasons(found) == ["plant/robot sent number 7 where 2 was expected"]
    assert (found[0].gaps[0].first_ns, values(found, "oil")) == (whole, [])
    assert not values(node.sends("NDATA", Metric("", 1, T, 0, 9.0)), "oil")
    found = node.is_born()
    assert values(found, "oil") == [1.5]
    assert found[0].gaps[0].first_ns == whole
    assert values(node.sends("NDATA", Metric("", 1, T, 0, 3.5)), "oil") == [3.5]


@pytest.mark.parametrize("many", [0, 252, 253, 254, 600])
def test_numbers_go_from_255_to_0_and_none_of_them_is_a_gap(many: int) -> None:
    node = Node()
    node.is_born()
    for _ in range(many):
        assert not reasons(node.sends("NDATA", Metric("", 1, T, 0, 1.0)))
    assert reasons(node.sends("NDATA", seq=node.seq + 1))


def test_an_alias_means_what_the_last_birth_says() -> None:
    node = Node()
    node.is_born()
    node.sends("NBIRTH", BD, replace(OIL, alias=2), Metric("Other", 1, T, 10, 7.0), seq=0)
    assert not node.sends("NDATA", Metric("", 1, T, 0, 8.0))
    assert values(node.sends("NDATA", Metric("", 2, T, 0, 3.0)), "oil") == [3.0]
    assert reasons(node.sends("DDATA", Metric("", 1, T, 0, 5), device="axis")) == [
        "waits for a birth: that of device axis has not been seen"
    ]


def test_a_type_of_an_earlier_birth_does_not_hold_any_more() -> None:
    node = Node()
    node.is_born()
    node.sends("NBIRTH", BD, seq=0)
    found = node.sends("NDATA", Metric("Hydraulics/Oil", None, T, 0, 1.5))
    assert reasons(found) == ["'Hydraulics/Oil' is of type 0, which is no number"]
    assert found[0].columns["oil"].quality.tolist() == [BAD]


def test_an_alias_that_was_in_no_birth_is_told_and_stops_no_other() -> None:
    node = Node()
    node.is_born()
    found = node.sends("NDATA", Metric("", 99, T, 0, 1.0), Metric("", 1, T, 0, 4.0))
    assert values(found, "oil") == [4.0]
    assert reasons(found) == ["alias 99 was in no birth"]


def test_a_death_makes_all_tags_bad_and_a_late_one_none() -> None:
    node = Node()
    node.is_born()
    assert not node.sends("NDEATH", replace(BD, value=3))
    (found,) = node.sends("NDEATH", BD)
    for each in found.columns.values():
        assert (each.quality.tolist(), each.codes.tolist()) == ([BAD], [STALE])
    assert sorted(found.columns) == ["oil", "torque"]
    assert not values(node.sends("NDATA", Metric("", 1, T, 0, 1.0)), "oil")
    assert "born again after: plant/robot died" in reasons(node.is_born())


def test_the_death_of_a_device_makes_its_tags_bad() -> None:
    node = Node()
    node.is_born()
    (found,) = node.sends("DDEATH", device="axis")
    assert list(found.columns) == ["torque"]
    assert found.columns["torque"].quality.tolist() == [BAD]
    assert not values(node.sends("DDATA", Metric("", 1, T, 0, 5), device="axis"), "torque")
    assert values(node.sends("DBIRTH", TORQUE, device="axis"), "torque") == [-20.0]


@pytest.mark.parametrize(
    ("code", "quality"), [(192, GOOD), (216, GOOD), (64, UNCERTAIN), (0, BAD), (500, BAD), (2**32 - 1, BAD), (128, BAD)]
)  # fmt: skip
def test_the_property_quality_is_kept_with_its_code(code: int, quality: int) -> None:
    found = Node().is_born(properties={"Quality": code})[0].columns["oil"]
    assert found.quality.tolist() == [quality]
    assert found.codes.tolist() == ([code] if code else [])


def test_null_is_bad_and_what_is_historical_is_given_so() -> None:
    node = Node()
    node.is_born()
    null = Metric("", 1, T, 0, None, is_null=True)
    old = Metric("", 1, T - 5000, 0, 7.0, is_historical=True)
    live, history = node.sends("NDATA", null, old)
    assert live.columns["oil"].quality.tolist() == [BAD]
    assert (history.historical, history.columns["oil"].values.tolist()) == (True, [7.0])


def test_a_metric_that_is_missing_in_another_unit_or_no_number_is_told() -> None:
    node = Node()
    found = node.is_born(name="Elsewhere")
    assert reasons(found) == ["the birth has no metric 'Hydraulics/Oil'"]
    assert values(node.is_born(properties={"engUnit": "strokes"}), "oil") == [1.5]
    found = node.is_born(properties={"engUnit": "kPa"})
    assert reasons(found) == ["'Hydraulics/Oil' is in kPa, not in bar"]
    assert not values(found, "oil")
    assert not node.sends("NDATA", Metric("", 1, T, 0, 1.0))
    found = node.is_born(datatype=16, value=None)
    assert reasons(found) == ["'Hydraulics/Oil' is of type 16, which is no number"]
    assert found[0].columns["oil"].quality.tolist() == [BAD]


def test_times_that_are_none_are_those_of_the_payload_or_of_the_arrival() -> None:
    node = Node()
    node.is_born()
    (found,) = node.sends("NDATA", Metric("", 1, None, 0, 1.0))
    assert found.columns["oil"].times.tolist() == [T * 1_000_000]
    arrival = node.now
    (found,) = node.sends("NDATA", Metric("", 1, 2**63, 0, 1.0))
    assert found.columns["oil"].times.tolist() == [arrival]


def test_a_birth_is_asked_for_only_where_the_owner_allows_it_and_not_too_often() -> None:
    node = Node()
    node.sends("NDATA", OIL, seq=5)
    assert node.reader.request(NOW) is None
    node = Node(rebirth=True)
    asked = node.reader.request(NOW)
    assert asked
    assert (asked[0], asked[1].metrics[0].name) == ("spBv1.0/plant/NCMD/robot", "Node Control/Rebirth")
    node.sends("NDATA", OIL, seq=5)
    assert node.reader.request(NOW + 29 * NS) is None
    assert node.reader.request(NOW + 30 * NS)
    node.is_born()
    assert node.reader.request(NOW + 90 * NS) is None
    node.sends("NDATA", OIL, seq=77)
    assert node.reader.request(NOW + 90 * NS)
    node.sends("NDEATH", BD)
    assert node.reader.request(NOW + 900 * NS) is None


def test_after_a_break_aliases_hold_only_with_a_session_at_the_broker() -> None:
    node = Node()
    node.is_born()
    node.reader.broken()
    assert not values(node.sends("NDATA", Metric("", 1, T, 0, 1.0)), "oil")
    settings = SparkplugSettings("robot", Broker("b", session=True), "plant", "robot", TAGS)
    node = Node()
    node.reader = SparkplugReader(settings, decode)
    node.is_born()
    node.reader.broken()
    assert values(node.sends("NDATA", Metric("", 1, T, 0, 1.0)), "oil") == [1.0]


def test_what_is_no_payload_or_was_retained_is_not_read() -> None:
    node = Node()
    node.reader.take("spBv1.0/plant/NBIRTH/robot", b"\xff", False, NOW)
    (batch,) = node.reader.collected(NOW)
    assert batch.gaps[0].reason.startswith("spBv1.0/plant/NBIRTH/robot: is no Sparkplug B payload")
    for text in (b"Hydraulics", b"bar"):
        born = encode(Payload(T, 0, (replace(OIL, properties={"engUnit": "bar"}),)))
        with pytest.raises(BadMessage, match="is no Sparkplug B payload"):
            decode(born.replace(text, text[:-1] + b"\xff"))
    node.is_born()
    node.reader.take("spBv1.0/plant/NDATA/robot", encode(Payload(T, 9, (OIL,))), True, NOW)
    assert not node.reader.collected(NOW)


def test_devices_that_no_tag_names_count_for_the_numbers_alone() -> None:
    node = Node()
    node.is_born()
    assert not node.sends("DBIRTH", TORQUE, device="other")
    assert not reasons(node.sends("NDATA", Metric("", 1, T, 0, 1.0)))


finite = st.floats(allow_nan=False)
properties = st.dictionaries(
    st.text(min_size=1, max_size=5),
    st.one_of(st.integers(0, 2**64 - 1), st.booleans(), st.text(max_size=5), finite, st.none()),
    max_size=3,
)
value = st.one_of(
    st.tuples(st.sampled_from([1, 2, 3, 5, 6]), st.integers(0, 2**32 - 1)),
    st.tuples(st.sampled_from([4, 7, 8, 13]), st.integers(0, 2**64 - 1)),
    st.tuples(st.just(10), finite),
    st.tuples(st.just(9), st.floats(width=32, allow_nan=False)),
    st.tuples(st.just(11), st.booleans()),
    st.tuples(st.just(12), st.text(max_size=20)),
    st.tuples(st.just(9), st.none()),
)
number = st.one_of(st.none(), st.integers(0, 2**64 - 1))
metrics = st.builds(
    lambda name, alias, time, said, null, old, more: Metric(
        name, alias, time, said[0], said[1], null, old, more
    ),
    st.text(max_size=20), number, number, value, st.booleans(), st.booleans(), properties,
)  # fmt: skip


@given(number, st.one_of(st.none(), st.integers(0, 255)), st.lists(metrics, max_size=5))
def test_every_payload_comes_back_from_its_bytes(
    time: int | None, seq: int | None, some: list[Metric]
) -> None:
    payload = Payload(time, seq, tuple(some))
    assert decode(encode(payload)) == payload


def test_signs_are_those_of_the_type() -> None:
    told = [(1, 0xFF), (1, 0xFFFF_FFFF), (2, 0xFFFF), (3, 2**32 - 1), (4, 2**64 - 1)]
    assert {number_in(Metric("", None, None, kind, value), kind) for kind, value in told} == {-1.0}
    assert number_in(Metric("", None, None, 5, 0xFF), 5) == 255
    assert math.isnan(number_in(Metric("", None, None, 17, 5), 17))
