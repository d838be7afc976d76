"""When a parent heard of each of its children, and which are away. The clock is that of the event loop.

A node says by itself that it is there (`reuna.exchange.presence`), and at once when it is asked something,
if it has not just said so: what it is asked until then needs no answer, and its silence tells nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from reuna.core.records import Hello, Plan
from reuna.exchange.presence import JUST_S, SOON_S
from reuna.loop import train

PRESENT_S = 30.0  #: a node that was not heard of for so long is not named as present,
LATE = 2.5  #: nor for so many times of what it said itself
ANSWERS_S = JUST_S + SOON_S  #: what a node is asked so long after its last hello it answers at once


class Heard:
    """Of the children of one parent."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[float, float]] = {}  #: child -> when, and until when the next is awaited
        self._asked: dict[str, float] = {}  #: child -> since when it is asked and was not heard of
        self._owes: dict[str, float] = {}  #: child -> since when it is asked so that it would have answered
        self._since: float | None = None  #: when the first was asked: before that they spoke to nobody
        self.speaks: dict[str, int] = {}  #: child -> the newest protocol of its last hello

    def take(self, hello: Hello) -> None:
        """It is there."""
        self._heard[hello.node] = _now(), LATE * hello.every_s
        self._asked.pop(hello.node, None)
        self._owes.pop(hello.node, None)
        self.speaks[hello.node] = hello.protocol

    def asks(self, child: str) -> None:
        """It is told of a plan; and again, as long as it says nothing of it."""
        now = _now()
        self._since = now if self._since is None else self._since
        self._asked.setdefault(child, now)
        at, _ = self._heard.get(child, (self._since, 0.0))
        if now >= at + ANSWERS_S:
            self._owes.setdefault(child, now)

    def present(self, children: Collection[str]) -> tuple[str, ...]:
        """Those heard of lately, sorted."""
        now = _now()
        return tuple(sorted(child for child in children if self._is_present(child, now)))

    def _is_present(self, child: str, now: float) -> bool:
        at, next_s = self._heard.get(child, (float("-inf"), 0.0))
        return at + max(PRESENT_S, next_s) > now

    def away(self, plan: Plan, children: Collection[str]) -> frozenset[str]:
        """Those for whom a round need not wait, by `reuna.loop.train.is_away`."""
        if not plan.away_s:
            return frozenset()
        now = _now()
        return frozenset(child for child in children if self._is_away(child, now, plan.away_s))

    def _is_away(self, child: str, now: float, away_s: float) -> bool:
        at, next_s = self._heard.get(child, (None, 0.0))
        return train.is_away(now, at, next_s, self._silent_since(child, away_s), away_s)

    def _silent_since(self, child: str, away_s: float) -> float | None:
        """Since when it is asked, None when it need not have answered yet.

        It is silent for ``away_s`` since it was first asked, and for as long, `JUST_S` at most, since it was
        asked so that it would have answered.
        """
        owes = self._owes.get(child)
        if owes is None:
            return None
        return max(self._asked[child], owes - max(0.0, away_s - JUST_S))


def _now() -> float:
    return asyncio.get_running_loop().time()
