"""Room for what is taken in: few lots of bytes, the same memory again and again, however many send.

>>> import asyncio
>>> async def one_after_the_other() -> bool:
...     turns = Turns(count=1, size=4)
...     room = await turns.take()
...     turns.give(room)
...     return await turns.take() is room
>>> asyncio.run(one_after_the_other())
True
"""

from __future__ import annotations

import asyncio


class Turns:
    """``count`` rooms of ``size`` bytes each, made when they are first needed and then kept.

    Who waits longest comes first. For one event loop.
    """

    def __init__(self, count: int, size: int) -> None:
        self._waiting = asyncio.Semaphore(count)
        self._size = size
        self._free: list[bytearray] = []

    async def take(self) -> bytearray:
        """A room of one's own, until it is given back."""
        await self._waiting.acquire()
        return self._free.pop() if self._free else bytearray(self._size)

    def give(self, room: bytearray | None) -> None:
        """Back, for the next; None for one that is still in use somewhere: a new one is made in its place."""
        if room is not None:
            self._free.append(room)
        self._waiting.release()
