"""Which windows of a grid are due, and with which of them anything is to be done.

>>> second = 10**9
>>> mark = begun(Shape(second, length=4, step=2), None, first_ns=100 * second)
>>> due(mark, source_ns=104 * second, lateness_ns=second // 2)     # rows at 100 to 103 s, over at 103.25 s
1
>>> after(mark, 3).next
6
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from reuna.core.grid import Grid


@dataclass(frozen=True)
class Shape:
    """Time from row to row, rows of a window, and rows from one to the next."""

    every_ns: int
    length: int
    step: int


class Mark(msgspec.Struct, frozen=True):
    """How far a project's windows were answered: its grid, rows of a window and from one to the next.

    ``next``: first row of the next window; ``passed``: windows without any reading that nobody answered.
    """

    origin_ns: int
    every_ns: int
    length: int
    step: int
    next: int = 0
    passed: int = 0

    @property
    def grid(self) -> Grid:
        """The grid that its rows are of."""
        return Grid(self.origin_ns, self.every_ns)

    @property
    def shape(self) -> Shape:
        """What windows it is of."""
        return Shape(self.every_ns, self.length, self.step)


def begun(shape: Shape, before: Mark | None, first_ns: int) -> Mark:
    """Where windows of that shape begin: the mark itself when it is of such, else behind what it answered.

    Without a mark the first reading is row 0.
    """
    if before is None:
        return Mark(first_ns, shape.every_ns, shape.length, shape.step)
    if before.shape == shape:
        return before
    over = before.next - before.step + before.length if before.next else 0  # the first row in no window
    origin_ns = before.grid.moment(over)
    return Mark(origin_ns, shape.every_ns, shape.length, shape.step, passed=before.passed)


def due(mark: Mark, source_ns: int, lateness_ns: int) -> int:
    """How many windows from the next on are over by their lateness; ``source_ns``: the source's time now."""
    wait = source_ns - due_ns(mark, lateness_ns)
    return 0 if wait < 0 else 1 + wait // (mark.step * mark.every_ns)


def due_ns(mark: Mark, lateness_ns: int) -> int:
    """Source time at which the next window is over by its lateness."""
    return mark.grid.end(mark.next + mark.length - 1) + lateness_ns


def after(mark: Mark, windows: int, passed: int = 0) -> Mark:
    """The mark once so many windows are done with, ``passed`` of which nobody answered."""
    return msgspec.structs.replace(mark, next=mark.next + windows * mark.step, passed=mark.passed + passed)


def until(mark: Mark, time_ns: int) -> int:
    """How many windows from the next on end before a reading of that time."""
    row = mark.grid.row_of(time_ns)
    return max(0, -((mark.next + mark.length - 1 - row) // mark.step))
