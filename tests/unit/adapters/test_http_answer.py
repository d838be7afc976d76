"""Answers of our own servers, however they come in, and what is none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.adapters.http_answer import HEAD, BadAnswerError, HttpAnswer, Receive

ANSWER = b"HTTP/1.1 409 Conflict\r\nUpload-Offset: 65536\r\nContent-Length: 5\r\n\r\nhello"


def line(*pieces: bytes) -> Receive:
    """What receives these, each as far as there is room, and then the end."""
    waiting = [piece for piece in pieces if piece]

    def receive(buffer: memoryview) -> int:
        if not waiting:
            return 0
        count = min(len(buffer), len(waiting[0]))
        buffer[:count], waiting[0] = waiting[0][:count], waiting[0][count:]
        if not waiting[0]:
            del waiting[0]
        return count

    return receive


def answer_of(*pieces: bytes) -> HttpAnswer:
    receive = line(*pieces)
    return HttpAnswer(receive, receive)


@given(st.lists(st.integers(0, len(ANSWER)), max_size=6), st.integers(1, 9))
def test_an_answer_is_the_same_however_it_is_cut_into_pieces(cuts: list[int], step: int) -> None:
    places = [0, *sorted(cuts), len(ANSWER)]
    answer = answer_of(*(ANSWER[a:b] for a, b in itertools.pairwise(places)))
    assert (answer.status, answer.length, answer.is_last) == (409, 5, False)
    assert answer.header("upload-offset") == "65536"
    assert answer.header("upload-held", "0") == "0"
    assert b"".join(parts(answer, step)) == b"hello"
    assert answer.length == 0
    assert answer.readinto(memoryview(bytearray(1))) == 0


def parts(answer: HttpAnswer, step: int) -> Iterator[bytes]:
    buffer = bytearray(step)
    while count := answer.readinto(memoryview(buffer)):
        yield bytes(buffer[:count])


def test_no_more_is_read_than_is_asked_for() -> None:
    answer = answer_of(ANSWER)
    assert (answer.read(2), answer.length) == (b"he", 3)
    assert answer.read(1_000_000) == b"llo"


@pytest.mark.parametrize(
    ("came", "why"),
    [
        (b"", "the line ended before an answer"),
        (ANSWER[:40], "the line ended before an answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "an answer of no length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "an answer of -1 length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1" + b"0" * 15 + b"\r\n\r\n", "length"),
        (b"HTTP/1.1 2000 OK\r\nContent-Length: 1\r\n\r\n", "begins with"),
        (b"HTTP/2 200\r\nContent-Length: 1\r\n\r\n", "begins with"),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "begins with"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * HEAD, "an endless head"),
    ],
)
def test_what_is_no_answer_of_ours_is_a_line_that_is_cut(came: bytes, why: str) -> None:
    with pytest.raises(BadAnswerError, match=why):
        answer_of(came)


def test_a_body_that_ends_early_is_a_line_that_is_cut_and_no_short_body() -> None:
    with pytest.raises(BadAnswerError, match="2 bytes before the answer did"):
        answer_of(ANSWER[:-2]).read(5)


def test_after_an_answer_that_says_so_or_says_more_than_its_length_the_line_is_not_used_again() -> None:
    closing = ANSWER.replace(b"Upload", b"Connection: close\r\nUpload")
    for came in (closing, ANSWER + b"more"):
        answer = answer_of(came)
        assert answer.is_last
        assert answer.read(9) == b"hello"
