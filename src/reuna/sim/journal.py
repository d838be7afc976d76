"""The `Journal` port in memory: the store outlives a crash, the journal does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar, cast

from reuna.core.errors import JournalError, ReunaError
from reuna.core.ports import Clock
from reuna.sim.clock import SimClock

T = TypeVar("T")
#: Called with ("before", step), ("done", step) and ("after", step); raises to crash right there.
#: "done" is the moment when the work is done and not journalled.
Hook = Callable[[str, str], None]


class JournalStore:
    """What is on disk of one run: results of steps in order, and messages by topic."""

    def __init__(self) -> None:
        self.results: list[tuple[str, str | ReunaError]] = []
        self.messages: dict[str, list[str]] = {}
        self.life = 1
        self.arrived = asyncio.Event()

    def send(self, topic: str, message: str) -> None:
        """Leave a message for `SimJournal.await_event`."""
        self.messages.setdefault(topic, []).append(message)
        self.arrived.set()

    def resume(self, failed: bool) -> None:
        """Let the next life go on at the first step that was not done; ``failed``: where the run ended."""
        if failed and self.results and isinstance(self.results[-1][1], ReunaError):
            self.results.pop()
        self.life += 1


class SimJournal:
    """One life of a run: replays what the store has, then goes on."""

    def __init__(self, store: JournalStore, clock: Clock | None = None, hook: Hook | None = None) -> None:
        self._store = store
        self._clock = clock or SimClock()
        self._hook = hook or _nothing
        self._next = 0
        self.life = store.life

    async def step(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        return await self._step(name, work, lambda _: None)

    async def sleep_until(self, when: float) -> None:
        until = await self.step("sleep until", partial(_ready, when))
        await self._clock.sleep(max(0.0, until - self._clock.now()))

    async def await_event(self, topic: str, timeout_s: float) -> str | None:
        until = await self.step(f"await {topic} until", partial(_ready, self._clock.now() + timeout_s))

        def consume(message: str | None) -> None:
            if message is not None:
                self._store.messages[topic].pop(0)

        return await self._step(f"await {topic}", lambda: self._message(topic, until), consume)

    async def _step(self, name: str, work: Callable[[], Awaitable[T]], commit: Callable[[T], None]) -> T:
        """``commit`` is what the result's commit changes besides."""
        if self._next < len(self._store.results):
            return cast("T", self._recorded(name))
        self._hook("before", name)
        try:
            result = await work()
        except ReunaError as error:
            self._store.results.append((name, error))
            self._next += 1
            raise
        self._hook("done", name)
        self._store.results.append((name, _encode(name, result)))
        commit(result)
        self._hook("after", name)
        return cast("T", self._recorded(name))

    def _recorded(self, name: str) -> Any:
        recorded, result = self._store.results[self._next]
        if recorded != name:
            raise JournalError(f"the run took step {name!r} where it took {recorded!r} before")
        self._next += 1
        if isinstance(result, ReunaError):
            raise result
        return json.loads(result)

    async def _message(self, topic: str, until: float) -> str | None:
        """The oldest message, left in the store."""
        try:
            async with asyncio.timeout(until - self._clock.now()):
                while not self._store.messages.get(topic):
                    self._store.arrived.clear()
                    await self._store.arrived.wait()
        except TimeoutError:
            return None
        return self._store.messages[topic][0]


def _encode(name: str, value: Any) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise JournalError(f"{name}: the result is no plain JSON value: {error}") from error


async def _ready(value: T) -> T:
    return value


def _nothing(moment: str, step: str) -> None:
    """No crash."""
