"""From readings to rows: the sampling grid on which a model was trained, laid over what a source gives.

Row k of a grid is of the moment ``origin + k * every``. It has the last reading of each tag that is not
later than that, nor older than the row before; a quarter of the interval is left for readings that come
a little late, so a row is over a quarter of the interval after its moment. A tag without such a reading has
none in that row: nothing is carried on here, that is for the rules of a release (`reuna.core.fallback`).

>>> from reuna.core.sources import column
>>> grid = Grid(origin_ns=0, every_ns=100)
>>> found = sampled(column([1, 99, 130, 310], [1.0, 2.0, 3.0, 4.0], [0, 0, 2, 0]), grid, 0, 4)
>>> found.values.tolist(), found.good.tolist()
([1.0, 2.0, 3.0, 4.0], [True, True, False, True])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reuna.core.sources import GOOD, Column

LATE = 4  #: a part of the interval by which a reading may be later than its row


@dataclass(frozen=True)
class Grid:
    """Row 0 is at ``origin_ns``, source time, and one follows each ``every_ns``."""

    origin_ns: int
    every_ns: int

    def moment(self, row: int) -> int:
        """Source time of a row, ns."""
        return self.origin_ns + row * self.every_ns

    def end(self, row: int) -> int:
        """Up to here readings count for that row, ns; what is later counts for the next."""
        return self.moment(row) + self.every_ns // LATE

    def row_of(self, time_ns: int) -> int:
        """The row for which a reading of that time counts."""
        return -((self.end(0) - time_ns) // self.every_ns)

    def span(self, first: int, count: int) -> tuple[int, int]:
        """Source times of the readings of some rows: from the first up to before the second, ns."""
        return self.end(first - 1) + 1, self.end(first + count - 1) + 1


@dataclass(frozen=True)
class Cells:
    """A tag in some rows (rows,): NaN where there is no reading, and whether its quality is good."""

    values: NDArray[np.float64]
    good: NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """So many rows of the signals of a contract, by name. Of the first ``before`` only rules take notice.

    ``first_ns`` is the moment of the first, ``every_ns`` from one to the next, both of the source's time.
    """

    first_ns: int
    every_ns: int
    count: int
    cells: Mapping[str, Cells]
    before: int = 0

    def part(self, start: int, count: int) -> Rows:
        """At most ``count`` rows from row ``start`` on."""
        part = slice(start, start + count)
        cells = {name: Cells(each.values[part], each.good[part]) for name, each in self.cells.items()}
        have = min(count, self.count - start)
        first_ns = self.first_ns + start * self.every_ns
        return Rows(first_ns, self.every_ns, have, cells, max(0, self.before - start))


def sampled(found: Column, grid: Grid, first: int, count: int) -> Cells:
    """The cells of ``count`` rows from row ``first`` on. Readings of other rows are not looked at."""
    edges = np.array([grid.end(first + step - 1) for step in range(count + 1)], np.int64)
    places = found.times.searchsorted(edges, side="right")
    last = places[1:] - 1
    there = places[1:] > places[:-1]
    values, good = np.full(count, np.nan), np.ones(count, bool)
    values[there] = found.values[last[there]]
    good[there] = found.quality[last[there]] == GOOD
    return Cells(values, good)


def joined(one: Cells, two: Cells) -> Cells:
    """Rows one after the other."""
    return Cells(np.concatenate([one.values, two.values]), np.concatenate([one.good, two.good]))
