"""What a sender knows of its line and of packing, and whether packing pays. Decided without I/O.

Packing costs time and saves bytes. On a thin line it pays, on a fast one it does not. So a sender packs when

    cost * size + ratio * size / rate  <  size / rate

where ``size`` is that of the plain body, ``rate`` what the line carried last, ``cost`` (seconds a plain byte)
and ``ratio`` (packed over plain) those of the last body of its form that was packed. What is not known yet
makes it pack: that costs little, and tells all three.

Whoever sends plain learns nothing more of cost and ratio. So one body is packed again for every `AGAIN`
times its cost that plain ones took: on a line that stays as it is that is at most a twentieth of the time.

>>> packing = Packing(cost=14e-9, ratio=0.5)
>>> pays(8_000, packing), pays(1_000_000_000, packing)
(True, False)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

AGAIN = 20.0  #: packing is tried again after it would have cost a twentieth of what plain bodies took
TELLING = 4_096  #: bytes: a smaller transfer says nothing of a line
PARENT_S = 0.2  #: a parent may take so long over a body once it is there, and is no slow line for it


@dataclass(frozen=True)
class Rates:
    """Bytes a second that a line carried last, up and down; None while that is not known."""

    up: float | None = None
    down: float | None = None


@dataclass(frozen=True)
class Packing:
    """Of the last body of one form that was packed: seconds a plain byte, packed over plain bytes.

    ``spent_s``: what plain ones took since.
    """

    cost: float
    ratio: float
    spent_s: float = 0.0


def pays(rate: float, packing: Packing) -> bool:
    """Whether packing and sending what is left is faster than sending the plain body. ``rate``: bytes/s."""
    return packing.cost + packing.ratio / rate < 1 / rate


def packs(size: int, rate: float | None, packing: Packing | None) -> bool:
    """Whether a body of so many plain bytes is packed. None: not known yet."""
    if rate is None or packing is None or pays(rate, packing):
        return True
    return packing.spent_s >= AGAIN * packing.cost * size


def after_plain(packing: Packing, size: int, rate: float) -> Packing:
    """What is known after a body of so many bytes was sent plain."""
    return replace(packing, spent_s=packing.spent_s + size / rate)


def rate_of(sent: int, took_s: float, seen: float | None) -> float | None:
    """Bytes a second that a line carries, by one transfer over it; None where that tells nothing.

    ``seen`` is what the kernel says of the connection, None where it says nothing. It counts alone where the
    transfer was quick. Something on this machine that passes all on may take it at once; then the whole time
    tells more: no line is faster than its transfer, a parent's work apart.
    """
    if sent < TELLING or took_s <= 0:
        return None
    if seen is None:
        return sent / took_s
    return min(seen, sent / (took_s - PARENT_S)) if took_s > PARENT_S else seen


def step_pays(step: int, whole: int, rate: float | None, cost: float | None) -> bool:
    """Whether a model is fetched as its step rather than whole, both in bytes.

    ``cost``: seconds that a byte of the model takes when it is made of a step; None: not known yet.
    """
    return rate is None or cost is None or step / rate + cost * whole < whole / rate
