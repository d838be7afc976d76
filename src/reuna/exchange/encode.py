"""Trained weights as integers on the plan's grid, block by block; memory does not grow with the model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import Refused
from reuna.core.ports import Blob, BlobWriter
from reuna.core.records import Encoding, Plan
from reuna.exchange.bodies import Whole
from reuna.exchange.leftovers import Left
from reuna.learn import grid as fixed
from reuna.learn.rounding import LEFT_TYPE, Largest, fine, noise, noise_key, rescaled, rounded, unsent

NewLeft = Callable[[int], BlobWriter]
SAFE = 1e12  #: float32 values below this can be squared and added up


class Extent(NamedTuple):
    """How far an update goes: its largest value in size, its length (L2)."""

    largest: float
    norm: float


def extent(base: Blob, weights: Blob, params: int) -> Extent:
    """Of ``weights - base``.

    Both blobs are models as `reuna.core.tensors.pack` writes them, with equal headers. Raises
    `Refused` for another shape or a value that is not finite.
    """
    largest, squares = 0.0, 0.0
    for first, delta in _differences(base, weights, params):
        found = max(float(delta.max()), -float(delta.min()))
        if not math.isfinite(found):  # a NaN is the largest and the smallest
            raise Refused("not-finite", f"the update has values that are not finite after value {first}")
        largest = max(largest, found)
        squares += float(np.dot(delta, delta)) if found < SAFE else float(np.square(delta, dtype=float).sum())
    return Extent(largest, math.sqrt(squares))


class Shaped:
    """``weights - base`` on the plan's grid, as its encoding wants it; asked lot by lot, as often as wanted.

    ``past`` is what this node did not send before (fine steps, `reuna.learn.rounding`), None for nothing.
    After each time round, ``saturated`` and ``norm`` (L2, of what is sent) are of all lots, and ``left`` has
    what was not sent, where the encoding wants feedback; ``new_left`` makes a writer for so many values.
    """

    def __init__(
        self, plan: Plan, base: Blob, weights: Blob, node: str, past: Left | None, new_left: NewLeft
    ) -> None:
        self._plan, self._base, self._weights, self._past = plan, base, weights, past
        self._new_left = new_left
        self.left: Whole | None = None
        self._asked = plan.encoding or Encoding(packed=False)
        self._key = noise_key(plan.seed, plan.round, node)
        self.saturated = 0
        self.norm = 0.0

    def lots(self) -> Iterator[fixed.Ints]:
        """The integers that are sent. Raises `DiskFull` for what is left."""
        self.saturated, squares = 0, 0.0
        if self.left is not None:
            self.left.abandon()
        self.left = Whole(self._new_left(self._plan.params)) if self._asked.feedback else None
        for sent, clipped in self._plain() if self.is_plain else self._shaped():
            self.saturated += clipped
            floats = sent.astype(np.float64)
            squares += float(np.dot(floats, floats))
            yield sent
        self.norm = math.sqrt(squares) * self._plan.grid.step

    @property
    def is_plain(self) -> bool:
        """Whether each value goes to the nearest of the grid, and nothing more."""
        asked = self._asked
        return not (asked.stochastic or asked.feedback) and asked.keep == 1

    def _plain(self) -> Iterator[tuple[fixed.Ints, int]]:
        for _, delta in _differences(self._base, self._weights, self._plan.params):
            yield fixed.encode(delta, self._plan.grid)

    def _shaped(self) -> Iterator[tuple[fixed.Ints, int]]:
        grid = self._plan.grid
        largest = Largest(self._wanted, self._kept) if self._asked.keep < 1 else None
        for number, wanted in enumerate(self._wanted()):
            chosen = wanted if largest is None else largest.of(wanted)
            by_chance = noise(self._key, number, len(wanted), grid) if self._asked.stochastic else None
            sent, clipped = rounded(chosen, grid, by_chance)
            if self.left is not None:
                self.left.write(unsent(wanted, sent, grid).astype(LEFT_TYPE).tobytes())
            yield sent, clipped

    @property
    def _kept(self) -> int:
        return max(1, math.ceil(self._asked.keep * self._plan.params - 1e-9))

    def _wanted(self) -> Iterator[NDArray[np.int64]]:
        """The difference and what was left of those before, in fine steps."""
        size = LEFT_TYPE.itemsize
        for first, delta in _differences(self._base, self._weights, self._plan.params):
            wanted = fine(delta, self._plan.grid)
            if self._past is not None:
                left = np.frombuffer(self._past.values.read(first * size, len(delta) * size), LEFT_TYPE)
                wanted += rescaled(left, self._past.exponent, self._plan.grid)
            yield wanted


def _differences(base: Blob, weights: Blob, params: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Where each lot begins, and its values; whole blocks of any width but for the last."""
    start = _same_header(base, weights, params)
    for first in range(0, params, fixed.LOT):
        count = min(fixed.LOT, params - first)
        yield first, _floats(weights, start, first, count) - _floats(base, start, first, count)


def schema_of(model: Blob) -> str:
    """SHA-256 of a model's header: names and shapes of its tensors."""
    length = int.from_bytes(model.read(0, 8), "little") + 8
    return hashlib.sha256(model.read(0, length)).hexdigest()


def _same_header(base: Blob, weights: Blob, params: int) -> int:
    """Where the values start, once both headers are known to be equal."""
    length = int.from_bytes(base.read(0, 8), "little") + 8
    sizes = {base.size, weights.size}
    if sizes != {length + 4 * params} or base.read(0, length) != weights.read(0, length):
        raise Refused("shape", "the trained model's tensors are not those of the base model")
    return length


def _floats(blob: Blob, start: int, first: int, count: int) -> NDArray[np.float32]:
    return np.frombuffer(blob.read(start + 4 * first, 4 * count), "<f4")
