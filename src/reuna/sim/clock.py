"""Virtual time: an event loop whose clock jumps to the next timer when nothing is ready.

>>> async def a_day() -> float:
...     await asyncio.sleep(86_400)
...     return asyncio.get_running_loop().time()
>>> run_virtual(a_day())
86400.0
"""

from __future__ import annotations

import asyncio
import gc
import math
import selectors
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")
NEW_OBJECTS = 50_000
EPOCH = 1_767_225_600.0  #: 2026-01-01, where simulated wall time begins, seconds


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is left: the simulated world stands still."""


class _NeverWaiting(selectors.SelectSelector):
    """Polls, and instead of waiting lets the loop's clock jump."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: VirtualLoop | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        waits = timeout is None or timeout > 0
        if waits and self.loop is not None and self.loop.outside is not None and self.loop.outside():
            return []
        if timeout is None:
            raise Deadlock("nothing is ready and no timer is left")
        if timeout > 0 and self.loop is not None:
            self.loop.jump(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time. Deterministic: one thread, no sockets, no waiting."""

    def __init__(self, start: float = 0.0) -> None:
        selector = _NeverWaiting()
        super().__init__(selector)
        selector.loop = self
        self._virtual = 0.0
        #: asked when nothing is ready: True when it waited for work elsewhere, and no time is to pass
        self.outside: Callable[[], bool] | None = None
        self.jump(start)

    def time(self) -> float:
        """Virtual seconds; ``start`` when the loop began."""
        return self._virtual

    def jump(self, seconds: float) -> None:
        """Let time pass."""
        self._virtual += seconds
        # asyncio runs timers before time() + resolution. After 97 days that sum of floats is time()
        # itself, and a timer that is due would never run.
        self._clock_resolution = max(1e-9, math.ulp(self._virtual))

    def run_in_executor(  # type: ignore[override]  # it never returns, so any signature will do
        self, *args: Any
    ) -> NoReturn:
        """Refused: a thread takes real time, so its result would arrive at a random moment."""
        raise RuntimeError("no threads in virtual time: do blocking work through the Offload port")


def run_virtual(
    work: Coroutine[Any, Any, T],
    task_factory: Callable[..., asyncio.Task[Any]] | None = None,
    start: float = 0.0,
) -> T:
    """Run to the end in virtual time. Raises `Deadlock` when ``work`` can never end.

    Inside a running event loop, as a notebook's cell is, a thread of its own does it; that loop waits.
    """
    loop = VirtualLoop(start)
    if task_factory is not None:
        loop.set_task_factory(task_factory)
    task = loop.create_task(work)
    if _inside_a_loop():
        return _in_a_thread(loop, task)
    return _to_the_end(loop, task)


def _inside_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _in_a_thread(loop: VirtualLoop, task: asyncio.Task[T]) -> T:
    """Who interrupts the caller ends the work too."""
    with ThreadPoolExecutor(1, "virtual") as pool:
        done = pool.submit(_to_the_end, loop, task)
        try:
            return done.result()
        finally:
            if not done.done():
                loop.call_soon_threadsafe(task.cancel)


def _to_the_end(loop: VirtualLoop, task: asyncio.Task[T]) -> T:
    try:
        with seldom_collected():
            return loop.run_until_complete(task)
    finally:
        settle(loop)


def settle(loop: VirtualLoop) -> None:
    """Cancel what is left, and close the loop."""
    loop.outside = None
    for left in asyncio.all_tasks(loop):
        left.cancel()
    loop.run_until_complete(_settled(loop))
    loop.close()


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Search for cycles after `NEW_OBJECTS`, not after Python's 700: a quarter of the time went there.

    A fleet's objects live as long as the run and hang together without cycles, so each search looked
    at all of them and found nothing. What it may find waits for a few megabytes at most.
    """
    before = gc.get_threshold()
    if before[0]:  # 0: whoever calls wants none at all
        gc.set_threshold(max(NEW_OBJECTS, before[0]), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


async def _settled(loop: VirtualLoop) -> None:
    """Let cancelled tasks end."""
    rest = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
    await asyncio.gather(*rest, return_exceptions=True)


class SimClock:
    """The `Clock` port on a virtual loop; ``skew`` seconds off, as a node's clock may be."""

    def __init__(self, epoch: float = EPOCH, skew: float = 0.0) -> None:
        self._offset = epoch + skew

    def now(self) -> float:
        return self._offset + asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class InPlace:
    """The `Offload` port that does the work at once."""

    async def __call__(self, work: Callable[[], T]) -> T:
        return work()
