"""The egress beside a place: started through `reuna.exchange.starter`, again whenever it ends.

The place talks to it through a `RemoteLink` that outlives restarts: calls that were open when
the egress ended are made again, which is safe because each is idempotent. What it has to say goes
where the place's own log goes: its folder may be on a disk that is full.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from reuna.adapters.processes import end_with_parent
from reuna.core.errors import Unreachable
from reuna.core.figures import Figure
from reuna.core.line import Rates
from reuna.core.notices import Notice
from reuna.core.outcomes import Outcome
from reuna.core.ports import Blob, HandlePlan
from reuna.core.records import Contribution, Event, Hello, Member, Receipt, Rehearsal, ShownHead, Terms, Work
from reuna.core.second import Doubtful, Opinions
from reuna.exchange.link import EgressSettings, Frames, RemoteLink

log = logging.getLogger("reuna.egress")
T = TypeVar("T")
STARTER = ("-S", "-E", str(Path(__file__).with_name("starter.py")))
EGRESS: tuple[str, ...] = ("-m", "reuna.exchange.process")
EGRESS_S = 0.2  #: between two starts of it, at most


class Starting(Protocol):
    """What starts a process of ours, again and again."""

    def terminate(self) -> None:
        """Tell it to end, with what it keeps running."""

    def wait(self) -> int:
        """Until it has ended."""


class Keeping(Protocol):
    """`start_keeping`, or another way to the same."""

    def __call__(
        self, command: tuple[str, ...], settings: str, longest_s: float, sockets: Sequence[socket.socket] = ()
    ) -> tuple[socket.socket, Starting]: ...


class EgressProcess:
    """The `Link` port over an egress process that is kept running.

    ``metrics``: a socket that listens for scrapes, for the egress alone: it is closed here once that began.
    ``keeping``: how it is started, `start_keeping` when not said.
    """

    def __init__(
        self, settings: EgressSettings, metrics: socket.socket | None = None, keeping: Keeping | None = None
    ) -> None:
        number = -1 if metrics is None else metrics.fileno()
        self._settings = msgspec.structs.replace(settings, metrics=number)
        self._metrics = metrics
        self._link: asyncio.Future[RemoteLink] = asyncio.get_running_loop().create_future()
        self._handle: HandlePlan | None = None
        #: Told of bytes of a blob that is slow to come: its digest, those that came, all.
        self.on_comes: Callable[[str, int, int], None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._keeping = keeping or start_keeping
        self._starter: Starting | None = None

    async def start(self) -> None:
        """Start what starts the egress, and keep the link to it until `stop`.

        No thread begins here: the place may leave the network next, and only the egress stays in it.
        """
        settings = msgspec.json.encode(self._settings).decode()
        sockets = () if self._metrics is None else (self._metrics,)
        control, self._starter = self._keeping(EGRESS, settings, EGRESS_S, sockets)
        for each in sockets:
            each.close()
        self._keeper = asyncio.create_task(self._keep(control))

    async def stop(self) -> None:
        """End the process, and wait until it has put its things in order."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._starter is not None:
            self._starter.terminate()
            await asyncio.to_thread(self._starter.wait)

    async def _keep(self, control: socket.socket) -> None:
        with control:
            while (ours := await next_socket(control)) is not None:
                await self._run_once(ours)
                log.warning("egress of %s ended; it is started again", self._settings.name)
        log.error("what starts the egress of %s ended; this place ends too", self._settings.name)
        os.kill(os.getpid(), signal.SIGTERM)

    async def _run_once(self, ours: socket.socket) -> None:
        ours.setblocking(False)
        frames = await Frames.over(ours)
        link = RemoteLink(frames)
        link.on_comes = self.on_comes or link.on_comes
        if self._handle is not None:
            await link.listen(self._handle)
        self._link.set_result(link)
        try:
            await link.run()
        finally:
            self._link = asyncio.get_running_loop().create_future()
            frames.close()

    @property
    def rates(self) -> Rates:
        """What the line up carried last, as far as this egress knows."""
        return self._link.result().rates if self._link.done() else Rates()

    async def listen(self, handle: HandlePlan) -> None:
        self._handle = handle
        if self._link.done():
            await self._link.result().listen(handle)

    async def fetch(self, digest: str, size: int) -> Blob:
        return await self._again(lambda link: link.fetch(digest, size))

    async def approved(self, work: Work) -> Terms:
        return await self._again(lambda link: link.approved(work))

    async def rehearse(self, plan: bytes, samples: int) -> Rehearsal:
        return await self._again(lambda link: link.rehearse(plan, samples))

    async def submit(
        self, plan_bytes: bytes, weights: Blob | None, weight: int, member: Member, level: int = 0
    ) -> Receipt | None:
        return await self._again(lambda link: link.submit(plan_bytes, weights, weight, member, level))

    async def hand_over(self, plan: bytes, manifest: Contribution, body: Blob | None) -> Receipt | None:
        return await self._again(lambda link: link.hand_over(plan, manifest, body))

    async def emit(self, event: Event) -> bool:
        return await self._again(lambda link: link.emit(event))

    async def hello(self, hello: Hello) -> None:
        await self._again(lambda link: link.hello(hello))

    async def below(self, names: Sequence[str]) -> None:
        await self._again(lambda link: link.below(names))

    async def countersign(self, shown: ShownHead) -> bytes:
        return await self._again(lambda link: link.countersign(shown))

    async def certify(self, name: str, under: str, request: bytes) -> Sequence[bytes]:
        return await self._again(lambda link: link.certify(name, under, request))

    async def deliver(self, sink: str, number: int, outcomes: Sequence[Outcome]) -> bool:
        return await self._again(lambda link: link.deliver(sink, number, outcomes))

    async def tell(self, process: str, figures: Sequence[Figure]) -> None:
        await self._again(lambda link: link.tell(process, figures))

    async def warn(self, sink: str, number: int, notices: Sequence[Notice]) -> bool:
        return await self._again(lambda link: link.warn(sink, number, notices))

    async def advise(self, asked: Doubtful) -> Opinions:
        return await self._again(lambda link: link.advise(asked))

    async def _again(self, call: Callable[[RemoteLink], Awaitable[T]]) -> T:
        while True:
            link = await asyncio.shield(self._link)
            try:
                return await call(link)
            except Unreachable:
                if self._link.done() and self._link.result() is link:
                    raise


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


def start_keeping(
    command: tuple[str, ...], settings: str, longest_s: float, sockets: Sequence[socket.socket] = ()
) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """What starts a process of ours, again when it ends, and our end of the line to it.

    ``command`` is of Python; between two starts are at most ``longest_s``. It inherits ``sockets``.
    """
    control, theirs = socket.socketpair()
    control.setblocking(False)
    with theirs:
        process = subprocess.Popen(
            starter_command(theirs.fileno(), longest_s, command, settings),
            pass_fds=(theirs.fileno(), *(each.fileno() for each in sockets)),
            stdin=subprocess.DEVNULL,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - two system calls, no lock
        )
    return control, process


def starter_command(
    number: int, longest_s: float, command: tuple[str, ...], settings: str, first: int = 0
) -> list[str]:
    """What runs `reuna.exchange.starter`. ``number``: its end of the line; ``first``: a life that goes on."""
    return [sys.executable, *STARTER, str(number), str(longest_s), str(first), *command, settings]
