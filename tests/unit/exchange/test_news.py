"""News of metadata: a hint from the parent, that costs little when it is a lie."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from reuna.adapters.trust_store import TrustStore
from reuna.core.errors import PermissionDenied
from reuna.core.records import Hello, News
from reuna.core.subjects import Rights, child_rights, parent_rights
from reuna.exchange.news import NewsDesk, Published, listen
from reuna.exchange.trust import HASTY_S, SOON_S, TrustGuard
from reuna.sim.bus import MemoryBroker
from reuna.wire import encode
from tests.unit.exchange.test_trust import Clock, Parent, open_guard
from tests.unit.trust.house import House


class Site:
    """A parent and its edges e1 and e2 over a bus with the rights that servers have."""

    def __init__(self, folder: Path, house: House) -> None:
        rights = {"north": parent_rights("north"), "e1": child_rights("e1"), "e2": child_rights("e2")}
        self.broker = MemoryBroker("north", rights)
        self.bus = self.broker.connect("north")
        self.clock, self.version = Ticks(), 1
        self.desk = NewsDesk(self.bus, lambda: self.version, lambda: ("e1", "e2"), self.clock)
        self.parent, self.house, self.folder = Parent(house), house, folder
        self.heard: list[tuple[str, bytes]] = []

    async def open(self) -> None:
        for node in ("e1", "e2"):
            bus = self.broker.connect(node)
            await bus.subscribe(f"news.{node}", self._note)

    async def _note(self, subject: str, data: bytes) -> None:
        self.heard.append((subject, data))

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


class Ticks:
    """A clock whose naps end when a test says so."""

    def __init__(self) -> None:
        self.at, self.naps = 0.0, asyncio.Queue[asyncio.Future[None]]()

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.naps.put_nowait(waiting)
        await waiting
        self.at += seconds

    async def tick(self) -> None:
        (await self.naps.get()).set_result(None)


async def test_every_child_is_told_of_a_change_and_once(tmp_path: Path) -> None:
    site, turns = Site(tmp_path, House()), list[int]()
    await site.open()
    keeping = asyncio.create_task(site.desk.keep(lambda: turns.append(site.version)))
    try:
        await site.clock.tick()
        site.version = 2
        await site.clock.tick()
        await site.clock.tick()
        await site.settle()
        word = encode(News(2))
        assert sorted(site.heard) == [("news.e1", word), ("news.e2", word)]
        assert turns == [2]
    finally:
        keeping.cancel()


async def test_a_child_that_was_away_is_told_at_its_next_hello_and_then_not_again(tmp_path: Path) -> None:
    site = Site(tmp_path, House())
    await site.open()
    for boot, version in (("b1", 1), ("b1", 1), ("b1", 2), ("b2", 2), ("b2", 2)):
        site.version = version
        await site.desk.on_hello(Hello("e1", boot, "0"))
    await site.settle()
    assert site.heard == [("news.e1", encode(News(version))) for version in (1, 2, 2)]


async def test_nobody_but_the_parent_can_send_news(tmp_path: Path) -> None:
    site = Site(tmp_path, House())
    await site.open()
    edge = site.broker.connect("e1")
    for node in ("e1", "e2"):
        with pytest.raises(PermissionDenied):
            await edge.subscribe("news.e2", site._note)
        await edge.publish(f"news.{node}", encode(News(9)))
    await site.settle()
    assert site.heard == []


class Walker:
    """A node under way: its guard keeps fresh from a parent, by a clock that a test turns."""

    def __init__(self, folder: Path, house: House) -> None:
        self.clock, self.parent = Turned(), Parent(house)
        self.guard = open_guard(folder, house, self.clock)
        self.keeping = asyncio.create_task(self.guard.keep_fresh(self.parent.fetch, 3600.0))

    async def walks_within(self, seconds: float) -> int:
        """Walks begun while so much time goes by."""
        before = self.begun
        await self.clock.turn(seconds)
        return self.begun - before

    @property
    def begun(self) -> int:
        return sum(name == "timestamp.json" for name, _ in self.parent.asked)


class Turned(Clock):
    """Time goes on only when a test says so, in the order of what waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[float, asyncio.Future[None]]] = []

    async def sleep(self, seconds: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((self.at + seconds, done))
        await done

    async def turn(self, seconds: float) -> None:
        end = self.at + seconds
        while True:
            for _ in range(20):
                await asyncio.sleep(0)
            self.waiting = [each for each in self.waiting if not each[1].done()]
            due = min((when for when, _ in self.waiting), default=end + 1)
            if due > end:
                break
            self.at = max(self.at, due)
            for when, done in self.waiting:
                if when <= self.at and not done.done():
                    done.set_result(None)
        self.at = end


async def test_news_bring_new_metadata_within_a_moment(tmp_path: Path) -> None:
    house = House()
    node = Walker(tmp_path, house)
    try:
        await node.clock.turn(120.0)
        walked = node.begun
        house.online()
        node.guard.hear(News(2))
        await node.clock.turn(0.0)
        assert node.begun == walked + 1
        assert node.guard.version() == 2
        house.online()
        node.guard.hear(News(3))
        await node.clock.turn(HASTY_S)
        assert node.guard.version() == 3, "the one after it waits a moment and no more"
    finally:
        node.keeping.cancel()


async def test_what_a_node_has_already_is_no_news(tmp_path: Path) -> None:
    node = Walker(tmp_path, House())
    try:
        await node.clock.turn(60.0)
        node.guard.hear(News(1))
        assert await node.walks_within(60.0) == 0
    finally:
        node.keeping.cancel()


async def test_a_flood_of_lies_costs_a_walk_each_ten_seconds_and_no_more(tmp_path: Path) -> None:
    node = Walker(tmp_path, House())
    try:
        await node.clock.turn(60.0)
        walked = 0
        for _ in range(1000):
            node.guard.hear(News(2**40))
            walked += await node.walks_within(0.6)
        assert 2 < walked <= 600 / SOON_S + 5
        assert node.guard.version() == 1, "nothing of it is believed"
    finally:
        node.keeping.cancel()


async def test_news_while_the_parent_is_away_are_tried_again(tmp_path: Path) -> None:
    house = House()
    node = Walker(tmp_path, house)
    try:
        await node.clock.turn(60.0)
        house.online()
        node.parent.away = True
        node.guard.hear(News(2))
        await node.clock.turn(5.0)
        node.parent.away = False
        await node.clock.turn(SOON_S)
        assert node.guard.version() == 2
    finally:
        node.keeping.cancel()


async def test_what_is_no_news_is_dropped(tmp_path: Path) -> None:
    house = House()
    guard = open_guard(tmp_path, house)
    await guard.refresh(Parent(house).fetch)
    broker = MemoryBroker()
    await listen(broker.connect("e1"), "e1", guard)
    parent = broker.connect("north")
    for data in (b"", b"\x01\x08", b"\x01\x08" + bytes(100), b"\x02\x08\x81", encode(Hello("e1", "b", "0"))):
        await parent.publish("news.e1", data)
    await parent.publish("news.e1", encode(News(7)))
    async with asyncio.timeout(5):
        await guard._heard.wait()


async def test_a_parent_of_a_version_before_news_costs_nothing_but_news(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = MemoryBroker("north", {"e1": Rights(("hello.e1",), ("plan.e1",))})
    await listen(broker.connect("e1"), "e1", open_guard(tmp_path, House()))
    assert "looks every hour" in caplog.text


async def test_a_fog_tells_its_edges_once_it_can_give_them_all_of_it(tmp_path: Path) -> None:
    """The file that changes last says when: the timestamp itself is written before what it names."""
    house = House()
    store = TrustStore(tmp_path)
    guard = TrustGuard.open(store, house.begin().fleet, house.pin, Clock())
    published = Published(tmp_path / "files" / "timestamp.json", tmp_path / "state")
    assert published.version() == 0
    await guard.refresh(Parent(house).fetch)
    assert published.version() == 1
    house.online()
    (tmp_path / "files" / "timestamp.json").write_bytes(house.files["timestamp.json"])
    assert published.version() == 1
    await guard.refresh(Parent(house).fetch)
    assert published.version() == 2


@pytest.mark.parametrize("data", [b"", b"{", b'{"signed":{}}', b"\xff", b'{"signed":{"version":"1"}}'])
def test_a_timestamp_that_cannot_be_read_is_no_news(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "timestamp.json"
    file.write_bytes(data)
    assert Published(file, file).version() == 0
