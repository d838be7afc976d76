"""What one line receives, whatever pieces the other side sends it in."""

from __future__ import annotations

import ssl
from typing import cast

import pytest

from reuna.adapters.https_line import Line


class Records:
    """A connection on which these records come, and then its end or an error, for ever."""

    def __init__(self, records: list[bytes], end: OSError | None = None) -> None:
        self._records = list(records)
        self._end = end

    def recv_into(self, buffer: memoryview) -> int:
        if not self._records:
            if self._end is not None:
                raise self._end
            return 0
        record = self._records.pop(0)
        buffer[: len(record)] = record
        return len(record)


def line(records: list[bytes], end: OSError | None = None) -> Line:
    return Line(cast("ssl.SSLSocket", Records(records, end)), "parent")


def test_a_buffer_is_filled_with_one_record_after_the_other_and_no_more() -> None:
    buffer, receiving = bytearray(5), line([b"ab", b"cde", b"fg"])
    assert receiving.fill(memoryview(buffer)) == 5
    assert bytes(buffer) == b"abcde"
    assert receiving.fill(memoryview(buffer)[:2]) == 2
    assert bytes(buffer[:2]) == b"fg"


def test_what_came_before_the_end_of_a_line_is_given_out_before_the_end_is_told() -> None:
    buffer = bytearray(9)
    ended = line([b"ab", b"c"])
    assert ended.fill(memoryview(buffer)) == 3
    assert ended.fill(memoryview(buffer)) == 0
    cut = line([b"ab", b"c"], ConnectionResetError("cut"))
    assert cut.fill(memoryview(buffer)) == 3
    assert bytes(buffer[:3]) == b"abc"
    with pytest.raises(ConnectionResetError):
        cut.fill(memoryview(buffer))
