"""A connection that comes and goes: how long to wait before the next try, and the gaps to be told.

>>> breaks = Breaks()
>>> breaks.given(10)
>>> breaks.lost("connection refused", 20)
Gap(first_ns=10, last_ns=20, reason='connection refused', tags=())
>>> breaks.lost("connection refused", 30) is None, breaks.pause_s()
(True, 2.0)
>>> breaks.back(40)
Gap(first_ns=10, last_ns=40, reason='connected again after: connection refused', tags=())
"""

from __future__ import annotations

from reuna.core.sources import MAX_REASON, Gap

PAUSE_S, MOST_PAUSE_S = 1.0, 30.0  #: the first wait, and the longest: each is twice the one before


class Breaks:
    """What a source knows of its connection."""

    def __init__(self) -> None:
        self._last_ns: int | None = None  #: until then nothing was missed
        self._reason = ""
        self._failures = 0

    def given(self, now_ns: int) -> None:
        """All is whole until now."""
        self._last_ns = now_ns

    def lost(self, reason: str, now_ns: int) -> Gap | None:
        """A break, or a try that failed: the gap until now, where the reason is new."""
        self._failures += 1
        if reason == self._reason:
            return None
        self._reason = reason
        return self._gap(reason, now_ns)

    def back(self, now_ns: int) -> Gap | None:
        """Connected: the whole gap, where there was a break."""
        reason, self._reason, self._failures = self._reason, "", 0
        return self._gap(f"connected again after: {reason}", now_ns) if reason else None

    def pause_s(self) -> float:
        """How long to wait before the next try."""
        return min(MOST_PAUSE_S, PAUSE_S * 2.0 ** min(self._failures - 1, 10))

    def _gap(self, reason: str, now_ns: int) -> Gap:
        first = now_ns if self._last_ns is None else min(self._last_ns, now_ns)
        return Gap(first, now_ns, reason[:MAX_REASON])
