"""What an OPC UA server says, as columns of readings."""

from __future__ import annotations

import math

import pytest

from reuna.core.opcua_settings import OpcUaTag, node
from reuna.core.opcua_values import (
    BAD_TYPE,
    CEFACT,
    CODES,
    Heard,
    Latest,
    columns,
    follows,
    overflowed,
    unit_text,
)
from reuna.core.sources import BAD, GOOD, UNCERTAIN, Batch, Scaling, Tag, check_batch
from reuna.core.units import read_unit

TAGS = (OpcUaTag("oil", node("i=1"), scaling=Scaling(2, 1)), OpcUaTag("on", node("i=2")))


def heard(*readings: tuple[int, int, object, int]) -> Heard:
    made = Heard()
    for each in readings:
        made.add(*each)
    return made


def test_readings_are_a_column_for_each_tag_by_their_times() -> None:
    found = columns(TAGS, heard((1, 5, True, 0), (0, 9, 2.0, 0), (0, 3, 1, 0x40000000)))
    assert found["oil"].times.tolist() == [3, 9]
    assert found["oil"].values.tolist() == [3.0, 5.0]
    assert found["oil"].quality.tolist() == [UNCERTAIN, GOOD]
    assert found["on"].values.tolist() == [1.0]
    check_batch(Batch(found, 10), [Tag("oil"), Tag("on")])
    assert columns(TAGS, Heard()) == {}


@pytest.mark.parametrize("value", ["stuck", None, [1.0], 10**400, math.inf])
def test_what_is_no_number_is_bad_and_keeps_the_servers_code(value: object) -> None:
    found = columns(TAGS, heard((0, 1, value, 0x80320000), (0, 2, value, 0)))["oil"]
    assert found.quality.tolist() == [BAD, BAD]
    assert found.codes[0] == 0x80320000
    assert found.codes[1] == (0 if isinstance(value, int | float) else BAD_TYPE)


def test_a_level_that_the_protocol_reserves_is_bad() -> None:
    assert columns(TAGS, heard((0, 1, 1.0, 0xC0000000)))["oil"].quality.tolist() == [BAD]


def test_a_full_queue_is_seen_in_the_code() -> None:
    assert overflowed(heard((0, 1, 1.0, 0x480), (1, 2, 1.0, 0x400), (1, 3, 1.0, 0x40000480))) == [
        (0, 1),
        (1, 3),
    ]


def test_what_did_not_change_is_given_again_as_it_was_but_not_its_full_queue() -> None:
    latest, again = Latest(), Heard()
    latest.note(heard((0, 5, 1.5, 0x40000480), (1, 9, math.nan, 0x80320000)))
    assert (latest.time_ns(0), latest.time_ns(5)) == (5, None)
    latest.repeat(again, 15, 10)
    assert (again.tags, again.times, again.codes) == ([0], [15], [0x40000000])
    latest.note(again)
    latest.repeat(again, 19, 10)
    assert (again.tags, again.times[1:], again.codes[1:]) == ([0, 1], [19], [0x80320000])


def test_notifications_are_numbered_from_one_again_after_the_greatest() -> None:
    assert follows(1, 2)
    assert follows((1 << 32) - 1, 1)
    assert not follows(1, 3)
    assert not follows(2, 2)


def test_a_unit_is_what_the_server_shows_else_its_code() -> None:
    assert unit_text("°C", 0, "") == "°C"
    assert unit_text("Grad", 4408652, CEFACT) == "degC"
    assert unit_text("Striche", 5, CEFACT) == "Striche"
    assert unit_text("", 4408652, "urn:ours") == ""
    assert unit_text("", -5, CEFACT) == ""


def test_every_code_means_a_unit_that_can_be_read() -> None:
    assert [code for code, unit in CODES.items() if read_unit(unit) is None] == []
