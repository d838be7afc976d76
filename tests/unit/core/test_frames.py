"""Frames: blocks of columns as they lie in the store."""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from reuna.core.errors import Corrupted
from reuna.core.frames import MAX_READINGS, SPAN_NS, cut, decode, encode, newest_of
from reuna.core.sources import Column, column

NAMES = ("a", "b", "c")
TIMES = some.integers(-(2**63), 2**63 - 1)
READING = some.tuples(TIMES, some.floats(), some.integers(0, 2), some.integers(0, 2**32 - 1))


@some.composite
def columns(draw) -> dict[str, Column]:
    coded = draw(some.booleans())
    found = {}
    for name in draw(some.sets(some.sampled_from(NAMES), min_size=1)):
        rows = draw(some.lists(READING, min_size=1, max_size=6))
        times, values, quality, codes = zip(*rows, strict=True)
        found[name] = column(times, values, quality, codes if coded else None)
    return found


def same(one: Column, two: Column) -> bool:
    pairs = (
        (one.times, two.times),
        (one.values, two.values),
        (one.quality, two.quality),
        (one.codes, two.codes),
    )
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


@given(columns())
def test_what_is_encoded_comes_back(found: dict[str, Column]) -> None:
    frame = encode(found, NAMES)
    again = decode(frame, NAMES, NAMES)
    assert again.keys() == found.keys()
    assert all(same(again[name], found[name]) for name in found)


@given(columns())
def test_parts_together_are_the_whole_and_each_fits_a_frame(found: dict[str, Column]) -> None:
    parts = list(cut(found))
    for part in parts:
        first = min(int(each.times[0]) for each in part.values())
        last = max(int(each.times[-1]) for each in part.values())
        assert last - first <= SPAN_NS
    for name, whole in found.items():
        times = [moment for part in parts if name in part for moment in part[name].times.tolist()]
        assert times == whole.times.tolist()


def test_a_long_batch_is_cut_by_its_readings_too() -> None:
    long = column(np.arange(3 * MAX_READINGS), np.zeros(3 * MAX_READINGS))
    assert all(len(part["a"]) <= MAX_READINGS for part in cut({"a": long}))
    assert not list(cut({"a": column([], [])}))


def test_tags_that_are_read_together_have_their_times_once() -> None:
    times = np.arange(10) * 10**8
    together = encode({name: column(times, np.zeros(10)) for name in NAMES}, NAMES)
    apart = encode({name: column(times + n, np.zeros(10)) for n, name in enumerate(NAMES)}, NAMES)
    assert together.shared
    assert not apart.shared
    assert set(decode(together, NAMES, ["b"])) == {"b"}


def test_the_bytes_of_a_frame_stay_as_they_are() -> None:
    """A store of an older version is read by a newer one."""
    frame = encode(
        {"a": column([10**9, 2 * 10**9], [1.5, -2.0], [0, 1], [0, 7]), "c": column([10**9], [np.inf])}, NAMES
    )
    plain = {
        name: zlib.decompress(getattr(frame, name)).hex()
        for name in ("counts", "times", "values", "quality", "codes")
    }
    assert plain == {
        "counts": "020000000000000001000000",
        "times": "00ca9a3b0000000000ca9a3b0000000000" + "3665c4ffffffff",
        "values": "000000000000f83f00000000000000c0000000000000f07f",
        "quality": "000102",
        "codes": "000000000700000000000000",
    }


@pytest.mark.parametrize(
    "damage",
    [
        {"values": b"no zlib"},
        {"values": zlib.compress(bytes(8))},
        {"values": zlib.compress(bytes(800))},
        {"times": zlib.compress(bytes(800))},
        {"quality": zlib.compress(bytes([3, 0, 0, 0]))},
        {"readings": 5},
        {"counts": zlib.compress(np.array([1, 3, 0], "<u4").tobytes())},
        {"counts": zlib.compress(bytes(4))},
    ],
)
def test_a_damaged_frame_is_told_and_never_read_wrong(damage) -> None:
    frame = encode({"a": column([1, 2], [1, 2]), "b": column([1, 2], [3, 4])}, NAMES)
    with pytest.raises(Corrupted):
        decode(replace(frame, **damage), NAMES, NAMES)


@given(
    some.sampled_from(("counts", "times", "values", "quality", "codes")),
    some.binary(max_size=40),
    some.booleans(),
)
def test_any_bytes_in_a_block_are_readings_or_an_error_of_ours(
    name: str, data: bytes, deflated: bool
) -> None:
    frame = encode({"a": column([1, 2], [1, 2], codes=[1, 2]), "b": column([1], [3])}, NAMES)
    damage: dict = {name: zlib.compress(data) if deflated else data}
    damaged = replace(frame, **damage)
    with suppress(Corrupted):
        decode(damaged, NAMES, NAMES)


def test_of_readings_at_one_time_live_wins_then_the_later() -> None:
    live, later, old = column([1, 2], [1, 2]), column([2], [20]), column([0, 1], [0, 99], codes=[5, 6])
    found = newest_of([(False, live), (False, later), (True, old)])
    assert found.times.tolist() == [0, 1, 2]
    assert found.values.tolist() == [0, 1, 20]
    assert found.codes.tolist() == [5, 0, 0]


def test_readings_at_one_time_within_a_part_are_made_one_too() -> None:
    assert newest_of([(False, column([1, 1], [1, 2]))]).values.tolist() == [2]
