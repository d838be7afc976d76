"""The `Journal` port in memory: the store outlives a crash, the journal does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


class JournalStore:
    """What is on disk: results of steps in order, and messages by topic."""

    def __init__(self) -> None:
        self.results: list[tuple[str, str]] = []
        self.messages: dict[str, list[str]] = {}
        self.arrived = asyncio.Event()

    def send(self, topic: str, message: str) -> None:
        """Leave a message for `SimJournal.await_event`."""
        self.messages.setdefault(topic, []).append(message)
        self.arrived.set()


class SimJournal:
    """One life of a run: replays what the store has, then goes on."""

    def __init__(self, store: JournalStore) -> None:
        self._store = store
        self._next = 0

    async def step(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        if self._next < len(self._store.results):
            return self._replay(name)
        result = await work()
        self._store.results.append((name, json.dumps(result)))
        self._next += 1
        return result

    def _replay(self, name: str) -> Any:
        recorded, result = self._store.results[self._next]
        if recorded != name:
            raise AssertionError(f"the run took step {name!r} where it took {recorded!r} before")
        self._next += 1
        return json.loads(result)

    async def sleep_until(self, when: float) -> None:
        until = await self.step("sleep until", lambda: _value(when))
        left = until - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.sleep(left)

    async def await_event(self, topic: str, timeout_s: float) -> str | None:
        return await self.step(f"await {topic}", lambda: self._message(topic, timeout_s))

    async def _message(self, topic: str, timeout_s: float) -> str | None:
        try:
            async with asyncio.timeout(timeout_s):
                while not self._store.messages.get(topic):
                    self._store.arrived.clear()
                    await self._store.arrived.wait()
        except TimeoutError:
            return None
        return self._store.messages[topic].pop(0)


async def _value(value: T) -> T:
    return value
