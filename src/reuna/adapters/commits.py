"""Commits at a parent: small ones that wait for each other's disk go together, in one thread.

A thread for each costs as much as the work in it, and they would wait for one lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from reuna.adapters.threads import Threads
from reuna.core.ports import Depot, Receiver
from reuna.core.records import Receipt

LARGE = 4  #: large ones at once; more wait, since the disk is busy with these


class _Waiting(NamedTuple):
    receiver: Receiver
    done: asyncio.Future[Receipt]


class Commits:
    """Each runs to its end even when nobody waits for it any more."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot
        self._waiting: list[_Waiting] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._small, self._large = Threads(1, "commits"), Threads(LARGE, "commit")
        self._grouping = False

    async def __call__(self, receiver: Receiver, quick: bool) -> Receipt:
        """Commit it, and tell the depot. Nobody waits for one that is not ``quick``: it has its own thread.

        Raises `Refused`, `DiskFull`, `Corrupted`.
        """
        each = _Waiting(receiver, asyncio.get_running_loop().create_future())
        if not quick:
            self._start([each], self._large)
        else:
            self._waiting.append(each)
            if not self._grouping:
                self._start_next()
        return await each.done

    async def ended(self) -> None:
        """Wait for those under way; none begins afterwards."""
        while self._tasks:
            await asyncio.gather(*self._tasks)
        await self._small.close()
        await self._large.close()

    def _start_next(self) -> None:
        """All that wait now."""
        group, self._waiting = self._waiting, []
        self._grouping = bool(group)
        if group:
            self._start(group, self._small).add_done_callback(lambda _task: self._start_next())

    def _start(self, group: Sequence[_Waiting], threads: Threads) -> asyncio.Task[None]:
        task = asyncio.create_task(self._commit(group, threads))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _commit(self, group: Sequence[_Waiting], threads: Threads) -> None:
        receivers = [each.receiver for each in group]
        ends: Sequence[Receipt | Exception]
        try:
            ends = await threads(partial(self._depot.commit, receivers))
        except Exception as error:  # noqa: BLE001 - a fault of ours is raised where each is waited for
            ends = [error] * len(group)
        for each, end in zip(group, ends, strict=True):
            if isinstance(end, Receipt):
                await self._depot.received(end)
            if each.done.done():  # who sent it is gone
                continue
            if isinstance(end, Receipt):
                each.done.set_result(end)
            else:
                each.done.set_exception(end)
