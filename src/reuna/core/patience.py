"""How long a round is held open for who is slow but moves, and how often it is announced.

Decided without I/O.

What a child says of itself counts for nothing here: a transfer moves when its parent has more of its bytes
than before. Times are seconds since the round was opened at its parent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

STILL_S = 30.0  #: a transfer of which no byte came for so long does not move
MOST = 2.0  #: a round ends after so many times its deadline at the latest, whoever moves
LOOK_S = 1.0  #: between two looks at a round that is held open
LONGEST_S = 60.0  #: between two announcements of one plan to a child that does not work on it


@dataclass(frozen=True)
class Transfer:
    """What a parent knows of the bytes that it gives to a child, or takes from it.

    ``first`` were there when it began, ``done`` are there now; ``moved_s``: when the last of them came.
    """

    first: int
    done: int
    size: int
    began_s: float
    moved_s: float

    @property
    def expected_s(self) -> float:
        """When the last byte will be there, at the pace so far; at once while there is no pace yet."""
        came, took_s = self.done - self.first, self.moved_s - self.began_s
        return (
            self.moved_s + (self.size - self.done) * took_s / came
            if came > 0 and took_s > 0
            else self.moved_s
        )


def moves(transfer: Transfer, now_s: float) -> bool:
    """Whether bytes came of late and more are to come.

    What was slow to come down is worked on after: it counts for as long again as a still line would.
    """
    slow = transfer.moved_s - transfer.began_s >= STILL_S
    return now_s - transfer.moved_s < STILL_S and (transfer.done < transfer.size or slow)


def ends_s(deadline_s: float, transfers: Iterable[Transfer], now_s: float) -> float:
    """When a round ends: at its deadline, later while a transfer moves that will be in by `MOST` deadlines.

    Who trickles, so that it would not be in by then, is not waited for at all.
    """
    bound = deadline_s * MOST
    worth = any(moves(each, now_s) and each.expected_s <= bound for each in transfers)
    return bound if worth else deadline_s


def again_s(times: int, announce_s: float) -> float:
    """Until a plan is announced again that was announced so many times: longer each time."""
    return min(announce_s * math.ldexp(1.0, min(times, 32) - 1), max(announce_s, LONGEST_S))
