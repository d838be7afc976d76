"""How many requests a second one peer may make: who makes more is answered later, nobody else is.

The generic cell rate algorithm: one number a peer, the moment at which its next request would be due.

>>> pace = Pace(per_s=10.0, burst=2)
>>> [round(pace.wait_s("edge-7", now=5.0), 3) for _ in range(5)]
[0.0, 0.0, 0.0, 0.1, 0.2]
>>> pace.wait_s("edge-8", now=5.0)
0.0
"""

from __future__ import annotations

KEPT = 4096  #: peers that are remembered; more begin anew


class Pace:
    """``burst`` requests may come at once, beside those that are due."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._each_s = 1.0 / per_s
        self._ahead_s = burst / per_s
        self._due: dict[str, float] = {}

    def wait_s(self, who: str, now: float) -> float:
        """Count a request; for how long it has to wait, 0 for one within the pace."""
        due = max(now, self._due.get(who, now))
        if len(self._due) >= KEPT and who not in self._due:
            self._due = {peer: at for peer, at in self._due.items() if at > now}
        if len(self._due) < KEPT or who in self._due:
            self._due[who] = due + self._each_s
        return max(0.0, due - self._ahead_s - now)

    def allows(self, who: str, now: float) -> bool:
        """Whether a word within the pace came; one beyond it is not counted, so that the pace is kept."""
        due = max(now, self._due.get(who, now))
        if due - self._ahead_s > now:
            return False
        self.wait_s(who, now)
        return True
