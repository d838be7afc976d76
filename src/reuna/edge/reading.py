"""The reader beside an agent: a process that is kept running. Nothing here loads numpy.

agent ── starter ─┬─ egress
                  └─ reader (`reuna.edge.reader`, in the machine's network)
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import msgspec

from reuna.exchange.kept import Lives

READER: tuple[str, ...] = ("-m", "reuna.edge.reader")
LONGEST_S = 30.0  #: between two starts of a reader that ends at once
MOST_TOLD = 1 << 20  #: bytes of a line; a reader that says more is not listened to

OnTold = Callable[[bytes], Awaitable[None]]  #: a line that a reader said of itself


class Job(msgspec.Struct, frozen=True):
    """What a reader is told: the node's name, its file of sources, its state folder.

    ``tells``: whether it says how it is.
    """

    node: str
    sources: str
    folder: str
    tells: bool = False


class ReaderProcess:
    """The reader beside an agent, which is kept running. ``on_told`` is awaited for each line of it."""

    def __init__(self, job: Job, on_told: OnTold | None = None) -> None:
        self._job = job
        self._on_told = on_told

    @property
    def what(self) -> str:
        """See `Companion.what`."""
        return f"reader of {self._job.node}"

    def lives(self) -> Lives:
        """See `Companion.lives`."""
        return Lives(READER, msgspec.json.encode(self._job).decode(), LONGEST_S)

    async def live(self, ours: socket.socket) -> None:
        """See `Companion.live`."""
        with ours:
            await (gone(ours) if self._on_told is None else lines(ours, self._on_told))


async def gone(other: socket.socket) -> None:
    """Until the other end of a socket pair is closed."""
    loop = asyncio.get_running_loop()
    while await loop.sock_recv(other, 1024):
        pass


async def lines(other: socket.socket, on_told: OnTold) -> None:
    """Each line from the other end of a socket pair, until it is closed."""
    loop = asyncio.get_running_loop()
    said = b""
    while came := await loop.sock_recv(other, 1 << 16):
        *whole, said = (said + came).split(b"\n")
        for line in whole:
            await on_told(line)
        if len(said) > MOST_TOLD:
            await gone(other)
            return
