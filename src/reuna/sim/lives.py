"""Processes that can be killed: what they started ends, and what they still call is refused.

`Incarnation` is the life of a process between start and kill. When it is killed its tasks are
cancelled and whatever it still calls on a port is refused, as after ``kill -9``. `SimLink` stands
between a place and its egress, which are two processes: when the egress dies alone the place's open
calls are made again, as `reuna.exchange.child` does it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from reuna.core.errors import Unreachable
from reuna.core.ports import Blob, HandlePlan, Link
from reuna.core.records import Contribution, Event, Hello, Member, Receipt, Rehearsal, Terms, Work

if TYPE_CHECKING:
    from reuna.sim.bus import MemoryBus

T = TypeVar("T")
_FEW = 4
_life: contextvars.ContextVar[Incarnation | None] = contextvars.ContextVar("life", default=None)


class Killed(asyncio.CancelledError):
    """Raised inside a process that was killed, at whatever port it called."""


class Incarnation:
    """One life of a node's process: the tasks it started, and whether it still lives."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.alive = True
        self.connections: list[MemoryBus] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._look = _FEW  #: number of tasks at which those that ended are forgotten

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Remember a task started by this process."""
        self._tasks.append(task)
        if len(self._tasks) >= self._look:
            self._tasks = [each for each in self._tasks if not each.done()]
            self._look = max(_FEW, 2 * len(self._tasks))

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``work`` as this process; what it starts belongs to it as well."""
        context = contextvars.copy_context()
        context.run(_life.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    def kill(self) -> None:
        """End it without letting it clean up."""
        self.alive = False
        for connection in self.connections:
            connection.drop()
        for task in self._tasks:
            task.cancel()
        self._tasks = []


def adopting_tasks(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **kwargs: Any
) -> asyncio.Task[Any]:
    """Task factory: every task belongs to the process that started it."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **kwargs)
    context = kwargs.get("context")
    life = context.get(_life) if context is not None else _life.get()
    if life is not None:
        life.adopt(task)
    return task


class SimLink:
    """The `Link` port of a place, over an egress with a life of its own."""

    def __init__(self, place: Incarnation) -> None:
        self._place = place
        self._plans: asyncio.Queue[tuple[bytes, bytes, Terms | None]] = asyncio.Queue()
        self._egress: asyncio.Future[tuple[Link, Incarnation]] = _future()
        self._ended: asyncio.Future[None] = _future()

    async def serve(self, egress: Link, life: Incarnation) -> None:
        """Let a new egress carry out the place's calls, and those that were open when the last one died."""
        self._egress.set_result((egress, life))
        await egress.listen(self._heard)

    def lose(self) -> None:
        """The egress died."""
        if self._egress.done():
            self._egress = _future()

    def end(self) -> None:
        """The place died: who waits for it hears no more."""
        if not self._ended.done():
            self._ended.set_result(None)

    async def _heard(self, plan: bytes, signed: bytes, terms: Terms | None) -> None:
        self._plans.put_nowait((plan, signed, terms))

    async def listen(self, handle: HandlePlan) -> None:
        """Plans reach the place one after the other."""

        async def hand_on() -> None:
            while True:
                await handle(*await self._plans.get())

        self._place.start(hand_on())

    async def fetch(self, digest: str, size: int) -> Blob:
        return await self._call(lambda egress: egress.fetch(digest, size))

    async def approved(self, work: Work) -> Terms:
        return await self._call(lambda egress: egress.approved(work))

    async def rehearse(self, plan: bytes, samples: int) -> Rehearsal:
        return await self._call(lambda egress: egress.rehearse(plan, samples))

    async def submit(
        self, plan_bytes: bytes, weights: Blob | None, weight: int, member: Member, level: int = 0
    ) -> Receipt | None:
        return await self._call(lambda egress: egress.submit(plan_bytes, weights, weight, member, level))

    async def hand_over(self, plan: bytes, manifest: Contribution, body: Blob | None) -> Receipt | None:
        return await self._call(lambda egress: egress.hand_over(plan, manifest, body))

    async def emit(self, event: Event) -> bool:
        return await self._call(lambda egress: egress.emit(event))

    async def hello(self, hello: Hello) -> None:
        await self._call(lambda egress: egress.hello(hello))

    async def _call(self, work: Callable[[Link], Awaitable[T]]) -> T:
        """Carried out in the egress's life; it goes on there when the caller was cancelled."""
        while True:
            await self._done(self._egress)
            if not self._egress.done():  # it died in the same moment
                continue
            egress, life = self._egress.result()
            carried_out = life.start(_carry_out(work, egress))
            carried_out.add_done_callback(_heard_by_nobody)
            await self._done(carried_out)
            if not carried_out.cancelled():
                return carried_out.result()

    async def _done(self, waited: asyncio.Future[Any]) -> None:
        """Until it is done. Raises `Unreachable` when the place died."""
        either: set[asyncio.Future[Any]] = {waited, self._ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._ended.done():
            raise Unreachable(f"the process of {self._place.node} ended")


async def _carry_out(work: Callable[[Link], Awaitable[T]], egress: Link) -> T:
    return await work(egress)


def _heard_by_nobody(task: asyncio.Task[Any]) -> None:
    """Take its error: the caller may have been cancelled meanwhile."""
    if not task.cancelled():
        task.exception()


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()
