"""When a node says that it is there: every so often, sooner while it is new, at once when something changed.

The first words of a new node may be lost while links come up, so it does not wait the whole time for the
next. A fog also says at once which edges came or went: the cloud knows them from its hello alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

SOON_S = 0.25  #: changes within it are said together


class Presence:
    """``say`` is one hello, ``every_s`` the time between two when all is as it was."""

    def __init__(self, say: Callable[[], Awaitable[None]], every_s: float) -> None:
        self._say = say
        self._every_s = every_s
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """What a hello says is another thing now."""
        self._changed.set()

    async def keep(self) -> None:
        """Say it, again and again. Until cancelled."""
        wait, soon = SOON_S, min(SOON_S, self._every_s)
        while True:
            wait = min(2 * wait, self._every_s)
            self._changed.clear()
            await self._say()
            await asyncio.sleep(soon)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait - soon):
                    await self._changed.wait()
