"""The machine's own clock and threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class SystemClock:
    """The `Clock` port: wall time and real waiting."""

    def now(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ThreadOffload:
    """The `Offload` port: blocking work in a thread."""

    async def __call__(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work)


def unless_cancelled() -> None:
    """Raises `CancelledError` again where a library lost it.

    `asyncio.wait_for` of Python 3.11 loses a cancellation that comes together with its result.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
