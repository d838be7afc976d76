"""How far values have moved from those that a model was trained on, told from counts in fixed bins alone.

    found = shift(reference, seen)        # of one signal, two `reuna.core.bins.Counted`
    found.psi, found.js, found.ks, found.outside

Counts of several tables, shifts or machines are summed first, by `reuna.core.bins.together`; so no order of
merging matters, and no measure needs a row. Each measure is None where either side has no values at all:
nothing can be said then. None of them is a test: with few values all of them are large by chance alone.

>>> psi([50, 50], [50, 50]), psi([50, 50], [0, 0])
(0.0, None)
>>> round(psi([50, 50], [75, 25]), 3), round(jensen_shannon([50, 50], [75, 25]), 3)
(0.275, 0.221)
>>> kolmogorov_smirnov([50, 50], [75, 25])
0.25
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from reuna.core.bins import Counted
from reuna.core.contract import Line

FLOOR = 1e-4  #: a fraction of zero counts as this in `psi`, where a logarithm is taken
MODERATE, LARGE = 0.1, 0.25  #: of `psi`, as credit scoring has read it since Siddiqi (2006)

Fractions = NDArray[np.float64]


class Shift(msgspec.Struct, frozen=True):
    """How far one signal has moved. ``rows``: values behind the new counts, ``before``: behind the old.

    ``outside``: fraction of values outside of the contract's range, less what it was, -1 to 1.
    """

    signal: str
    before: int
    rows: int
    psi: float | None
    js: float | None
    ks: float | None
    outside: float | None


class Filled(msgspec.Struct, frozen=True):
    """How many cells of a signal have a value, of how many rows."""

    signal: str
    filled: int
    rows: int


def shift(reference: Counted, seen: Counted) -> Shift:
    """One signal's counts against those of its training."""
    before, now = _fractions(reference.cells), _fractions(seen.cells)
    moved = None if before is None or now is None else float(now[-1] - before[-1])
    return Shift(
        seen.signal,
        sum(reference.cells),
        sum(seen.cells),
        psi(reference.cells, seen.cells),
        jensen_shannon(reference.cells, seen.cells),
        kolmogorov_smirnov(reference.counts, seen.counts),
        moved,
    )


def shifts(reference: Iterable[Counted], seen: Iterable[Counted]) -> tuple[Shift, ...]:
    """Of each signal that both sides counted, in the order of the reference."""
    now = {each.signal: each for each in seen}
    return tuple(shift(each, now[each.signal]) for each in reference if each.signal in now)


def psi(reference: Sequence[int], seen: Sequence[int]) -> float | None:
    """Population stability index: the sum of (q - p) ln(q / p) over bins, 0 to 2 ln(1 / `FLOOR`).

    It is Jeffreys' divergence (Jeffreys 1946; Siddiqi 2006 for its use on scores), symmetric. Fractions
    below `FLOOR` are taken as that, so that one empty bin does not make it infinite. Raises `ValueError`
    for another number of bins.
    """
    pair = _pair(reference, seen)
    if pair is None:
        return None
    p, q = (np.maximum(side, FLOOR) for side in pair)
    return float(((q - p) * np.log(q / p)).sum())


def jensen_shannon(reference: Sequence[int], seen: Sequence[int]) -> float | None:
    """Jensen-Shannon distance to base 2, 0 to 1: a metric (Endres and Schindelin 2003).

    The root of the mean divergence (Kullback and Leibler) of both from their mean. Raises `ValueError`
    for another number of bins.
    """
    pair = _pair(reference, seen)
    if pair is None:
        return None
    middle = (pair[0] + pair[1]) / 2
    divergence = sum(_relative_entropy(side, middle) for side in pair) / 2
    return float(np.sqrt(min(max(divergence, 0.0), 1.0)))


def kolmogorov_smirnov(reference: Sequence[int], seen: Sequence[int]) -> float | None:
    """Largest distance of two distribution functions at the bins' edges, 0 to 1, bins in ascending order.

    The two-sample statistic of values that are known by bin alone; that of the values themselves is at
    least as large. Raises `ValueError` for another number of bins.
    """
    pair = _pair(reference, seen)
    if pair is None:
        return None
    return float(min(np.abs(np.cumsum(pair[0] - pair[1])).max(), 1.0))


def filled(lines: Iterable[Line]) -> tuple[Filled, ...]:
    """Filled cells by signal, from the counts by which data keep a contract (`reuna.core.conformity`).

    Rows are those that ``present`` counts; ``type`` looks at the filled cells.
    """
    rows: dict[str, int] = {}
    cells: dict[str, int] = {}
    for line in lines:
        if line.rule in ("present", "type"):
            into = rows if line.rule == "present" else cells
            into[line.signal] = into.get(line.signal, 0) + line.passed + line.failed
    return tuple(Filled(name, cells[name], whole) for name, whole in rows.items() if name in cells)


def _pair(reference: Sequence[int], seen: Sequence[int]) -> tuple[Fractions, Fractions] | None:
    if len(reference) != len(seen):
        raise ValueError(f"{len(reference)} bins against {len(seen)}")
    before, now = _fractions(reference), _fractions(seen)
    return None if before is None or now is None else (before, now)


def _fractions(counts: Sequence[int]) -> Fractions | None:
    whole = sum(counts)
    return np.array(counts, np.float64) / whole if whole else None


def _relative_entropy(p: Fractions, q: Fractions) -> float:
    """Kullback-Leibler divergence in bits; ``q`` is above zero wherever ``p`` is."""
    there = p > 0
    return float((p[there] * np.log2(p[there] / q[there])).sum())
