"""The reader beside an agent: a process that is kept running. Nothing here loads numpy.

agent ── starter ── reader (`reuna.edge.reader`, in the machine's network)
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable

import msgspec

from reuna.exchange.child import Keeping, Starting, next_socket, start_keeping

log = logging.getLogger("reuna.edge")
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
    """The reader beside an agent: kept running until `stop`. ``on_told`` is awaited for each line of it.

    ``keeping``: how it is started, `start_keeping` when not said.
    """

    def __init__(self, job: Job, on_told: OnTold | None = None, keeping: Keeping | None = None) -> None:
        self._job = job
        self._on_told = on_told
        self._keeping = keeping or start_keeping
        self._starter: Starting | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start what starts it; no thread begins here, for the place may leave the network next."""
        control, self._starter = self._keeping(READER, msgspec.json.encode(self._job).decode(), LONGEST_S)
        self._keeper = asyncio.create_task(self._keep(control))

    async def stop(self) -> None:
        """End it once what came is kept."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._starter is not None:
            self._starter.terminate()
            await asyncio.to_thread(self._starter.wait)

    async def _keep(self, control: socket.socket) -> None:
        with control:
            while (ours := await next_socket(control)) is not None:
                with ours:
                    ours.setblocking(False)
                    await (gone(ours) if self._on_told is None else lines(ours, self._on_told))
                log.warning("reader of %s ended; it is started again", self._job.node)
        log.error("what starts the reader of %s ended; this place ends too", self._job.node)
        os.kill(os.getpid(), signal.SIGTERM)


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
