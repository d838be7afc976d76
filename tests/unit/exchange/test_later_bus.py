"""A parent's server that is away when a node starts: the node works, and is heard once it is there."""

from __future__ import annotations

import asyncio

import pytest

from reuna.core.errors import ServerFailed
from reuna.core.ports import Bus
from reuna.exchange.later_bus import LaterBus
from reuna.sim.bus import MemoryBroker


class Parent:
    """A server that is there when the test says so."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.up = asyncio.Event()
        self.heard: list[bytes] = []

    async def connect(self) -> Bus:
        await self.up.wait()
        return self.broker.connect("edge-1")

    async def hear(self, _subject: str, data: bytes) -> None:
        self.heard.append(data)


async def test_nothing_waits_for_a_server_that_is_away_but_what_is_to_be_stored() -> None:
    parent = Parent()
    bus = LaterBus(parent.connect())
    assert not await bus.publish("hello.edge-1", b"x"), "it certainly stayed here"
    await bus.subscribe("plan.edge-1", parent.hear)
    stopped = await bus.subscribe("plan.edge-1", parent.hear)
    await stopped.stop()
    stored = asyncio.create_task(bus.append("event.edge-1", b"kept", "1"))
    await asyncio.sleep(0)
    assert not stored.done()
    parent.up.set()
    await stored
    await bus.connected()
    await asyncio.sleep(0)
    await parent.broker.connect("fog-1").publish("plan.edge-1", b"plan")
    await asyncio.sleep(0.01)
    assert parent.heard == [b"plan"], "once: the other one was stopped before"
    assert await bus.publish("hello.edge-1", b"x") in (True, False)
    live = await bus.subscribe("more.edge-1", parent.hear)
    await live.stop()
    await bus.close()


async def test_a_bus_that_never_came_is_closed_all_the_same() -> None:
    bus = LaterBus(Parent().connect())
    await bus.subscribe("plan.edge-1", Parent().hear)
    await bus.close()


async def test_what_cannot_be_connected_for_another_reason_is_an_error_of_whoever_waits() -> None:
    async def fails() -> Bus:
        raise ServerFailed("no such file")

    bus = LaterBus(fails())
    with pytest.raises(ServerFailed):
        await bus.connected()
    with pytest.raises(ServerFailed):
        await bus.append("event.edge-1", b"x", "1")
    await bus.close()
