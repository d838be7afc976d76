"""The way down in fewer bytes: a model as its difference to the one before, exact to the last bit.

A step is lots (`reuna.learn.lots`) of the differences of the two models' float32 bit patterns, as integers of
32 bits that wrap. Weights that hardly moved keep sign, exponent and high bits, so the differences are small.
Whoever has the model before makes the model of it, and believes it only if its digest is the plan's.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import BadMessage
from reuna.core.ports import Blob, Blobs
from reuna.exchange.bodies import Whole, pack_lots
from reuna.learn.grid import LOT
from reuna.learn.lots import Lots

WORTH = 3  #: bytes a value, of the 4 of a float32: making a step costs time, so less is not worth it


def make_step(old: Blob, new: Blob, blobs: Blobs) -> Blob | None:
    """The step from one model to the next of the same tensors; None where it is not worth it.

    It need not outlive a power cut: without it the model is fetched whole. Raises `DiskFull`.
    """
    head = _head(old)
    if old.size != new.size or old.read(0, head) != new.read(0, head):
        return None
    count = (old.size - head) // 4
    lots = (_patterns(new, head, *lot) - _patterns(old, head, *lot) for lot in _lots(count))
    return pack_lots(blobs.new(WORTH * count), lots, WORTH, count, durable=False)


def take_step(old: Blob, step: Blob, digest: str, blobs: Blobs) -> Blob | None:
    """The model of that digest, in ``blobs``; None when the step does not lead to it. Raises `DiskFull`."""
    head = _head(old)
    count = (old.size - head) // 4
    out = Whole(blobs.new(old.size))
    try:
        out.write(old.read(0, head))
        for lot, values in zip(_lots(count), Lots(step.read, step.size, count), strict=True):
            out.write((_patterns(old, head, *lot) + values.astype(np.int32)).astype("<i4").tobytes())
    except BadMessage:
        out.abandon()
        return None
    except BaseException:
        out.abandon()
        raise
    made = out.seal(durable=False)
    if made.digest == digest:
        return made
    blobs.drop(made.digest)
    return None


def _head(model: Blob) -> int:
    return int.from_bytes(model.read(0, 8), "little") + 8


def _lots(count: int) -> Iterator[tuple[int, int]]:
    """Where each lot begins, and its count."""
    return ((first, min(LOT, count - first)) for first in range(0, count, LOT))


def _patterns(model: Blob, head: int, first: int, count: int) -> NDArray[np.int32]:
    return np.frombuffer(model.read(head + 4 * first, 4 * count), "<i4")
