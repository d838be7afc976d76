"""What a source gives, while a test does something to its counterpart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from reuna.adapters.clock import SystemClock
from reuna.core.sources import Batch, Source, check_batch


class Quick(SystemClock):
    """Waits a twentieth."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 20)


class Collected:
    """What a source gives, in a task of its own."""

    def __init__(self, source: Source) -> None:
        self.batches: list[Batch] = []
        self._source = source
        self._more = asyncio.Event()

    async def __aenter__(self) -> Collected:
        self.task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *error) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async with aclosing(self._source.batches()) as batches:
                async for batch in batches:
                    check_batch(batch, self._source.tags)
                    self.batches.append(batch)
                    self._more.set()
        finally:
            self._more.set()

    async def until(self, enough: Callable[[Collected], object]) -> None:
        async with asyncio.timeout(20):
            while not enough(self):
                if self.task.done():
                    self.task.result()
                self._more.clear()
                await self._more.wait()

    def values(self, tag: str = "oil") -> list[float]:
        columns = [batch.columns[tag] for batch in self.batches if tag in batch.columns]
        return [value for each in columns for value in each.values.tolist()]

    @property
    def reasons(self) -> list[str]:
        return [gap.reason for batch in self.batches for gap in batch.gaps]
