"""Registers as numbers, and the requests that read them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.modbus import BITS, MOST_BITS, MOST_REGISTERS, TABLES, TYPES, Register, numbers, requests

ABCD = bytes.fromhex("41a40000")  # 20.5


@pytest.mark.parametrize(
    ("wire", "low_word", "low_byte"),
    [
        ("41a40000", False, False),
        ("000041a4", True, False),
        ("a4410000", False, True),
        ("0000a441", True, True),
    ],
)
def test_all_four_orders_of_a_float_are_read(wire: str, low_word: bool, low_byte: bool) -> None:
    tag = Register("a", "", "holding", 7, "float32", low_word_first=low_word, low_byte_first=low_byte)
    assert numbers([tag], 7, bytes.fromhex(wire)).tolist() == [20.5]


@pytest.mark.parametrize(
    ("kind", "code", "value"),
    [
        ("int16", ">h", -2), ("uint16", ">H", 65_534), ("int32", ">i", -70_000), ("uint32", ">I", 4_000_000_000),
        ("int64", ">q", -(2**40)), ("uint64", ">Q", 2**50), ("float32", ">f", 0.5), ("float64", ">d", 1e-300),
    ],
)  # fmt: skip
def test_every_type_is_read_at_its_place(kind: str, code: str, value: float) -> None:
    data = b"\xff\xff" + struct.pack(code, value)
    assert numbers([Register("a", "", "input", 11, kind)], 10, data).tolist() == [value]


def test_a_bit_of_a_register_is_counted_from_the_lowest() -> None:
    tags = [Register(str(bit), "", "holding", 0, "bit", bit) for bit in (0, 1, 15)]
    assert numbers(tags, 0, b"\x80\x02").tolist() == [0, 1, 1]
    assert numbers([Register("any", "", "holding", 0, "bool")], 0, b"\x80\x02").tolist() == [1]


registers = st.builds(
    lambda number, table, address, kind: Register(
        str(number), "", table, address, "bool" if table in BITS else kind
    ),
    st.integers(0, 10**9),
    st.sampled_from(TABLES),
    st.integers(0, 600),
    st.sampled_from(sorted(TYPES)),
)


@given(st.lists(registers, max_size=40, unique_by=lambda tag: tag.name), st.integers(0, 120))
def test_every_tag_is_in_one_request_that_covers_it_and_is_not_too_long(
    tags: list[Register], bridge: int
) -> None:
    made = requests(tags, bridge)
    assert sorted(tag.name for each in made for tag in each.tags) == sorted(tag.name for tag in tags)
    for each in made:
        assert each.count <= (MOST_BITS if each.table in BITS else MOST_REGISTERS)
        used = np.zeros(each.count, bool)
        for tag in each.tags:
            assert tag.table == each.table
            assert each.address <= tag.address < tag.end <= each.address + each.count
            used[tag.address - each.address : tag.end - each.address] = True
        assert longest_unused(used) <= bridge


def longest_unused(used: np.ndarray) -> int:
    return max(map(len, "".join("x" if each else "." for each in used).split("x")))


def test_registers_that_no_tag_has_are_not_read_unless_that_is_said() -> None:
    apart = [Register("a", "", "holding", 0), Register("b", "", "holding", 3)]
    assert [each.count for each in requests(apart)] == [1, 1]
    assert [each.count for each in requests(apart, bridge=2)] == [4]
