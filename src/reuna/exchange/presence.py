"""When a node says that it is there: every so often, sooner while it is new. When a fog says who is below it.

The first words of a new node may be lost while links come up, so it does not wait the whole time for the
next. A node that has been there for a while says it less often, and with each hello when the next comes: who
says every five seconds for years that all is as it was sends megabytes a day. A fog says at once which edges
came or went (`reuna.exchange.roster`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

SOON_S = 0.25  #: changes within it are said together
STEADY_S = 600.0  #: after so long
CALM_S = 60.0  #: it is said so often, if it was said oftener before


class Presence:
    """``say`` is one hello, told when the next one comes; ``every_s`` the usual time between two."""

    def __init__(self, say: Callable[[float], Awaitable[None]], every_s: float) -> None:
        self._say = say
        self._every_s = every_s

    async def keep(self) -> None:
        """Say it, again and again. Until cancelled."""
        wait, been = SOON_S, 0.0
        while True:
            longest = self._every_s if been < STEADY_S else max(self._every_s, CALM_S)
            wait = min(2 * wait, longest)
            await self._say(wait)
            await asyncio.sleep(wait)
            been += wait


class BelowKeeper:
    """``tell`` takes the names of who is below as they are now; ``look_s``: some go without a word."""

    def __init__(
        self,
        names: Callable[[], Sequence[str]],
        tell: Callable[[Sequence[str]], Awaitable[None]],
        look_s: float,
    ) -> None:
        self._names = names
        self._tell = tell
        self._look_s = look_s
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Somebody came or went."""
        self._changed.set()

    async def keep(self) -> None:
        """Tell of each change, those of a moment together. Until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_s):
                    await self._changed.wait()
                    await asyncio.sleep(SOON_S)
            self._changed.clear()
            await self._tell(self._names())
