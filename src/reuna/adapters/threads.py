"""A few threads of its own for what blocks, at half the cost of an executor: a round goes through them often.

    threads = Threads(4, "disk")
    found = await threads(read)         # what ``read`` returns or raises
    await threads.close()               # when all that was begun has ended

`concurrent.futures` makes a future with a lock for each call, and asyncio a second one that is told by the
first. Here the event loop is told by the thread itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class Threads:
    """The `Offload` port, for one event loop. Threads begin when they are needed, ``most`` of them."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._under_way = 0

    async def __call__(self, work: Callable[[], T]) -> T:
        """Carry it out in a thread. Who is cancelled leaves it to end by itself."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._under_way += 1
        if len(self._threads) < min(self._under_way, self._most):
            name = f"{self._name}-{len(self._threads)}"
            self._threads.append(threading.Thread(target=self._live, name=name, daemon=True))
            self._threads[-1].start()
        self._jobs.put((loop, done, work))
        return await done

    async def close(self) -> None:
        """Wait for what is under way; nothing is carried out afterwards."""
        for _ in self._threads:
            self._jobs.put(None)
        for each in self._threads:
            await asyncio.to_thread(each.join)

    def _live(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, done, work = job
            result: Any = None
            error: BaseException | None = None
            try:
                result = work()
            except StopIteration as raised:  # no future takes it, so that whoever awaits it would for ever
                error = RuntimeError(f"the work raised {raised!r}")
            except BaseException as raised:  # noqa: BLE001 - whoever awaits it gets it
                error = raised
            try:
                loop.call_soon_threadsafe(self._end, done, result, error)
            except RuntimeError:  # the loop has ended, and with it whoever waited
                return
            del job, done, work, result, error  # nothing of it stays while the thread waits

    def _end(self, done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        self._under_way -= 1
        if done.cancelled():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)
