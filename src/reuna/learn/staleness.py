"""How much less an update counts that was made from an older model. Whole numbers, so that sums stay exact.

FedBuff (Nguyen et al. 2022, Federated Learning with Buffered Asynchronous Aggregation) weighs an update whose
base is ``s`` steps old by ``1 / sqrt(1 + s)``. Here that is ``factor(s) / SCALE``, to the nearest: the same
on every machine. Nothing is made up for: stale updates make a smaller step.

>>> [factor(staleness) for staleness in (0, 1, 3, 8)]
[1024, 724, 512, 341]
"""

from __future__ import annotations

from math import isqrt

SCALE = 1024  #: a power of two: scaled by it, what is fresh has the same bits as without


def factor(staleness: int) -> int:
    """Of an update whose base is so many steps (0 or more) older than the model it moves, 1..SCALE."""
    return max(1, (isqrt(4 * SCALE * SCALE // (1 + staleness)) + 1) // 2)
