"""Counts what was refused, by who and why, and says when that is worth a line in a log.

A hostile peer can be refused a thousand times a second: the first times get a line each, then the
16th, 32nd, 64th …, so that the operator sees it and the disk does not fill.

>>> tally = Tally()
>>> [times for _ in range(70) if (times := tally.count("edge-7", "weight"))]
[1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64]
"""

from __future__ import annotations

from collections import Counter

EACH = 8  #: times that get a line each
KEPT = 4096  #: pairs that are counted; more begin anew


class Tally:
    """One server's refusals."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def count(self, who: str, why: str) -> int:
        """How often by now, when that is worth a line, else 0."""
        if len(self.counts) >= KEPT and (who, why) not in self.counts:
            self.counts.clear()
        self.counts[who, why] += 1
        times = self.counts[who, why]
        return 0 if times > EACH and times & (times - 1) else times
