"""Frames between a place and its egress, however they come in, and what ends their line."""

from __future__ import annotations

import asyncio
import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import BadMessage, Unreachable
from reuna.core.records import Terms, Work
from reuna.exchange.link import MAX_FRAME, Done, Frames, Heard, RemoteLink

WORK = Work("r-1", "d" * 64, "training")


class Out(asyncio.Transport):
    """Takes what is written, and whether the line was ended."""

    def __init__(self) -> None:
        self.ended = False

    def write(self, data: object) -> None:
        """Nobody reads it."""

    def abort(self) -> None:
        self.ended = True


def line() -> tuple[Frames, Out]:
    frames, out = Frames(), Out()
    frames.connection_made(out)
    return frames, out


def framed(*messages: msgspec.Struct | bytes) -> bytes:
    whole = [m if isinstance(m, bytes) else msgspec.msgpack.encode(m) for m in messages]
    return b"".join(len(data).to_bytes(4, "little") + data for data in whole)


@given(st.lists(st.binary(max_size=9), max_size=4), st.lists(st.integers(0, 60), max_size=5), st.booleans())
def test_frames_are_the_same_however_they_are_cut_and_whenever_they_are_taken(
    sent: list[bytes], cuts: list[int], late: bool
) -> None:
    (frames, _), came, data = line(), list[bytes | None](), framed(*sent)
    if not late:
        frames.take(came.append)
    for first, last in itertools.pairwise([0, *sorted(cuts), max(60, len(data))]):
        frames.data_received(data[first:last])
    frames.connection_lost(None)
    if late:
        frames.take(came.append)
    assert came == [*sent, None]
    frames.judge()


async def test_plans_reach_their_place_one_after_the_other_and_an_answer_does_not_wait_for_them() -> None:
    (frames, _), heard, gate = line(), list[bytes](), asyncio.Event()
    link = RemoteLink(frames)

    async def handle(plan: bytes, _signed: bytes, _terms: Terms | None) -> None:
        await gate.wait()
        heard.append(plan)

    await link.listen(handle)
    running, asking = asyncio.ensure_future(link.run()), asyncio.ensure_future(link.approved(WORK))
    await asyncio.sleep(0)
    frames.data_received(framed(Heard(b"1", b"", None), Heard(b"2", b"", None), Done(1, terms=Terms(2))))
    assert await asking == Terms(2)
    assert not heard
    gate.set()
    frames.connection_lost(None)
    await running
    assert heard == [b"1", b"2"]


@pytest.mark.parametrize(
    ("came", "why"),
    [
        (framed(b"\xc1"), "cannot be read"),
        ((MAX_FRAME + 1).to_bytes(4, "little"), "a frame of 4000001 bytes"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
async def test_what_cannot_be_read_ends_the_line_and_every_open_call(
    came: bytes, why: str, late: bool
) -> None:
    frames, out = line()
    link = RemoteLink(frames)
    if late:
        frames.data_received(came)
    running, asking = asyncio.ensure_future(link.run()), asyncio.ensure_future(link.approved(WORK))
    await asyncio.sleep(0)
    if not late:
        frames.data_received(came)
    assert out.ended
    frames.data_received(framed(Done(1, terms=Terms())))  # nothing behind it is believed
    frames.connection_lost(None)
    with pytest.raises(BadMessage, match=why):
        await running
    with pytest.raises(Unreachable):
        await asking
