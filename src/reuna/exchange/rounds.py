"""A node's own rounds: counted, and told to the cloud where its site traces them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from reuna.core import trace
from reuna.core.errors import ReunaError
from reuna.core.figures import Worked
from reuna.core.ports import Clock
from reuna.core.records import Event, Plan

log = logging.getLogger("reuna.trace")
Emit = Callable[[Event], Awaitable[bool]]


class Rounds:
    """``emit``: passes an event on, as the site's policy lets it; None: nobody is told."""

    def __init__(self, node: str, boot: str, emit: Emit | None, clock: Clock) -> None:
        self.worked = Worked()
        self._node = node
        self._boot = boot
        self._emit = emit
        self._clock = clock
        self._number = 0
        self._telling: set[asyncio.Task[None]] = set()

    def done(self, plan: Plan, began_s: float) -> None:
        """This node's part in a round is over, by its clock. Nobody waits for who is told."""
        now = self._clock.now()
        self.worked.count(plan.task, max(0.0, now - began_s))
        if self._emit is None or plan.task not in trace.STAGES:
            return
        event = trace.worked(self._node, self._boot, self._number, plan, min(began_s, now), now)
        self._number += 1
        task = asyncio.create_task(self._tell(self._emit, event))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, emit: Emit, event: Event) -> None:
        try:
            await emit(event)
        except ReunaError as error:
            log.info("a part of a trace is not told: %s %s", error.code, error)
