"""A fog tells at once who came and went, and its parent asks for the whole when a word was missed."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from reuna.adapters.clock import SystemClock
from reuna.core.errors import BadMessage
from reuna.core.records import Hello
from reuna.core.roster import MOST, PAGES, Roster, RosterAsked
from reuna.core.subjects import child_rights, parent_rights
from reuna.exchange import roster
from reuna.exchange.presence import SOON_S
from reuna.exchange.roster import AGAIN_S, BelowKeeper, Known, Rosters, RosterTeller, Telling
from reuna.sim.bus import MemoryBroker
from reuna.sim.clock import run_virtual
from reuna.wire import LIMITS, decode, encode


def told(look_s: float, until_s: float, changes: tuple[float, ...], takes_s: float = 0.0) -> list[float]:
    """When a fog tells who is below it; ``changes`` is when somebody comes or goes."""

    async def live() -> list[float]:
        loop, moments = asyncio.get_running_loop(), []

        async def tell(_names: object) -> None:
            moments.append(loop.time())
            await asyncio.sleep(takes_s)

        keeper = BelowKeeper(tuple, tell, look_s)
        for moment in changes:
            loop.call_at(moment, keeper.changed)
        keeping = asyncio.create_task(keeper.keep())
        await asyncio.sleep(until_s)
        keeping.cancel()
        return moments

    return run_virtual(live())


def test_who_comes_is_told_at_once_and_those_that_come_together_are_told_together() -> None:
    assert told(3600.0, 3000.0, (900.0, 900.1, 900.2)) == pytest.approx([900.0 + SOON_S])


def test_who_comes_while_a_fog_tells_is_told_after_it() -> None:
    assert told(3600.0, 100.0, (1.0, 1.3), takes_s=0.3) == pytest.approx([1.0 + SOON_S, 1.55 + SOON_S])


def test_where_edges_come_and_go_all_the_time_they_are_told_together() -> None:
    """Planted: else a fog of many edges sends a message for each that comes."""
    moments = told(5.0, 200.0, tuple(float(second) for second in range(1, 200)))
    assert moments[:4] == pytest.approx([1.25, 2.25, 3.25, 4.25])
    late = [after - first for first, after in pairwise(moments) if first > 60.0]
    assert min(late) > 19.0
    assert max(late) < 21.0


def test_where_edges_die_without_a_word_all_the_time_they_are_told_together_too() -> None:
    async def live() -> list[float]:
        loop, moments = asyncio.get_running_loop(), list[float]()

        async def tell(_names: object) -> None:
            moments.append(loop.time())

        keeping = asyncio.create_task(BelowKeeper(lambda: (f"edge-{loop.time():.0f}",), tell, 5.0).keep())
        await asyncio.sleep(300.0)
        keeping.cancel()
        return moments

    moments = run_virtual(live())
    assert moments[:2] == pytest.approx([5.0 + SOON_S, 10.0 + 2 * SOON_S])
    assert all(after - first > 19.0 for first, after in pairwise(moments) if first > 60.0)


def test_who_went_without_a_word_is_looked_for_now_and_then() -> None:
    assert told(5.0, 16.0, ()) == pytest.approx([5.0, 10.0, 15.0])


class Line:
    """A fog's egress and its parent at the two ends of a bus that gives them the rights they have."""

    def __init__(self) -> None:
        rights = {"north": child_rights("north"), "cloud": parent_rights("cloud")}
        broker = MemoryBroker("hub", rights)
        self.clock = SystemClock()
        self.fog, self.cloud = broker.connect("north"), broker.connect("cloud")
        self.teller = RosterTeller("north", "life", self.say, self.clock)
        self.rosters = Rosters(self.cloud, self.clock, {})
        self.said: list[bytes] = []
        self.lost = False

    async def say(self, word: str, data: bytes) -> bool:
        self.said.append(data)
        return self.lost or await self.fog.publish(f"{word}.north", data)

    async def open(self) -> None:
        await self.teller.listen(self.fog)
        await self.cloud.subscribe("roster.>", self.hear)

    async def hear(self, subject: str, data: bytes) -> None:
        assert subject == "roster.north"
        await self.rosters.on_roster("north", data)

    async def hello(self, *names: str) -> Hello:
        """It arrives, and what follows it."""
        hello = await self.teller.in_hello(Hello("north", "b", "1", names, protocol=3))
        await self.settle()
        await self.rosters.on_hello(decode(Hello, encode(hello)))
        await self.settle()
        return hello

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    def held(self) -> list[str]:
        return sorted(self.rosters.held["north"].names)


async def test_a_fog_that_tells_of_more_edges_than_there_may_be_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(roster, "PAGES", 1)
    monkeypatch.setattr(roster, "MOST", 2)
    fog, parent = Telling("life"), Known()
    (two,), (third,) = fog.told(["e1", "e2"]), fog.told(["e1", "e2", "e3"])
    parent.hear(two)
    with pytest.raises(BadMessage, match="3 edges below one fog"):
        parent.hear(third)
    assert parent.names == {"e1", "e2"}


async def test_a_hello_of_a_fog_names_nobody_and_the_parent_knows_them_all_the_same() -> None:
    line = Line()
    await line.open()
    hello = await line.hello("e1", "e2")
    assert hello.children == ()
    assert line.held() == ["e1", "e2"]
    await line.hello("e1", "e2")
    assert len(line.said) == 1, "nothing is new"


async def test_what_was_lost_is_asked_for_after_the_next_hello_and_told_whole() -> None:
    line = Line()
    await line.open()
    await line.hello("e1")
    line.lost = True
    await line.teller.tell(["e1", "e2"])
    line.lost = False
    await line.hello("e1", "e2")
    assert line.held() == ["e1", "e2"]
    assert decode(Roster, line.said[-1]).pages == 1


async def test_a_parent_that_asks_again_and_again_is_answered_once_in_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Planted: without that a parent gone wrong makes a fog say all it knows as fast as the line goes."""
    line = Line()
    await line.open()
    await line.teller.tell(["e1"])
    for _ in range(5):
        await line.cloud.publish("whole.north", encode(RosterAsked()))
    await line.cloud.publish("whole.north", b"what?")
    await line.settle()
    assert [decode(Roster, each).pages for each in line.said] == [0, 1]
    assert "refused a question for who is below" in caplog.text


async def test_a_parent_asks_a_fog_once_in_a_while_however_often_it_hears_that_something_is_missing() -> None:
    line = Line()
    asked: list[bytes] = []

    async def hear(_subject: str, data: bytes) -> None:
        asked.append(data)

    await line.fog.subscribe("whole.north", hear)
    line.lost = True
    for _ in range(5):
        await line.hello("e1", "e2")
    assert len(asked) == 1
    assert AGAIN_S < 5, "it asks again before the next hello of a fog that is calm"


async def test_many_edges_are_told_in_pages_each_within_what_a_message_may_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ["e" * 57 + f"{number:06}" for number in range(2 * MOST + 1)]
    line = Line()
    await line.open()
    await line.hello(*names)
    assert [decode(Roster, each).page for each in line.said] == [0, 1, 2]
    assert max(map(len, line.said)) <= LIMITS[Roster] <= 1_000_000
    assert line.held() == sorted(names)
    monkeypatch.setattr(roster, "PAGES", 2)
    line.said.clear()
    await line.teller.tell(names[: 2 * MOST + 1] + [f"f{number}" for number in range(MOST + 1)])
    assert line.said == [], "more than a parent takes is not begun"
    assert PAGES * MOST > 1_000_000
