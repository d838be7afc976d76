"""How long an honest round takes while bad peers do what they can: slow, silent and greedy ones.

All of them hold the key of edge-2, which itself works on as it should.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from drills.hostile_peers.world import World
from reuna.fleet.ports import HOST

RUNS = 5  #: of which the median counts
SILENT = 8  #: connections that begin no handshake
HEADS = 8  #: that send a head a byte a second
BODIES = 2  #: uploads that trickle; two places are left to the honest one
GREEDY = 4  #: that ask as fast as they are answered
HELLOS_S = 0.001  #: between two hellos
RATIO, CONSTANT_S = 1.2, 0.5  #: a round beside bad peers takes at most so much longer


async def measured(world: World) -> dict[str, float]:
    """Median seconds of a run of one round without bad peers, and with them, in turns; and the ratio."""
    await world.run()  # connections, caches and workers are warm
    calm, beside = [], []
    for _ in range(RUNS):
        calm.append(await _seconds(world))
        async with bad_peers(world):
            beside.append(await _seconds(world))
    without, among = statistics.median(calm), statistics.median(beside)
    return {
        "calm_s": round(without, 3),
        "beside_s": round(among, 3),
        "beside_ratio": round(among / without, 3),
    }


def bounded(found: dict[str, float]) -> bool:
    """Whether the bad peers slowed down nobody else."""
    return found["beside_s"] <= RATIO * found["calm_s"] + CONSTANT_S


async def _seconds(world: World) -> float:
    began = time.monotonic()
    await world.run()
    return time.monotonic() - began


@contextlib.asynccontextmanager
async def bad_peers(world: World) -> AsyncIterator[None]:
    """They are at it for as long as this lasts; who is dropped comes again."""
    kinds: list[tuple[Callable[[World], Awaitable[None]], int]] = [
        (_silent, SILENT), (_slow_head, HEADS), (_slow_body, BODIES), (_greedy, GREEDY), (_says_hello, 1),
    ]  # fmt: skip
    tasks = [asyncio.create_task(_again(kind, world)) for kind, count in kinds for _ in range(count)]
    await asyncio.sleep(1.0)  # they have begun
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _again(kind: Callable[[World], Awaitable[None]], world: World) -> None:
    while True:
        with contextlib.suppress(OSError, EOFError):
            await kind(world)
        await asyncio.sleep(0.1)


async def _silent(world: World) -> None:
    _, writer = await asyncio.open_connection(HOST, world.freight("edge", "edge-2").port)
    with contextlib.closing(writer.transport):
        await asyncio.sleep(60.0)


async def _slow_head(world: World) -> None:
    await _slowly(world, b"GET /v1/trust/timestamp.json HTTP/1.1\r\nX-Slow: ")


async def _slow_body(world: World) -> None:
    await _slowly(world, b"PUT /v1/contributions HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n\x01")


async def _slowly(world: World, begin: bytes) -> None:
    _, writer = await world.freight("edge", "edge-2").open()
    with contextlib.closing(writer.transport):
        writer.write(begin)
        while not writer.is_closing():
            await asyncio.sleep(1.0)
            writer.write(b"\x00" if begin.startswith(b"PUT") else b"x")


async def _greedy(world: World) -> None:
    reader, writer = await world.freight("edge", "edge-2").open()
    with contextlib.closing(writer.transport):
        while True:
            writer.write(b"GET /v1/trust/timestamp.json HTTP/1.1\r\nHost: x\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))


async def _says_hello(world: World) -> None:
    bus = await world.bus("edge", "edge-2")
    while True:
        await bus.publish("hello.edge-2", b"no hello at all")
        await asyncio.sleep(HELLOS_S)
