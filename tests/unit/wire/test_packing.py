"""A signed plan travels packed where that is shorter, and only bytes that were packed whole are unpacked."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import BadMessage
from reuna.wire import packed, unpacked
from reuna.wire.packing import LARGEST

TEXT = b"\x01" + b'{"name":"flow_m3_h","every_s":180.0,"max_gap_s":180.0}' * 40
#: The same bytes as this was first published. How well they are packed may differ; that they are read may not.
PUBLISHED = bytes.fromhex(
    "02789c63ac56ca4bcc4d55b2524acbc92f8fcf358ecf50d2514a2d4b2daa8c2f56b232b430d033d051ca4dac884f4f2c808bd48eea1ad535aa6b54d7a8ae515da3ba467511af0b00cfaf9f38"
)
signed = st.binary(max_size=300).map(lambda rest: b"\x01" + rest * 9)


@given(signed)
def test_what_was_packed_is_unpacked_to_the_same_bytes_and_is_never_longer(data: bytes) -> None:
    assert unpacked(packed(data)) == data
    assert unpacked(data) == data, "and what was not packed stays"
    assert len(packed(data)) <= len(data)


def test_the_text_of_a_contract_is_a_tenth_and_a_large_model_goes_as_it_is() -> None:
    assert len(packed(TEXT)) < len(TEXT) / 10
    large = b"\x01" + bytes(LARGEST)
    assert packed(large) is large
    assert unpacked(packed(large[:LARGEST])) == large[:LARGEST]


def test_what_was_packed_by_the_first_version_is_read() -> None:
    assert unpacked(PUBLISHED) == TEXT


@pytest.mark.parametrize(
    "data",
    [
        b"\x02",
        b"\x02" + b"no stream",
        b"\x02" + zlib.compress(TEXT)[:-1],
        b"\x02" + zlib.compress(TEXT) + b"\0",
        b"\x02" + zlib.compress(bytes(LARGEST + 1)),
        b"\x02" + zlib.compress(bytes(200_000_000)),
    ],
    ids=["nothing", "no stream", "cut", "something behind it", "too long", "a bomb"],
)
def test_bytes_that_nobody_packed_are_refused(data: bytes) -> None:
    with pytest.raises(BadMessage, match="a packed plan"):
        unpacked(data)
