"""What the cloud knows of releases: those that nodes may take, and what each node said it holds."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import msgspec

from reuna.adapters.clock import SystemClock
from reuna.adapters.events import EventLog
from reuna.adapters.register import Register
from reuna.cloud.stock import Stock
from reuna.core.ports import Offload
from reuna.exchange.releases import WHAT, read_event
from reuna.trust.targets import Target


class Turn:
    """A number that goes on whenever something changes, and a way to wait for that."""

    def __init__(self) -> None:
        self.mark = int(SystemClock().now() * 1000)  # a restarted cloud says none of before again
        self._changed = asyncio.Event()

    def on(self) -> None:
        """Something changed."""
        self.mark += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def over(self, mark: int, seconds: float) -> None:
        """Return when the mark is another one, or after so long."""
        if mark == self.mark:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), seconds)


class Holdings:
    """``events`` keeps what each node said last; who was revoked in ``register`` is left out."""

    def __init__(self, stock: Stock, events: EventLog, register: Register, offload: Offload) -> None:
        self._stock = stock
        self._events = events
        self._register = register
        self._offload = offload
        self.turn = Turn()

    async def answer(self, after: int, wait_s: float) -> dict[str, Any]:
        """``mark`` is another one whenever the rest changed; for one equal to ``after`` it waits so long."""
        await self.turn.over(after, wait_s)
        return {"mark": self.turn.mark, **await self._offload(self._now)}

    def _now(self) -> dict[str, Any]:
        gone = {node.name for node in self._register.nodes() if node.revoked is not None}
        said = [(at, each) for at, each in self._events.last(WHAT) if each.node not in gone]
        nodes = {each.node: {"at": at, "held": msgspec.to_builtins(read_event(each))} for at, each in said}
        return {"releases": [_as_dict(each) for each in self._stock.listed()], "nodes": nodes}


def _as_dict(each: Target) -> dict[str, Any]:
    return {
        "path": each.path,
        "project": each.project,
        "version": each.number,
        "digest": each.sha256,
        "size": each.size,
        "where": list(each.where),
    }
