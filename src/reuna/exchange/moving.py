"""What a parent sees of its children in the open round: who works on its plan, whose transfers move.

What a fog itself fetches for its children moves for all of them that lack.
A fog that holds its own round open for a slow edge says so in its hello: for its parent that is a transfer
that moves, and what it carries is bounded as any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace

from reuna.core import patience
from reuna.core.patience import Transfer
from reuna.core.records import Hello

ABOVE = ""  #: in place of a child: what this parent itself fetches for its children
HELD = "held"  #: in place of a transfer: the child holds its own round open


def _nobody_hears() -> None:
    """At the cloud, and where one round is looked at alone."""


class Moving:
    """Of one round after the other; `begin` forgets the one before."""

    def __init__(self) -> None:
        self._opened = 0.0
        self._announced = 0
        self._due_s = 0.0
        self._transfers: dict[tuple[str, str], Transfer] = {}
        self._working: set[str] = set()
        self._told_s = 0.0
        self.on_held: Callable[[], None] = _nobody_hears
        self.held = False  #: past its deadline, for a transfer that moves

    def begin(self) -> None:
        """A round was opened."""
        self._opened = asyncio.get_running_loop().time()
        self._announced, self._due_s, self.held = 0, 0.0, False
        self._transfers.clear()
        self._working.clear()

    def hears(self, hello: Hello, plan: str) -> bool:
        """Whether that child needs the open plan, whose digest is ``plan``."""
        self._working.discard(hello.node)
        if not plan or hello.works_on != short(plan):
            return True
        self._working.add(hello.node)
        if hello.held:
            self.saw(hello.node, HELD, 0, 1)
        return False

    def saw(self, child: str, what: str, done: int, size: int) -> None:
        """So many bytes of a transfer are there; the same number again is no progress."""
        now, before = self._now(), self._transfers.get((child, what))
        if before is None or before.size != size or done < before.done:
            self._transfers[child, what] = Transfer(done, done, size, now, now)
        elif done > before.done or what == HELD:
            self._transfers[child, what] = replace(before, done=done, moved_s=now)

    def moves(self, child: str) -> bool:
        """Whether a transfer of that child moves: it is no child that is away."""
        now = self._now()
        return any(patience.moves(each, now) for (of, _), each in self._transfers.items() if of == child)

    def ends_s(self, deadline_s: float, missing: Collection[str]) -> float:
        """When the round ends, see `reuna.core.patience.ends_s`, if these have not answered."""
        lacking = {*missing, ABOVE} if missing else set()
        transfers = [each for (child, _), each in self._transfers.items() if child in lacking]
        now = self._now()
        ends = patience.ends_s(deadline_s, transfers, now)
        held = now >= deadline_s and ends > now
        if held:
            self._tell(now)
        self.held = held
        return ends

    def _tell(self, now: float) -> None:
        """The parent's parent hears of it soon, and again before it would think that nothing moves."""
        if not self.held or now - self._told_s >= patience.STILL_S / 3:
            self._told_s = now
            self.on_held()

    def due(self, missing: Collection[str]) -> tuple[list[str], float]:
        """To whom the plan is announced now, and when (since the opening) that is looked at again."""
        return [child for child in missing if child not in self._working], self._due_s

    def announced(self, announce_s: float) -> float:
        """It was announced to all of `due`; when it is due again."""
        self._announced += 1
        self._due_s = self._now() + patience.again_s(self._announced, announce_s)
        return self._due_s

    def answered(self, announce_s: float) -> None:
        """A child answered: while answers come in, it is announced again to nobody who may be at it."""
        if self._announced:
            self._due_s = max(self._due_s, self._now() + announce_s)

    def _now(self) -> float:
        return asyncio.get_running_loop().time() - self._opened


def short(digest: str) -> str:
    """Of a plan's digest what a hello carries: it tells two plans of a run apart, and decides nothing."""
    return digest[:16]
