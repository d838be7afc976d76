"""A parent's server that may be away when a node starts: the node's own work does not wait for it.

What is said to whoever listens stays here meanwhile; what is to be stored waits; what is listened for is
listened for once the server is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from reuna.core.ports import Bus, Handler, Subscription


class LaterBus:
    """The `Bus` port over a connection that is still being made."""

    def __init__(self, connecting: Coroutine[Any, Any, Bus]) -> None:
        self._bus = asyncio.ensure_future(connecting)
        self._waiting: set[asyncio.Task[None]] = set()

    @property
    def is_connected(self) -> bool:
        """Whether the server can be spoken to right now."""
        there = self._bus.done() and not self._bus.cancelled() and self._bus.exception() is None
        return there and bool(getattr(self._bus.result(), "connected", True))

    async def connected(self) -> Bus:
        """The bus itself, once it is there. Raises what connecting raises."""
        return await asyncio.shield(self._bus)

    async def publish(self, subject: str, data: bytes) -> bool:
        """See `Bus.publish`."""
        return await self._bus.result().publish(subject, data) if self._bus.done() else False

    async def subscribe(self, subject: str, handle: Handler) -> Subscription:
        """See `Bus.subscribe`; it returns at once."""
        if self._bus.done():
            return await self._bus.result().subscribe(subject, handle)
        later = Later()
        task = asyncio.create_task(self._subscribe(subject, handle, later))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        return later

    async def _subscribe(self, subject: str, handle: Handler, later: Later) -> None:
        bus = await self.connected()
        if not later.over:
            later.real = await bus.subscribe(subject, handle)

    async def append(self, subject: str, data: bytes, msg_id: str) -> None:
        """See `Bus.append`."""
        await (await self.connected()).append(subject, data, msg_id)

    async def follow(self, subject: str, name: str, handle: Handler) -> Subscription:
        """See `Bus.follow`."""
        return await (await self.connected()).follow(subject, name, handle)

    async def close(self) -> None:
        """See `Bus.close`."""
        for task in (*self._waiting, self._bus):
            task.cancel()
        await asyncio.gather(*self._waiting, self._bus, return_exceptions=True)
        if not self._bus.cancelled() and self._bus.exception() is None:
            await self._bus.result().close()


class Later:
    """A subscription that may not be one yet."""

    def __init__(self) -> None:
        self.real: Subscription | None = None
        self.over = False

    async def stop(self) -> None:
        """See `Subscription.stop`."""
        self.over = True
        if self.real is not None:
            await self.real.stop()
