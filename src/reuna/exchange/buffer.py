"""Updates of a run that a parent holds until a step takes them, whatever round they were made for.

Nothing is taken twice: the rows that closed rounds name what was taken, also after a restart, and the
update of a node for a round is held once.
"""

from __future__ import annotations

from collections.abc import Iterable

from reuna.core.records import Contribution
from reuna.loop import train


class Buffer:
    """Of one run, at the parent ``name`` that opens round ``round``. ``rows``: all that it has of the run."""

    def __init__(self, name: str, run: str, rows: Iterable[Contribution], round: int) -> None:
        self.run = run
        self._rows: dict[tuple[str, int, int, str], Contribution] = {}
        self.counted: set[tuple[str, int]] = set()  #: taken or held: node and round of each update
        self.closings: list[Contribution] = []  #: own rows of rounds before, found after a restart
        found = list(rows)
        for row in found:
            if row.sender != name:
                self.add(row)
        self.closings = [row for row in found if row.sender == name and row.round < round]
        for row in self.closings:
            self.take(row)

    def add(self, row: Contribution) -> None:
        """Hold a row that is committed; what has no update is no part of a step."""
        if row.kind != "report":
            self._rows[row.key] = row
            self.counted |= train.given(row)

    def take(self, closing: Contribution) -> None:
        """A round was closed: what its row names is not held any more."""
        taken = train.given(closing)
        for key in [key for key, row in list(self._rows.items()) if train.given(row) <= taken]:
            del self._rows[key]
        self.counted |= taken

    def rows(self, closing: Contribution | None) -> list[Contribution]:
        """All that are held, or those that the row of a closed round names; by sender, then by round."""
        taken = None if closing is None else train.given(closing)
        found = (row for row in list(self._rows.values()) if taken is None or train.given(row) <= taken)
        return sorted(found, key=lambda row: (row.sender, row.round))
