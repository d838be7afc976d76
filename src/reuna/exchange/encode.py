"""Trained weights as integers on the plan's grid, block by block; memory does not grow with the model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator

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


class TooWideError(Exception):
    """An integer needs more bytes than was asked for."""


class Shaped:
    """``weights - base`` on the plan's grid, as its encoding wants it; asked lot by lot, as often as wanted.

    ``base`` and ``weights`` are models as `reuna.core.tensors.pack` writes them, with equal headers.
    ``past`` is what this node did not send before (fine steps, `reuna.learn.rounding`), None for nothing.
    After each time round, ``saturated``, ``norm`` (L2, of what is sent) and ``width`` (fewest bytes for any
    of the integers) are of all lots, and ``left`` has what was not sent, where the encoding wants feedback;
    ``new_left`` makes a writer for so many values.
    """

    def __init__(
        self, plan: Plan, base: Blob, weights: Blob, node: str, past: Left | None, new_left: NewLeft
    ) -> None:
        self._plan, self._base, self._weights, self._past = plan, base, weights, past
        self._new_left = new_left
        self.left: Whole | None = None
        self._asked = plan.encoding or Encoding(packed=False)
        self._node = node
        self.saturated = 0
        self.norm = 0.0
        self.width = 0

    def needed(self) -> int:
        """Fewest bytes for any of the integers, before they are made: of a plain update read once more.

        Raises `Refused` for another shape or a value that is not finite.
        """
        if not self.is_plain:
            return fixed.update_width(self._plan.grid)
        most = max((fixed.largest(delta, first) for first, delta in self._deltas()), default=0.0)
        return fixed.needed_width(most, self._plan.grid)

    def lots(self, width: int) -> Iterator[fixed.Ints]:
        """The integers that are sent, which have to fit ``width`` bytes.

        Raises `TooWideError` where one does not, `Refused` as `needed`, `DiskFull` for what is left.
        """
        if self.left is not None:
            self.left.abandon()
        self.left = Whole(self._new_left(self._plan.params)) if self._asked.feedback else None
        return self._plain(width) if self.is_plain else self._shaped(width)

    @property
    def is_plain(self) -> bool:
        """Whether each value goes to the nearest of the grid, and nothing more."""
        asked = self._asked
        return not (asked.stochastic or asked.feedback) and asked.keep == 1

    def _plain(self, width: int) -> Iterator[fixed.Ints]:
        encoder = fixed.Encoder(self._plan.grid)
        for _, delta in self._deltas():
            sent = encoder(delta)
            if encoder.width > width:
                raise TooWideError
            yield sent
        self._sent(encoder.saturated, encoder.squares, encoder.width)

    def _sent(self, saturated: int, squares: float, width: int) -> None:
        self.saturated, self.width = saturated, width
        self.norm = math.sqrt(squares) * self._plan.grid.step

    def _shaped(self, width: int) -> Iterator[fixed.Ints]:
        grid, saturated, squares = self._plan.grid, 0, 0.0
        key = noise_key(self._plan.seed, self._plan.round, self._node)
        largest = Largest(self._wanted, self._kept) if self._asked.keep < 1 else None
        for number, wanted in enumerate(self._wanted()):
            chosen = wanted if largest is None else largest.of(wanted)
            by_chance = noise(key, number, len(wanted), grid) if self._asked.stochastic else None
            sent, clipped = rounded(chosen, grid, by_chance)
            if self.left is not None:
                self.left.write(unsent(wanted, sent, grid).astype(LEFT_TYPE).tobytes())
            saturated += clipped
            floats = sent.astype(np.float64)
            squares += float(np.dot(floats, floats))
            yield sent
        self._sent(saturated, squares, width)

    @property
    def _kept(self) -> int:
        return max(1, math.ceil(self._asked.keep * self._plan.params - 1e-9))

    def _wanted(self) -> Iterator[NDArray[np.int64]]:
        """The difference and what was left of those before, in fine steps."""
        size = LEFT_TYPE.itemsize
        for first, delta in self._deltas():
            fixed.largest(delta, first)
            wanted = fine(delta, self._plan.grid)
            if self._past is not None:
                left = np.frombuffer(self._past.values.read(first * size, len(delta) * size), LEFT_TYPE)
                wanted += rescaled(left, self._past.exponent, self._plan.grid)
            yield wanted

    def _deltas(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Where each lot begins, and its differences, good until the next is asked for."""
        params = self._plan.params
        held = np.empty(min(fixed.LOT, params), np.float32)
        start = _same_header(self._base, self._weights, params)
        for first in range(0, params, fixed.LOT):
            count = min(fixed.LOT, params - first)
            after = _floats(self._weights, start, first, count)
            before = _floats(self._base, start, first, count)
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is looked for
                delta = np.subtract(after, before, out=held[:count])
            yield first, delta


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
