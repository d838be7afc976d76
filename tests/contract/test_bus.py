"""The `Bus` port over a real nats-server with mutual TLS, and in memory: one contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
import pytest_asyncio

from reuna.adapters import nats_bus
from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.clock import SystemClock
from reuna.adapters.events import EventLog
from reuna.adapters.nats_bus import NatsBus, StreamLimits
from reuna.adapters.nats_server import LeafConfig, NatsServer, find_server
from reuna.adapters.register import Register
from reuna.adapters.tls import client_context
from reuna.cloud.actions import Coordinator
from reuna.cloud.hearing import take_event
from reuna.core.errors import BadMessage, BusDown, PermissionDenied
from reuna.core.records import Event
from reuna.core.subjects import MAX_PAYLOAD, child_rights, parent_rights
from reuna.exchange.admission import Admission
from reuna.fleet.ports import free_ports
from reuna.sim.bus import MemoryBroker, MemoryBus
from reuna.wire import encode

pytestmark = pytest.mark.asyncio
EDGES = ("plant-1", "plant-2")
SOON_S = 10.0
AnyBus = NatsBus | MemoryBus


class Site(Protocol):
    """A gateway's server with two edges, real or not."""

    async def connect(self, name: str, append_timeout_s: float | None = 5.0) -> AnyBus: ...
    async def stop(self) -> None: ...
    async def start(self) -> None: ...


class MemorySite:
    def __init__(self) -> None:
        rights = {"north": parent_rights("north")} | {edge: child_rights(edge) for edge in EDGES}
        self._broker = MemoryBroker("north", rights)
        self._open: list[AnyBus] = []

    async def connect(self, name: str, append_timeout_s: float | None = 5.0) -> AnyBus:
        self._open.append(self._broker.connect(name, append_timeout_s))
        return self._open[-1]

    async def stop(self) -> None:
        self._broker.stop()

    async def start(self) -> None:
        self._broker.start()

    async def end(self) -> None:
        for bus in self._open:
            await bus.close()


class NatsSite:
    def __init__(self, folder: Path, limits: StreamLimits | None = None) -> None:
        self._limits = limits
        self._authority = CertificateAuthority.create(folder / "pki", "demo")
        (self._port,) = free_ports(1)
        tls = self._authority.issue("gateway", "north", ["127.0.0.1"], site="north")
        config = LeafConfig("demo", "north", EDGES, "127.0.0.1", self._port, tls)
        self._server = NatsServer(find_server(), config, folder / "nats")
        self._open: list[AnyBus] = []

    async def connect(
        self, name: str, append_timeout_s: float | None = 5.0, busy: Callable[[], bool] = lambda: False
    ) -> NatsBus:
        role = "gateway" if name == "north" else "edge"
        pair = self._authority.pair(role, name)
        if role == "edge":
            pair = self._authority.issue(role, name, site="north")
        tls = client_context(pair.certificate, pair.key, pair.authority)
        url = f"tls://127.0.0.1:{self._port}"
        bus = await NatsBus.connect(
            url, tls, name, append_timeout_s=append_timeout_s, limits=self._limits, busy=busy
        )
        self._open.append(bus)
        return bus

    async def stop(self) -> None:
        await self._server.stop()

    async def start(self) -> None:
        await self._server.start()

    async def end(self) -> None:
        for bus in self._open:
            await bus.close()
        await self._server.stop()


@pytest_asyncio.fixture(params=["memory", "nats"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    made = MemorySite() if request.param == "memory" else NatsSite(tmp_path)
    await made.start()
    try:
        yield made
    finally:
        await made.end()


class Heard:
    """A handler that keeps what it got and lets a test wait for it."""

    def __init__(self, fails: int = 0) -> None:
        self.words: list[tuple[str, bytes]] = []
        self._fails = fails
        self._more = asyncio.Condition()

    async def __call__(self, subject: str, data: bytes) -> None:
        async with self._more:
            self.words.append((subject, data))
            self._more.notify_all()
        if len(self.words) <= self._fails:
            raise RuntimeError("planted")

    async def count(self, number: int) -> list[tuple[str, bytes]]:
        async with asyncio.timeout(SOON_S), self._more:
            await self._more.wait_for(lambda: len(self.words) >= number)
        return self.words


async def test_a_published_word_reaches_who_listens(site: Site) -> None:
    gateway, edge = await site.connect("north"), await site.connect("plant-1")
    heard = Heard()
    await edge.subscribe("plan.plant-1", heard)
    await gateway.publish("plan.plant-1", b"go")
    assert await heard.count(1) == [("plan.plant-1", b"go")]


async def test_a_wildcard_hears_every_node_and_nothing_else(site: Site) -> None:
    gateway = await site.connect("north")
    heard, events = Heard(), Heard()
    await gateway.subscribe("hello.>", heard)
    await gateway.subscribe("event.*", events)
    for edge in EDGES:
        bus = await site.connect(edge)
        await bus.publish(f"event.{edge}", b"e")
        await bus.publish(f"hello.{edge}", b"h")
    assert sorted(await heard.count(2)) == [("hello.plant-1", b"h"), ("hello.plant-2", b"h")]
    assert sorted(await events.count(2)) == [("event.plant-1", b"e"), ("event.plant-2", b"e")]


async def test_words_arrive_in_the_order_they_were_published(site: Site) -> None:
    gateway, edge = await site.connect("north"), await site.connect("plant-1")
    heard = Heard()
    await gateway.subscribe("hello.>", heard)
    for number in range(200):
        await edge.publish("hello.plant-1", b"%d" % number)
    words = await heard.count(200)
    assert [data for _, data in words] == [b"%d" % number for number in range(200)]


async def test_a_handler_that_raises_loses_that_word_only(site: Site) -> None:
    gateway, edge = await site.connect("north"), await site.connect("plant-1")
    heard = Heard(fails=1)
    await gateway.subscribe("hello.>", heard)
    await edge.publish("hello.plant-1", b"1")
    await edge.publish("hello.plant-1", b"2")
    assert [data for _, data in await heard.count(2)] == [b"1", b"2"]


async def test_a_stopped_subscription_hears_nothing_more(site: Site) -> None:
    gateway, edge = await site.connect("north"), await site.connect("plant-1")
    stopped, heard = Heard(), Heard()
    subscription = await gateway.subscribe("hello.>", stopped)
    await gateway.subscribe("hello.plant-1", heard)
    await subscription.stop()
    await edge.publish("hello.plant-1", b"1")
    await heard.count(1)
    assert stopped.words == []


async def test_what_was_appended_before_anybody_followed_is_delivered(site: Site) -> None:
    gateway = await site.connect("north")
    first = await gateway.follow("event.>", "up", Heard())
    await first.stop()
    edge = await site.connect("plant-1")
    for number in range(5):
        await edge.append("event.plant-1", b"%d" % number, f"m{number}")
    heard = Heard()
    await gateway.follow("event.>", "up", heard)
    assert [data for _, data in await heard.count(5)] == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_follower_goes_on_where_its_dead_process_stopped(site: Site) -> None:
    gateway, edge = await site.connect("north"), await site.connect("plant-1")
    before = Heard()
    await gateway.follow("event.>", "up", before)
    await edge.append("event.plant-1", b"1", "m1")
    await edge.append("event.plant-1", b"2", "m2")
    await before.count(2)
    await edge.append("event.plant-1", b"3", "m3")
    await before.count(3)
    await gateway.close()
    await edge.append("event.plant-1", b"4", "m4")
    after = Heard()
    again = await site.connect("north")
    await again.follow("event.>", "up", after)
    while (await after.count(1))[-1][1] != b"4":
        await after.count(len(after.words) + 1)
    assert [data for _, data in after.words] in ([b"4"], [b"3", b"4"])


async def test_a_message_in_hand_when_the_process_dies_comes_again(site: Site) -> None:
    gateway, edge = await site.connect("north"), await site.connect("plant-1")
    taken, never = asyncio.Event(), asyncio.Event()

    async def hang(_subject: str, _data: bytes) -> None:
        taken.set()
        await never.wait()

    await gateway.follow("event.>", "up", hang)
    await edge.append("event.plant-1", b"1", "m1")
    await asyncio.wait_for(taken.wait(), SOON_S)
    await gateway.close()
    heard = Heard()
    again = await site.connect("north")
    await again.follow("event.>", "up", heard)
    assert await heard.count(1) == [("event.plant-1", b"1")]


async def test_a_message_whose_handler_raised_comes_again_before_the_next(site: Site) -> None:
    gateway, edge = await site.connect("north"), await site.connect("plant-1")
    heard = Heard(fails=2)
    await gateway.follow("event.>", "up", heard)
    await edge.append("event.plant-1", b"1", "m1")
    await edge.append("event.plant-1", b"2", "m2")
    assert [data for _, data in await heard.count(4)] == [b"1", b"1", b"1", b"2"]


async def test_an_id_appended_twice_is_stored_once(site: Site) -> None:
    gateway, edge = await site.connect("north"), await site.connect("plant-1")
    heard = Heard()
    await gateway.follow("event.>", "up", heard)
    for data, msg_id in ((b"1", "m1"), (b"1", "m1"), (b"2", "m2"), (b"1", "m1"), (b"3", "m3")):
        await edge.append("event.plant-1", data, msg_id)
    assert [data for _, data in await heard.count(3)] == [b"1", b"2", b"3"]


async def test_followed_messages_come_in_order_of_storing(site: Site) -> None:
    gateway = await site.connect("north")
    edges = [await site.connect(edge) for edge in EDGES]
    heard = Heard()
    await gateway.follow("event.>", "up", heard)
    for number in range(50):
        for edge in edges:
            await edge.append(f"event.{edge.name}", b"%d" % number, f"{edge.name}-{number}")
    words = await heard.count(100)
    expected = [(f"event.{edge}", b"%d" % number) for number in range(50) for edge in EDGES]
    assert words == expected


async def test_two_followers_may_not_share_a_subject(site: Site) -> None:
    gateway = await site.connect("north")
    await gateway.follow("event.>", "up", Heard())
    with pytest.raises(PermissionDenied):
        await gateway.follow("event.plant-1", "other", Heard())


async def test_append_waits_for_a_server_that_is_away(site: Site) -> None:
    gateway, edge = await site.connect("north"), await site.connect("plant-1", None)
    heard = Heard()
    await gateway.follow("event.>", "up", heard)
    await site.stop()
    appending = asyncio.ensure_future(edge.append("event.plant-1", b"1", "m1"))
    done, _ = await asyncio.wait({appending}, timeout=0.1)
    assert not done
    await site.start()
    await asyncio.wait_for(appending, SOON_S)
    assert await heard.count(1) == [("event.plant-1", b"1")]


async def test_append_says_so_when_the_server_stays_away(site: Site) -> None:
    edge = await site.connect("plant-1", append_timeout_s=0.3)
    await site.stop()
    with pytest.raises(BusDown):
        await edge.append("event.plant-1", b"1", "m1")


async def test_stored_messages_and_listeners_survive_a_restart_of_the_server(site: Site) -> None:
    gateway, edge = await site.connect("north"), await site.connect("plant-1")
    first = await gateway.follow("event.>", "up", Heard())
    await first.stop()
    hellos = Heard()
    await gateway.subscribe("hello.>", hellos)
    await edge.append("event.plant-1", b"1", "m1")
    await site.stop()
    await site.start()
    await edge.append("event.plant-1", b"1", "m1")  # stored before: known still
    await edge.append("event.plant-1", b"2", "m2")
    heard = Heard()
    await gateway.follow("event.>", "up", heard)
    assert [data for _, data in await heard.count(2)] == [b"1", b"2"]
    await edge.publish("hello.plant-1", b"h")
    assert await hellos.count(1) == [("hello.plant-1", b"h")]


async def test_publishing_while_the_server_is_away_is_lost_quietly(site: Site) -> None:
    gateway, edge = await site.connect("north"), await site.connect("plant-1", None)
    await gateway.follow("event.>", "up", Heard())
    heard = Heard()
    await gateway.subscribe("hello.>", heard)
    await site.stop()
    if isinstance(edge, NatsBus):
        await edge.offline()
    assert not await edge.publish("hello.plant-1", b"lost")
    await site.start()
    await edge.append("event.plant-1", b"1", "m1")  # the line is back
    if isinstance(gateway, NatsBus):
        await gateway.online()
    assert await edge.publish("hello.plant-1", b"h")
    assert await heard.count(1) == [("hello.plant-1", b"h")]


async def test_a_node_cannot_speak_under_another_name(site: Site) -> None:
    gateway, edge = await site.connect("north"), await site.connect("plant-1")
    heard = Heard()
    await gateway.follow("event.>", "up", Heard())
    await gateway.subscribe("hello.>", heard)
    await edge.publish("hello.plant-2", b"forged")
    with pytest.raises(PermissionDenied):
        await edge.append("event.plant-2", b"forged", "m1")
    await edge.publish("hello.plant-1", b"own")
    assert await heard.count(1) == [("hello.plant-1", b"own")]
    assert edge.violations == 2


async def test_a_node_cannot_read_what_is_meant_for_another(site: Site) -> None:
    edge = await site.connect("plant-1")
    for subject in ("plan.plant-2", "plan.>", ">", "_INBOX.plant-2.>", "_INBOX.>", "event.>"):
        with pytest.raises(PermissionDenied):
            await edge.subscribe(subject, Heard())


async def test_a_word_of_more_than_the_limit_is_refused(site: Site) -> None:
    edge = await site.connect("plant-1")
    with pytest.raises(BadMessage):
        await edge.publish("hello.plant-1", bytes(MAX_PAYLOAD + 1))
    with pytest.raises(BadMessage):
        await edge.append("event.plant-1", bytes(MAX_PAYLOAD + 1), "m1")


async def test_a_node_that_fills_its_part_of_the_stream_leaves_that_of_others_free(tmp_path: Path) -> None:
    site = NatsSite(tmp_path, StreamLimits(max_each=3))
    await site.start()
    try:
        gateway = await site.connect("north")
        greedy, other = [await site.connect(name, append_timeout_s=1.0) for name in EDGES[:2]]
        first = await gateway.follow("event.>", "up", Heard())
        await first.stop()
        for number in range(3):
            await greedy.append(f"event.{EDGES[0]}", b"x", f"m{number}")
        with pytest.raises(BusDown):
            await greedy.append(f"event.{EDGES[0]}", b"x", "m4")
        await other.append(f"event.{EDGES[1]}", b"y", "n1")
        heard = Heard()
        await gateway.follow("event.>", "up", heard)
        assert len(await heard.count(4)) == 4
        await greedy.append(f"event.{EDGES[0]}", b"x", "m4")
    finally:
        await site.end()


async def test_an_event_that_comes_again_after_the_servers_memory_of_it_takes_effect_once(
    tmp_path: Path,
) -> None:
    """Days later in the field; here the server remembers ids for the shortest time it can."""
    site, clock, nothing = NatsSite(tmp_path, StreamLimits(duplicate_window_s=0.1)), SystemClock(), None
    events, register = EventLog(tmp_path / "events.sqlite"), Register(tmp_path / "register.sqlite")
    admission = Admission("demo", "edge", "north", register, EDGES, clock)
    cloud = Coordinator("cloud", nothing, events, nothing, admission, nothing, nothing)  # type: ignore[arg-type]  # not asked
    heard, data = Heard(), encode(Event("plant-1", "b1", 1, 0.0, "sat out", "r-1", 1))

    async def take(subject: str, word: bytes) -> None:
        await take_event(cloud, admission, events, subject, word)
        await heard(subject, word)

    await site.start()
    try:
        gateway, edge = await site.connect("north"), await site.connect("plant-1")
        await gateway.follow("event.>", "north", take)
        async with asyncio.timeout(6 * SOON_S):
            while len(heard.words) < 3:  # appended until the server has forgotten it, twice
                await edge.append("event.plant-1", data, "plant-1.b1.1")
        assert set(heard.words) == {("event.plant-1", data)}
        assert [event.seq for event in events.read("r-1")] == [1]
    finally:
        await site.end()
        events.close()
        register.close()


class Freight:
    """What moves on the same line, and how often the bus has looked at it."""

    def __init__(self) -> None:
        self.moves, self.looks, self.looked = True, 0, asyncio.Event()

    def __call__(self) -> bool:
        self.looks += 1
        if self.looks >= 10:
            self.looked.set()
        return self.moves


@dataclass
class Shared:
    """A line that words share with freight."""

    site: NatsSite
    bus: NatsBus
    freight: Freight

    async def cut(self) -> None:
        """The server goes away and is there again."""
        await self.site.stop()
        await self.site.start()


@pytest_asyncio.fixture
async def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shared]:
    monkeypatch.setattr(nats_bus, "BUSY_LOOK_S", 0.01)
    site, freight = NatsSite(tmp_path), Freight()
    await site.start()
    try:
        yield Shared(site, await site.connect("plant-1", busy=freight), freight)
    finally:
        await site.end()


async def test_after_a_cut_words_wait_while_freight_moves_and_then_connect(shared: Shared) -> None:
    await shared.cut()
    async with asyncio.timeout(SOON_S):
        await shared.freight.looked.wait()
        assert not shared.bus.connected, "the server is there again, and the line is left to the freight"
        shared.freight.moves = False
        await shared.bus.online()


async def test_freight_that_moves_for_ever_keeps_words_waiting_for_a_stated_time(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_bus, "AFTER_S", 0.05)
    await shared.cut()
    async with asyncio.timeout(SOON_S):
        await shared.bus.offline()
        await shared.bus.online()
    assert shared.freight.moves
