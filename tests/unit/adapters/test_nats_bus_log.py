"""What asyncio says of nats-py's connections, and is not worth a line in a log."""

from __future__ import annotations

import logging

import pytest

from reuna.adapters.nats_bus import _worth_telling


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("returning true from eof_received() has no effect when using ssl", False),
        ("Task was destroyed", True),
    ],
)
def test_only_the_end_of_a_stream_over_tls_is_no_news(said: str, kept: bool) -> None:
    record = logging.LogRecord("asyncio", logging.WARNING, __file__, 1, said, None, None)
    assert _worth_telling(record) is kept
