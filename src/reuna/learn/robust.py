"""How single updates combine so that a few nodes that lie cannot move the result where they want.

    median             Yin et al. 2018, Byzantine-Robust Distributed Learning, option I: value by value
    trimmed-mean       the same, option II: value by value, without the ``byzantine`` smallest and largest
    krum               Blanchard et al. 2017, Machine Learning with Adversaries: the update whose
                       n - byzantine - 2 nearest others are nearest
    multi-krum         the same, section 5: the mean of the ``keep`` best of them; 0: n - byzantine
    geometric-median   Pillutla et al. 2022, Robust Aggregation for Federated Learning, algorithm 2
                       (Weiszfeld's, smoothed): the point with the least sum of distances
    centred-clipping   Karimireddy et al. 2021, Learning from History, section 4: the mean of the
                       differences to the last round's step, each cut to length ``radius``; 0: the median
                       of their lengths, each time

Each node has one vote, whatever weight it claims. The first two work value by value
(`reuna.learn.order`). The others need nothing but the distances between updates, which are exact
(`reuna.learn.distances`); their result is a sum of updates with a factor each, so that the models are
read twice, however many iterations there are. What is computed in floating point is done in the order
of the rows, in plain additions and multiplications: the same bits for every split into blocks and on
every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import PlanError
from reuna.core.records import Grid
from reuna.learn.distances import Exact, Read, squares
from reuna.learn.grid import encode
from reuna.learn.order import columns_of, median, trimmed_mean

Floats = NDArray[np.float64]
Given = Mapping[str, float]
CENTRE = "centre"  #: slot of the last round's step
Centre = Callable[[int, int], NDArray[np.floating]]  #: (start, count) -> values of that slot


@dataclass(frozen=True)
class Fold:
    """How the single updates of a round become one step.

    ``settings`` and their defaults; ``least`` nodes that a round needs. Either ``of_values`` gives the
    step in steps of the grid of a block (n, count), or ``factors`` gives what each update is multiplied
    by, of exact squared distances between all of them, and ``centred``: the last row is the centre.
    """

    name: str
    least: Callable[[Given], int]
    settings: Mapping[str, float] = field(default_factory=dict)
    of_values: Callable[[NDArray[Any], Given], NDArray[np.floating]] | None = None
    factors: Callable[[Exact, Given], Floats] | None = None
    centred: bool = False

    def steps(
        self, read: Read, rows: int, values: int, grid: Grid, settings: Given, centre: Centre
    ) -> Iterator[Floats]:
        """Blocks of the step, (count,) in the model's unit, in order.

        ``read(start, count)`` gives integers of the grid, (rows, count). Raises `PlanError` for too few rows.
        """
        self.check_rows(settings, rows)
        if self.of_values is not None:
            of_block = self._by_value(settings)
        else:
            if self.centred:
                read, rows = _with_centre(read, centre, grid), rows + 1
            of_block = self._by_factors(squares(read, rows, values), grid, settings)
        size = columns_of(rows, 4)
        for start in range(0, values, size):
            block = read(start, min(size, values - start))
            yield np.multiply(of_block(block), grid.step, dtype=np.float64)

    def check_rows(self, settings: Given, rows: int) -> None:
        """Raises `PlanError` when so few updates leave nothing to tell a liar by."""
        least = self.least(settings)
        if rows < least:
            liars = f" with byzantine = {int(settings['byzantine'])}" if "byzantine" in settings else ""
            raise PlanError(
                f"{self.name}{liars} needs the updates of at least {least} nodes, and there may be {rows}",
                "Ask more nodes, raise round.quorum, or choose another strategy.name or strategy.byzantine.",
            )

    def _by_value(self, settings: Given) -> Callable[[NDArray[Any]], NDArray[np.floating]]:
        assert self.of_values is not None
        of_values = self.of_values
        return lambda block: of_values(block, settings)

    def _by_factors(
        self, distances: Exact, grid: Grid, settings: Given
    ) -> Callable[[NDArray[Any]], NDArray[np.floating]]:
        assert self.factors is not None
        lengths = {name: settings[name] / grid.step for name in ("radius", "smoothing") if name in settings}
        factors = self.factors(distances, {**settings, **lengths})
        return lambda block: _mixed(block, factors)


def _with_centre(read: Read, centre: Centre, grid: Grid) -> Read:
    """The centre, on the grid, as one more row."""

    def both(start: int, count: int) -> NDArray[np.signedinteger]:
        return np.vstack([read(start, count), encode(centre(start, count), grid)[0]])

    return both


def _mixed(block: NDArray[Any], factors: Floats) -> Floats:
    """Sum of the rows times their factors over the sum of the factors; exact where all are whole."""
    total, scaled = np.zeros(block.shape[1]), np.empty(block.shape[1])
    for row, factor in zip(block, factors, strict=True):
        if factor:
            np.add(total, np.multiply(row, factor, out=scaled), out=total)
    return np.divide(total, math.fsum(factors), out=total)


def _liars(given: Given) -> int:
    return int(given["byzantine"])


# --- Krum --------------------------------------------------------------------------------------


def _krum(distances: Exact, given: Given) -> Floats:
    return _best(distances, _liars(given), 1)


def _multi_krum(distances: Exact, given: Given) -> Floats:
    byzantine = _liars(given)
    most = len(distances) - byzantine
    return _best(distances, byzantine, min(int(given["keep"]) or most, most))


def _best(distances: Exact, byzantine: int, keep: int) -> Floats:
    """1 for the ``keep`` rows of the least score; the first of equals."""
    near = len(distances) - byzantine - 2
    scores = [sum(sorted(np.delete(row, place))[:near]) for place, row in enumerate(distances)]
    factors = np.zeros(len(distances))
    factors[sorted(range(len(scores)), key=scores.__getitem__)[:keep]] = 1.0
    return factors


# --- points between updates ----------------------------------------------------------------------


class _Between:
    """Points that are sums of updates with factors, told by the factors; distances in double.

    Products are taken of differences to the update that is nearest to all others, so that one that is
    far away does not take the digits of those that are close.
    """

    def __init__(self, distances: Exact) -> None:
        middle = min(range(len(distances)), key=[sum(row) for row in distances].__getitem__)
        to_middle = distances[middle]
        twice = to_middle[:, None] + to_middle[None, :] - distances
        self._products = np.array([[int(each) / 2 for each in row] for row in twice])

    def lengths(self, factors: Floats) -> Floats:
        """Distance of each update from the point, whose factors add up to 1."""
        products = np.zeros(len(factors))
        for factor, row in zip(factors, self._products, strict=True):
            products += factor * row
        own = math.fsum(factors * products)
        squares_of: Floats = own - 2 * products + self._products.diagonal()
        return np.sqrt(np.maximum(squares_of, 0.0))


def _geometric_median(distances: Exact, given: Given) -> Floats:
    between, factors = _Between(distances), np.full(len(distances), 1 / len(distances))
    for _ in range(int(given["iterations"])):
        nearness = 1.0 / np.maximum(between.lengths(factors), given["smoothing"])
        factors = nearness / math.fsum(nearness)
    return factors


def _centred_clipping(distances: Exact, given: Given) -> Floats:
    nodes, between = len(distances) - 1, _Between(distances)
    factors = np.zeros(nodes + 1)
    factors[-1] = 1.0
    for _ in range(int(given["iterations"])):
        lengths = between.lengths(factors)[:nodes]
        radius = given["radius"] or float(np.median(lengths))
        shares = np.minimum(1.0, np.divide(radius, lengths, out=np.ones(nodes), where=lengths > 0)) / nodes
        factors *= 1.0 - math.fsum(shares)
        factors[:nodes] += shares
    return factors


def _few(_given: Given) -> int:
    """Of two nobody knows which one lies."""
    return 3


def _beyond(each: int, more: int) -> Callable[[Given], int]:
    return lambda given: each * _liars(given) + more


LIARS = {"byzantine": 1.0}

FOLDS: Mapping[str, Fold] = {
    fold.name: fold
    for fold in (
        Fold("median", _few, of_values=lambda block, _given: median(block)),
        Fold("trimmed-mean", _beyond(2, 1), LIARS, lambda block, given: trimmed_mean(block, _liars(given))),
        Fold("krum", _beyond(2, 3), LIARS, factors=_krum),
        Fold("multi-krum", _beyond(2, 3), {**LIARS, "keep": 0.0}, factors=_multi_krum),
        Fold("geometric-median", _few, {"iterations": 32.0, "smoothing": 1e-6}, factors=_geometric_median),
        Fold("centred-clipping", _few, {"iterations": 3.0, "radius": 0.0}, None, _centred_clipping, True),
    )
}
