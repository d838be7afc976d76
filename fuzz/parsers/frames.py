"""`reuna.exchange.link`: frames between a place and its egress, from either side."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import msgspec

from fuzz.kit import DIGEST, EVENT, HELLO, MEMBER, RECEIPT, UPDATE, attempt, run
from reuna.core.errors import BadMessage, ReunaError, Unreachable
from reuna.core.outcomes import Outcome
from reuna.core.ports import Link
from reuna.core.records import Work
from reuna.core.second import Doubtful, Opinion, Opinions, Window
from reuna.exchange import link
from reuna.exchange.link import Call, Done, Frames, Heard, LinkServer, RemoteLink

REQUESTS: tuple[link.Request, ...] = (
    link.Fetch(DIGEST, 10),
    link.Approved(Work("r-1", DIGEST, "training")),
    link.Submit(b"plan", None, 1, MEMBER, 2),
    link.HandOver(b"plan", UPDATE, "no-such-file", b""),
    link.Emit(EVENT),
    link.Say(HELLO),
    link.Below(("e1", "e2")),
    link.Advise(Doubtful("p", 1.0, 1, {"a": ""}, (Window(0, 0, 1, {"a": (bytes(8), b"\1")}),), 1.0)),
    link.Deliver("alarms", 1, [Outcome("p", 1, DIGEST, 1, 3, "answered", 1.0, (0.25, 0.75))]),
)
SAID = Opinions(1, DIGEST, (Opinion(True, False, 1.0, (0.25, 0.75)),))
ANSWERS: tuple[Done | Heard, ...] = (
    Done(1, path="blob", receipt=RECEIPT),
    Done(2, code="R303", reason="plan"),
    Done(1, code="R308", reason="expired", message="too old"),
    Done(1, opinions=SAID),
    Heard(b"p", b"s", None),
)


def seeds() -> Iterator[bytes]:
    calls = [Call(number, request) for number, request in enumerate(REQUESTS)]
    for side, messages in ((b"\0", calls), (b"\1", ANSWERS)):
        for message in messages:
            data = msgspec.msgpack.encode(message)
            yield side + len(data).to_bytes(4, "little") + data


def check(data: bytes) -> None:
    side = _serve if data[:1] < b"\1" else _listen
    attempt(lambda: run(side(data[1:])), BadMessage)


async def _serve(data: bytes) -> None:
    """An egress hears its place; each call it understands has one answer."""
    frames, out = Frames(), _Out()
    frames.connection_made(out)
    server = LinkServer(frames, cast("Link", _Nowhere()), _Nowhere(), _Nowhere(), _Nowhere(), _Nowhere())
    loop, tasks = asyncio.get_running_loop(), []

    def remember(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
        tasks.append(asyncio.Task(work, loop=loop, **more))
        return tasks[-1]

    loop.set_task_factory(remember)
    try:
        serving = asyncio.create_task(server.run())
        await asyncio.sleep(0)
        frames.data_received(data)
        for _ in range(4):
            await asyncio.sleep(0)
        frames.connection_lost(None)
        await serving
    finally:
        loop.set_task_factory(None)
        calls = tasks[1:]
        done = await asyncio.gather(*calls, return_exceptions=True)
    for error in filter(None, done):
        raise cast("BaseException", error)
    assert len(calls) == len(out.frames)


async def _listen(data: bytes) -> None:
    """A place hears its egress."""
    frames = Frames()
    frames.connection_made(_Out())
    place = RemoteLink(frames)
    waiting = [asyncio.ensure_future(work) for work in (place.fetch(DIGEST, 10), place.emit(EVENT))]
    await asyncio.sleep(0)
    frames.data_received(data)
    frames.connection_lost(None)
    try:
        await place.run()
    finally:
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            if isinstance(error, BaseException) and not isinstance(error, ReunaError):
                raise error


class _Out(asyncio.Transport):
    """Takes what is written."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.frames.append(data)

    def abort(self) -> None:
        """Nothing is at the other end."""


class _Nowhere:
    """A link whose parent is away."""

    async def listen(self, handle: object) -> None:
        return

    def __getattr__(self, name: str) -> Any:
        async def away(*_arguments: object) -> None:
            raise Unreachable("nobody is there")

        return away
