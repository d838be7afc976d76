"""`reuna.adapters.https_server`: the numbers in a request's headers."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

from fuzz.kit import attempt
from reuna.adapters.https_server import _offset, _range_start
from reuna.core.errors import Refused

SIZES = (0, 1, 1000, 2**40)


def seeds() -> Iterator[bytes]:
    yield from (b"bytes=0-", b"bytes=999-", b"bytes=5-9", b"bytes=-5", b"17", b"0" * 15, b"\xb2")


def check(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")  # as the server's parser hands it over
    for size in SIZES:
        start = _range_start(text, size)
        assert start is None or 0 <= start < size or start == 0
    request = SimpleNamespace(headers={"Upload-Offset": text})
    offset = attempt(lambda: _offset(cast("Any", request)), Refused)
    assert offset is None or 0 <= offset < 10**15
