"""What a sender measures, and how its bodies go: packed on a thin line, plain on a fast one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from reuna.core.line import Rates
from reuna.core.records import Contribution, Encoding, Grid, Member, Plan
from reuna.exchange.bodies import integers
from reuna.exchange.link import Frames, LinkServer, RemoteLink
from reuna.exchange.weigher import Weigher
from reuna.learn.grid import LOT, Ints
from reuna.sim.storage import MemorySpool

COUNT = 2 * LOT
THIN, FAST = Rates(8_000.0, 8_000.0), Rates(1e10, 1e10)
BY_LINE = Encoding(by_line=True)
DRAFT = Contribution(
    "r-1", 1, 1, "e1", "ab" * 32, "update", COUNT, 2, 1, "0" * 64, 2 * COUNT, (Member("e1", 1),)
)
VALUES = np.random.default_rng(1).integers(-20, 20, COUNT).astype(np.int16)


def plan(encoding: Encoding | None = BY_LINE) -> Plan:
    return Plan(
        "r-1", 1, 1, "train", "ab" * 32, 4 * COUNT, COUNT, ("e1",), 1, 60.0, Grid(16, -16), 100, 1, 1,
        "cd" * 32, 1, encoding=encoding, step="ef" * 32, step_size=3 * COUNT,
    )  # fmt: skip


class Sender:
    """A weigher whose line is set by hand; its clock goes on by ``lot_s`` for each lot that is packed."""

    def __init__(self, rates: Rates, lot_s: float = 0.001) -> None:
        self.rates = rates
        self._now_s = 0.0
        self._lot_s = lot_s
        self.weigher = Weigher(lambda: self.rates, self._now)

    def _now(self) -> float:
        self._now_s += self._lot_s
        return self._now_s

    def sends(self, asked: Plan) -> Contribution:
        def lots() -> Iterator[Ints]:
            return iter((VALUES[:LOT], VALUES[LOT:]))

        sent, body = self.weigher.write(asked, DRAFT, lots, MemorySpool().begin)
        assert body.digest == sent.digest
        assert np.array_equal(np.concatenate(list(integers(sent, body))), VALUES), "whichever way it went"
        return sent


def test_on_a_thin_line_every_body_goes_packed() -> None:
    sender = Sender(THIN)
    assert all(sender.sends(plan()).packed for _ in range(5))


def test_on_a_fast_line_the_first_body_goes_packed_and_tells_what_that_costs_then_they_go_plain(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sender = Sender(FAST)
    with caplog.at_level("INFO", "reuna.line"):
        assert [sender.sends(plan()).packed for _ in range(4)] == [True, False, False, False]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1, "the same way again is not said again"
    assert said[0].startswith("updates go plain: the line carries 1e+04 MB/s")


def test_a_line_that_becomes_thin_is_packed_for_at_once() -> None:
    sender = Sender(FAST)
    assert [sender.sends(plan()).packed for _ in range(2)] == [True, False]
    sender.rates = THIN
    assert sender.sends(plan()).packed


def test_while_bodies_go_plain_packing_is_tried_again_now_and_then() -> None:
    rate = 1e9
    sender = Sender(Rates(rate), lot_s=1e-4)  # packing a body: 0.2 ms; sending it plain: 0.26 ms
    went = [sender.sends(plan()).packed for _ in range(40)]
    assert 2 <= sum(went[1:]) <= 4
    assert went[1:10] == [False] * 9


def test_where_the_line_says_nothing_all_goes_packed() -> None:
    sender = Sender(Rates())
    assert all(sender.sends(plan()).packed for _ in range(3))


@pytest.mark.parametrize("rates", [THIN, FAST])
def test_what_the_plan_fixes_is_done_whatever_the_line(rates: Rates) -> None:
    sender = Sender(rates)
    assert all(sender.sends(plan(Encoding())).packed for _ in range(3))
    assert not any(sender.sends(plan(None)).packed for _ in range(3))


def test_a_model_comes_as_a_step_on_a_thin_line_and_whole_on_a_fast_one_once_a_step_was_timed() -> None:
    sender = Sender(FAST)
    assert sender.weigher.steps(plan()), "nobody knows yet what a step costs"
    assert sender.weigher.taken(plan(), lambda: "made") == "made"
    assert not sender.weigher.steps(plan())
    assert sender.weigher.steps(plan(Encoding())), "the plan fixes it"
    sender.rates = THIN
    assert sender.weigher.steps(msgspec.structs.replace(plan(), round=2))


async def test_a_place_hears_what_the_line_of_its_egress_carries_and_what_is_slow_to_come() -> None:
    class Above:
        async def listen(self, handle: Any) -> None:
            """Nothing is heard."""

        async def hand_over(self, *_: Any) -> None:
            """It is taken."""

    ours, theirs = socket.socketpair()
    place_frames, egress_frames = await Frames.over(ours), await Frames.over(theirs)
    place, nobody = RemoteLink(place_frames), cast("Any", None)
    egress = LinkServer(
        egress_frames, cast("Any", Above()), nobody, nobody, nobody, nobody, rates=lambda: Rates(5e6, 1e6)
    )
    running = [asyncio.create_task(each.run()) for each in (place, egress)]
    assert place.rates == Rates()
    await place.hand_over(b"", msgspec.structs.replace(DRAFT, size=0), None)
    assert place.rates == Rates(5e6)
    came: asyncio.Queue[tuple[str, int, int]] = asyncio.Queue()
    place.on_comes = lambda *word: came.put_nowait(word)
    egress.comes("ab" * 32, 5, 9)
    assert await came.get() == ("ab" * 32, 5, 9)
    place_frames.close()
    await asyncio.gather(*running)
    egress_frames.close()
