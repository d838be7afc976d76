"""How much less an update counts that was made from an older model. Whole numbers, so that sums stay exact.

FedBuff (Nguyen et al. 2022, Federated Learning with Buffered Asynchronous Aggregation) weighs an update whose
base is ``s`` steps old by ``1 / sqrt(1 + s)``. Here that is ``factor(s) / SCALE``, to the nearest: the same
on every machine. Nothing is made up for: stale updates make a smaller step.

>>> [factor(staleness) for staleness in (0, 1, 3, 8)]
[1024, 724, 512, 341]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isqrt
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import PlanError
from reuna.learn.sums import BLOCK_VALUES, Part, Read

S = TypeVar("S")
LOW = 16  #: bits of an integer that are summed apart from those above
SCALE = 1024  #: a power of two: scaled by it, what is fresh has the same bits as without


def factor(staleness: int) -> int:
    """Of an update whose base is so many steps (0 or more) older than the model it moves, 1..SCALE."""
    return max(1, (isqrt(4 * SCALE * SCALE // (1 + staleness)) + 1) // 2)


def check_sum(updates: int, max_weight: int) -> None:
    """Refuse a run in which the sum of so many updates could overflow 64 bits. Raises `PlanError`."""
    if updates * max_weight * SCALE >= 2 ** (63 - LOW):
        raise PlanError(
            f"{updates} updates with weights up to {max_weight} could overflow a 64-bit sum "
            f"({updates} * {max_weight} * {SCALE} * 2^{LOW} >= 2^63)",
            "Lower round.max_weight or strategy.max_staleness.",
        )


def fold(read: Read[S], parts: Sequence[Part[S]], params: int) -> Iterator[NDArray[np.float64]]:
    """Blocks of the weighted sum, as `reuna.learn.sums.fold`, of integers of up to 32 bits.

    The lower and the upper half of each are summed apart, exactly, and come together in one rounding at the
    end: so weights by staleness fit beside 32 bits, and a sum of fresh updates has the bits of one without.
    """
    size = min(BLOCK_VALUES, params)
    low, high = np.empty(size, np.int64), np.empty(size, np.int64)
    for start in range(0, params, BLOCK_VALUES):
        count = min(BLOCK_VALUES, params - start)
        lower, upper = low[:count], high[:count]
        lower.fill(0)
        upper.fill(0)
        for part in parts:
            values = np.asarray(read(part, start, count), np.int64)
            lower += (values & (2**LOW - 1)) * np.int64(part.multiplier)
            upper += (values >> LOW) * np.int64(part.multiplier)
        yield upper.astype(np.float64) * 2.0**LOW + lower.astype(np.float64)
