"""Whose the open round is: the intake holds one at a time, and runs that wait let others work."""

from __future__ import annotations

import asyncio


class Turns:
    """One after the other, in the order in which they came.

    >>> async def work(turns: Turns) -> bool:
    ...     async with turns:
    ...         return turns.wanted
    >>> asyncio.run(work(Turns()))
    False
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._waiting = 0

    @property
    def wanted(self) -> bool:
        """Whether somebody waits."""
        return self._waiting > 0

    async def __aenter__(self) -> None:
        self._waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1

    async def __aexit__(self, *_error: object) -> None:
        self._lock.release()
