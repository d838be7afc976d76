"""Readings that come one by one, until they go on as columns.

>>> gathered = Gathered()
>>> gathered.add("oil", 10, 1.5)
>>> gathered.add("oil", 5, float("nan"), 2, 500)
>>> found = gathered.taken()["oil"]
>>> found.times.tolist(), found.quality.tolist(), found.codes.tolist(), gathered.taken()
([5, 10], [2, 0], [500, 0], {})
"""

from __future__ import annotations

from reuna.core.sources import GOOD, Column, column


class Gathered:
    """Readings by tag."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[list[int], list[float], list[int], list[int]]] = {}

    def add(self, tag: str, time_ns: int, value: float, quality: int = GOOD, code: int = 0) -> None:
        """One reading; what is not finite is bad."""
        times, values, levels, codes = self._found.setdefault(tag, ([], [], [], []))
        times.append(time_ns)
        values.append(value)
        levels.append(quality)
        codes.append(code)

    def taken(self) -> dict[str, Column]:
        """What came since the last time, sorted by time."""
        found, self._found = self._found, {}
        return {
            tag: column(times, values, quality, codes if any(codes) else None)
            for tag, (times, values, quality, codes) in found.items()
        }
