"""Starts the egress beside a place and starts it again when it ends.

The place talks to it through a `RemoteLink` that outlives restarts: calls that were open when
the egress ended are made again, which is safe because each is idempotent. What it has to say goes
where the place's own log goes: its folder may be on a disk that is full.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from reuna.adapters.processes import end_with_parent
from reuna.core.errors import Unreachable
from reuna.core.ports import Blob, HandlePlan
from reuna.core.records import Contribution, Event, Hello, Member, Receipt, ShownHead, Terms, Work
from reuna.exchange.link import EgressSettings, Frames, RemoteLink

log = logging.getLogger("reuna.egress")
T = TypeVar("T")
RESTART_S = 0.2


class EgressProcess:
    """The `Link` port over an egress process that is kept running."""

    def __init__(self, settings: EgressSettings) -> None:
        self._settings = settings
        self._link: asyncio.Future[RemoteLink] = asyncio.get_running_loop().create_future()
        self._handle: HandlePlan | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.pid = 0

    async def start(self) -> None:
        """Start the process and keep it running until `stop`."""
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End the process."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            await self._run_once()
            log.warning("egress of %s ended; starting it again", self._settings.name)
            await asyncio.sleep(RESTART_S)

    async def _run_once(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "reuna.exchange.process",
            str(theirs.fileno()),
            msgspec.json.encode(self._settings).decode(),
            pass_fds=(theirs.fileno(),),
            stdin=asyncio.subprocess.DEVNULL,
            preexec_fn=end_with_parent,
        )
        theirs.close()
        self.pid = process.pid
        frames = await Frames.over(ours)
        link = RemoteLink(frames)
        if self._handle is not None:
            await link.listen(self._handle)
        self._link.set_result(link)
        try:
            await link.run()
        finally:
            self._link = asyncio.get_running_loop().create_future()
            frames.close()
            if process.returncode is None:
                process.terminate()
            await process.wait()

    async def listen(self, handle: HandlePlan) -> None:
        self._handle = handle
        if self._link.done():
            await self._link.result().listen(handle)

    async def fetch(self, digest: str, size: int) -> Blob:
        return await self._again(lambda link: link.fetch(digest, size))

    async def approved(self, work: Work) -> Terms:
        return await self._again(lambda link: link.approved(work))

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

    async def countersign(self, shown: ShownHead) -> bytes:
        return await self._again(lambda link: link.countersign(shown))

    async def _again(self, call: Callable[[RemoteLink], Awaitable[T]]) -> T:
        while True:
            link = await asyncio.shield(self._link)
            try:
                return await call(link)
            except Unreachable:
                if self._link.done() and self._link.result() is link:
                    raise
