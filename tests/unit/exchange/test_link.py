"""Frames between a place and its egress, however they come in, and what ends their line."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from reuna.adapters.files import HeldBlob
from reuna.core.errors import BadMessage, Unreachable
from reuna.core.records import Contribution, Member, Receipt, Terms, Work
from reuna.exchange.link import MAX_FRAME, PLANS, Call, Done, Frames, Heard, LinkServer, RemoteLink

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
    with pytest.raises(Unreachable):  # and every later one
        await asyncio.wait_for(link.approved(WORK), 5)


def test_of_frames_that_waited_none_behind_a_wrong_one_is_handed_on() -> None:
    frames, out = line()
    seen: list[bytes | None] = []

    def take(frame: bytes | None) -> None:
        seen.append(frame)
        if frame == b"wrong":
            raise BadMessage("wrong")

    frames.data_received(framed(b"good", b"wrong", b"behind"))
    frames.connection_lost(None)
    frames.take(take)
    assert seen == [b"good", b"wrong", None]
    assert out.ended


# --- plans that crossed the line -------------------------------------------------------------


class Above:
    """What an egress sends: the plans that it was asked to answer."""

    def __init__(self) -> None:
        self.answered: list[tuple[bytes, object]] = []

    async def listen(self, handle: Any) -> None:
        """Plans are heard where a test says so."""

    async def submit(self, plan: bytes, weights: Any, *_: object) -> Receipt | None:
        self.answered.append((plan, weights and weights.data))
        return None

    async def hand_over(self, plan: bytes, manifest: Contribution, _body: object) -> Receipt | None:
        self.answered.append((plan, manifest.sender))
        return None


class Pair:
    """A place and its egress over one line, and how large what the place wrote is."""

    def __init__(self, place: Frames, egress: Frames) -> None:
        nobody = cast("Any", None)
        self.above, self.heard, self.written = Above(), asyncio.Queue[bytes](), list[Call]()
        self.place = RemoteLink(place)
        self.egress = LinkServer(egress, cast("Any", self.above), nobody, nobody, nobody, nobody)
        write = place.write

        def noted(message: Any) -> None:
            self.written.append(message)
            write(message)

        place.write = noted  # type: ignore[method-assign]

    async def tell(self, *plans: bytes) -> None:
        for plan in plans:
            await self.egress._heard(plan, b"", None)
        for plan in plans:
            assert await self.heard.get() == plan

    async def submit(self, plan: bytes) -> None:
        await self.place.submit(plan, HeldBlob(b"w", ""), 1, Member("a"))


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    frames = [await Frames.over(end) for end in socket.socketpair()]
    found = Pair(*frames)

    async def heard(plan: bytes, _signed: bytes, _terms: Terms | None) -> None:
        found.heard.put_nowait(plan)

    await found.place.listen(heard)
    running = [asyncio.create_task(each.run()) for each in (found.place, found.egress)]
    yield found
    for each in frames:
        each.close()
    await asyncio.gather(*running)


SUM = Contribution("r-1", 1, 1, "fog", "p" * 64, "partial", 1, 1, 1, "", 0, ())


async def test_an_answer_names_the_plan_that_came_over_the_line_and_does_not_send_it_back(pair: Pair) -> None:
    await pair.tell(b"one" * 999, b"two" * 999)
    await pair.submit(b"two" * 999)
    await pair.submit(b"one" * 999)
    await pair.place.hand_over(b"two" * 999, SUM, None)
    assert pair.above.answered == [(b"two" * 999, b"w"), (b"one" * 999, b"w"), (b"two" * 999, "fog")]
    assert max(len(msgspec.msgpack.encode(call)) for call in pair.written) < 999


async def test_a_plan_that_came_over_another_line_is_sent_whole(pair: Pair) -> None:
    await pair.tell(b"new")
    await pair.submit(b"of before the egress began again")
    assert pair.above.answered == [(b"of before the egress began again", b"w")]
    assert len(pair.written) == 1


async def test_a_plan_that_the_egress_has_forgotten_is_sent_whole_and_answered_once(pair: Pair) -> None:
    await pair.tell(b"old")
    for number in range(PLANS):  # they are on their way while the place answers
        pair.egress._crossed.add(b"%d" % number)
    await pair.submit(b"old")
    assert pair.above.answered == [(b"old", b"w")]
    assert len(pair.written) == 2
