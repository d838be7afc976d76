"""What the cloud knows of releases: those that nodes may take, what each node said it holds, and runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from reuna.adapters.clock import SystemClock
from reuna.adapters.events import EventLog
from reuna.adapters.register import Register
from reuna.cloud.stock import Stock
from reuna.core import operating
from reuna.core.operating import Operating
from reuna.core.ports import Offload
from reuna.core.records import Event
from reuna.exchange import releases
from reuna.trust.targets import Target

#: Events of which the newest of each node counts, and what reads them. Raises `BadMessage`.
LAST_WORDS: Mapping[str, Callable[[Event], object]] = {
    releases.WHAT: releases.read_event,
    operating.WHAT: operating.read_event,
}


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

    def operates(self) -> dict[str, tuple[float, list[Operating]]]:
        """Node -> when it was heard (epoch s), and what it said last that it runs."""
        return {
            each.node: (at, operating.read_event(each)) for at, each in self._said(operating.WHAT).values()
        }

    def _said(self, what: str) -> dict[str, tuple[float, Event]]:
        """What each node that was not revoked said last of a thing."""
        gone = {node.name for node in self._register.nodes() if node.revoked is not None}
        return {each.node: (at, each) for at, each in self._events.last(what) if each.node not in gone}

    def _now(self) -> dict[str, Any]:
        held, runs = self._said(releases.WHAT), self.operates()
        nodes = {}
        for node in sorted({*held, *runs}):
            at, event = held.get(node, (runs.get(node, (0.0, []))[0], None))
            told = releases.read_event(event) if event is not None else []
            runs_here = msgspec.to_builtins(runs[node][1]) if node in runs else []
            nodes[node] = {"at": at, "held": msgspec.to_builtins(told), "operates": runs_here}
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
