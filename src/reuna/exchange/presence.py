"""When a node says that it is there: every so often, sooner while it is new, at once when something changed.

The first words of a new node may be lost while links come up, so it does not wait the whole time for the
next. A node of which there is nothing new says it less often, and with each hello when the next comes: who
says every five seconds for years that all is as it was sends megabytes a day. Who is below a fog is told
apart from that, see `reuna.exchange.roster`. A node that is asked something says at once that it is there, so
that its parent soon knows for whom it waits in vain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from reuna.core.ports import HandlePlan
from reuna.core.records import Terms

SOON_S = 0.25  #: changes within it are said together
STEADY_S = 600.0  #: after so long without a change
CALM_S = 60.0  #: it is said so often, if it was said oftener before
JUST_S = 5.0  #: who said it within that does not say it because it is asked


class Presence:
    """``say`` is one hello, told when the next one comes; ``every_s`` the usual time between two."""

    def __init__(self, say: Callable[[float], Awaitable[None]], every_s: float) -> None:
        self._say = say
        self._every_s = every_s
        self._changed = asyncio.Event()
        self._said = float("-inf")

    def answering(self, handle: HandlePlan) -> HandlePlan:
        """``handle``, and the node says that it is there, unless it has said so a moment ago."""

        async def heard(plan: bytes, signed: bytes, terms: Terms | None) -> None:
            if asyncio.get_running_loop().time() - self._said >= JUST_S:
                self.changed()
            await handle(plan, signed, terms)

        return heard

    def changed(self) -> None:
        """What a hello says is another thing now."""
        self._changed.set()

    async def keep(self) -> None:
        """Say it, again and again. Until cancelled."""
        wait, soon, still = SOON_S, min(SOON_S, self._every_s), 0.0
        while True:
            longest = self._every_s if still < STEADY_S else max(self._every_s, CALM_S)
            wait = min(2 * wait, longest)
            self._changed.clear()
            self._said = asyncio.get_running_loop().time()  # before any parent hears it
            await self._say(wait)
            await asyncio.sleep(soon)
            still += wait
            with suppress(TimeoutError):
                async with asyncio.timeout(wait - soon):
                    await self._changed.wait()
                    wait, still = min(wait, self._every_s), 0.0
