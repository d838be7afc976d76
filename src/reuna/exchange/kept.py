"""Processes of ours beside a place, all started by one small program, again whenever one ends.

    place ── starter (`reuna.exchange.starter`) ─┬─ egress
                                                 └─ reader

Each time that one begins the starter hands over the place's end of a new socket pair to it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from reuna.adapters.processes import end_with_parent
from reuna.core.errors import ReunaError

log = logging.getLogger("reuna.place")
STARTER = ("-I", "-S", str(Path(__file__).with_name("starter.py")))


class Lives(NamedTuple):
    """What is kept running: ``command`` is of Python; ``settings`` are its last word.

    Between two starts are at most ``longest_s``. It alone inherits ``sockets``.
    """

    command: tuple[str, ...]
    settings: str
    longest_s: float
    sockets: Sequence[socket.socket] = ()


class Starting(Protocol):
    """What starts processes of ours, again and again."""

    def terminate(self) -> None:
        """Tell it to end, with what it keeps running."""

    def wait(self) -> int:
        """Until it has ended."""


#: `start_keeping`, or another way to the same.
Keeping = Callable[[Sequence[Lives]], tuple[list[socket.socket], Starting]]


class Companion(Protocol):
    """A process beside a place, as the place sees it."""

    @property
    def what(self) -> str:
        """What logs call it."""

    def lives(self) -> Lives:
        """What is started."""

    async def live(self, ours: socket.socket) -> None:
        """Be at the other end of its line, from its beginning to its end."""


class Companions:
    """Those beside one place, kept running as long as this context lasts.

    ``keeping``: how they are started, `start_keeping` when not said.
    """

    def __init__(self, parts: Sequence[Companion], keeping: Keeping | None = None) -> None:
        self._parts = parts
        self._keeping = keeping or start_keeping
        self._starter: Starting | None = None
        self._lines: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> None:
        """Start what starts them. The place has the sockets no more that they inherit.

        No thread begins here: the place may leave the network next, and only they stay in it.
        """
        lives = [each.lives() for each in self._parts]
        controls, self._starter = self._keeping(lives)
        for each in lives:
            for lent in each.sockets:
                lent.close()
        self._lines = [
            asyncio.create_task(self._keep(each, control))
            for each, control in zip(self._parts, controls, strict=True)
        ]

    async def __aexit__(self, *_: object) -> None:
        """End them, and wait until they have put their things in order."""
        for each in self._lines:
            each.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)
        if self._starter is not None:
            self._starter.terminate()
            await asyncio.to_thread(self._starter.wait)

    async def _keep(self, part: Companion, control: socket.socket) -> None:
        with control:
            while (ours := await next_socket(control)) is not None:
                ours.setblocking(False)
                try:
                    await part.live(ours)
                except Exception as error:  # its next life has a line of its own
                    trace = None if isinstance(error, ReunaError) else error
                    log.error("the line to the %s: %s", part.what, error, exc_info=trace)
                log.warning("%s ended; it is started again", part.what)
        log.error("what starts the %s ended; this place ends too", part.what)
        os.kill(os.getpid(), signal.SIGTERM)


async def next_socket(control: socket.socket) -> socket.socket | None:
    """The place's end of the next socket pair, None when its sender is gone."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(control, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(control)
    _, numbers, _, _ = socket.recv_fds(control, 1, 1)
    return socket.socket(fileno=numbers[0]) if numbers else None


def start_keeping(lives: Sequence[Lives]) -> tuple[list[socket.socket], Starting]:
    """What starts processes of ours, again when one ends, and our end of the line to it for each."""
    ours, theirs = controls(len(lives))
    lent = [each.fileno() for every in lives for each in every.sockets]
    process = subprocess.Popen(
        starter_command(theirs, lives),
        pass_fds=(*(each.fileno() for each in theirs), *lent),
        stdin=subprocess.DEVNULL,
        preexec_fn=end_with_parent,  # noqa: PLW1509 - two system calls, no lock
    )
    for each in theirs:
        each.close()
    return ours, process


def controls(count: int) -> tuple[list[socket.socket], list[socket.socket]]:
    """Lines over which sockets are handed over: the place's ends, and the starter's."""
    pairs = [socket.socketpair() for _ in range(count)]
    for ours, _ in pairs:
        ours.setblocking(False)
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]


def starter_command(
    theirs: Sequence[socket.socket], lives: Sequence[Lives], first: Sequence[int] = ()
) -> list[str]:
    """What runs `reuna.exchange.starter`, with its end of the line to each of ``lives``.

    ``first``: process ids of first lives, which go on.
    """
    words = [sys.executable, *STARTER]
    for control, each, child in zip(theirs, lives, first or [0] * len(lives), strict=True):
        numbers = [control.fileno(), *(lent.fileno() for lent in each.sockets)]
        own = [*each.command, each.settings]
        words += [",".join(map(str, numbers)), str(each.longest_s), str(child), str(len(own)), *own]
    return words
