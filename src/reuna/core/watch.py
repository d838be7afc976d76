"""Whether what a machine sees still is what it saw when its model was trained, told from counts alone.

Readings are counted in *blocks*, each of as many rows. Blocks of the time of training are the reference; a
new block is held against them, and a detector adds up what it says:

    found = compare(reference, block)                 # how unusual, for each signal and for all together
    state, said = step(rule, state, found)            # said.alarm, said.moved

What a block says is a conformal p-value (Vovk, Gammerman, Shafer 2005): with the new block in one bag with
the reference, each block is scored by the Jensen-Shannon distance of its counts from those of all others,
and the p-value is the share of blocks that score as high. That asks nothing of how values are spread, nor
that rows be independent: only that blocks could as well have come in another order. Of few blocks a
p-value is itself an estimate, so its upper confidence limit is used instead (Clopper and Pearson 1934).

P-values become bets (Sellke, Bayarri, Berger 2001; Vovk and Wang 2021) and are added up by the recursion of
Shiryaev (1963) and Roberts (1966), R = (1 + R) e, for each signal and for the largest score of all. The mean
of such sums is one again, whatever the signals have to do with each other, so ``periods`` says how many
blocks there are between two false alarms, on average and at least, for all signals together (Shin, Ramdas,
Rinaldo 2023).

>>> round(limits(20)[0], 3), round(bet(0.109), 2), bet(1.0)
(0.109, 1.21, 0.5)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from reuna.core.bins import Counted
from reuna.core.errors import DataError

LEAST = 20  #: blocks of a reference; with fewer no block can be unusual
MOST = 400  #: blocks of a reference; more change little
CONFIDENCE = 0.9  #: of the limits of p-values
FULL = 1e15  #: a sum does not grow further

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """Counts of blocks of the time of training: (blocks, signals, cells)."""

    signals: tuple[str, ...]
    blocks: Counts

    def __len__(self) -> int:
        return len(self.blocks)


class Rule(msgspec.Struct, frozen=True):
    """``periods``: how many blocks without any drift there are from one false alarm to the next, at least."""

    periods: float


class State(msgspec.Struct, frozen=True):
    """The sums, of all signals together and of each; how many blocks were looked at since the start."""

    seen: int = 0
    whole: float = 0.0
    sums: tuple[float, ...] = ()


class Said(msgspec.Struct, frozen=True):
    """After a block. ``level``: the sum as a share of that at which there is an alarm.

    ``moved``: signals that have moved by themselves, the furthest first.
    """

    alarm: bool
    level: float
    moved: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compared:
    """How unusual a block is. ``scores`` (signals,): distances, 0 to 1; ``limits`` (signals,) and ``whole``:
    upper limits of the p-values; ``typical`` (signals,): the middle score of a block without drift."""

    signals: tuple[str, ...]
    scores: Floats
    typical: Floats
    limits: Floats
    whole: float


def reference(blocks: Sequence[Sequence[Counted]]) -> Reference:
    """Of blocks of equally many rows, in any order; signals are those of the first.

    Of more than `MOST` blocks as many are taken, evenly. Raises `DataError` for fewer than `LEAST`.
    """
    if len(blocks) < LEAST:
        raise DataError(
            f"{len(blocks)} blocks are too few to tell what is usual, at least {LEAST} are needed",
            "Give more data of the time of training, or take shorter blocks.",
        )
    chosen = [blocks[at] for at in np.unique(np.linspace(0, len(blocks) - 1, MOST).astype(int))]
    names = tuple(each.signal for each in chosen[0])
    return Reference(names, np.stack([_cells(names, block) for block in chosen]))


def compare(against: Reference, block: Sequence[Counted]) -> Compared:
    """How unusual the counts of a new block are."""
    bag = np.concatenate([against.blocks, _cells(against.signals, block)[None]])
    scores = _distances(bag)
    typical = np.maximum(np.median(scores[:-1], axis=0), np.finfo(float).tiny)
    largest = (scores / typical).max(axis=1, initial=0.0)
    table = np.array(limits(len(against)))
    return Compared(
        against.signals,
        scores[-1],
        typical,
        table[(scores[:-1] >= scores[-1]).sum(axis=0)],
        float(table[int((largest[:-1] >= largest[-1]).sum())]),
    )


def step(rule: Rule, state: State, found: Compared) -> tuple[State, Said]:
    """The sums after one more block. After an alarm they go on: whoever acts on it begins with `State()`."""
    before = state.sums or (0.0,) * len(found.signals)
    sums = tuple(_grown(one, limit) for one, limit in zip(before, found.limits, strict=True))
    whole = _grown(state.whole, found.whole)
    level = (whole + sum(sums) / len(sums)) / 2 / rule.periods if sums else 0.0
    moved = sorted(
        (name for name, one in zip(found.signals, sums, strict=True) if one >= rule.periods),
        key=dict(zip(found.signals, -found.scores / found.typical, strict=True)).__getitem__,
    )
    return State(state.seen + 1, whole, sums), Said(level >= 1, min(level, FULL), tuple(moved))


def bet(p: float) -> float:
    """What a p-value is worth: its mean over p-values without drift is 1 (the mixture of all p^(k-1) k)."""
    if p >= 1:
        return 0.5
    logarithm = math.log(p)
    return (1 - p + p * logarithm) / (p * logarithm * logarithm)


@lru_cache(maxsize=64)
def limits(blocks: int) -> tuple[float, ...]:
    """Upper limits of the chance that a block without drift scores as high, by how many of the blocks do.

    That of Clopper and Pearson: the chance at which so few have probability 1 - `CONFIDENCE`.
    """
    chances = np.arange(blocks) / blocks
    logarithms = np.cumsum(np.log(np.arange(1, blocks + 1)))  # of factorials, from 1 on
    factorials = np.concatenate([[0.0], logarithms])
    number = np.arange(blocks + 1)
    ways = factorials[-1] - factorials - factorials[::-1]
    low, high = chances, np.ones(blocks)
    for _ in range(45):
        middle = (low + high) / 2
        with np.errstate(divide="ignore"):
            each = ways + np.outer(np.log(middle), number) + np.outer(np.log1p(-middle), number[::-1])
        at_most = np.where(number <= np.arange(blocks)[:, None], np.exp(each), 0.0).sum(axis=1)
        above = at_most > 1 - CONFIDENCE
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (*map(float, high), 1.0)


def _grown(before: float, limit: float) -> float:
    return min((1 + before) * bet(float(limit)), FULL)


def _cells(names: Sequence[str], block: Sequence[Counted]) -> Counts:
    """(signals, cells); a signal that was not counted has none."""
    found = {each.signal: each.cells for each in block}
    width = max((len(cells) for cells in found.values()), default=0)
    rows = [found.get(name, ()) for name in names]
    return np.array([[*row, *[0] * (width - len(row))] for row in rows], np.int64).reshape(len(names), width)


def _distances(bag: Counts) -> Floats:
    """(blocks, signals): Jensen-Shannon distance of each block from all others of the bag.

    A block without any value of a signal has moved as far as can be, unless none of the others has one.
    """
    others = bag.sum(axis=0) - bag
    p, q = _fractions(bag), _fractions(others)
    middle = (p + q) / 2
    divergence = (_entropy(middle) - (_entropy(p) + _entropy(q)) / 2) / math.log(2)
    distance = np.sqrt(np.clip(divergence, 0.0, 1.0))
    here, there = bag.any(axis=2), others.any(axis=2)
    found: Floats = np.where(here & there, distance, np.where(here | there, 1.0, 0.0))
    return found


def _fractions(counts: Counts) -> Floats:
    whole = counts.sum(axis=2, keepdims=True)
    found: Floats = np.divide(counts, whole, out=np.zeros(counts.shape), where=whole > 0)
    return found


def _entropy(fractions: Floats) -> Floats:
    """(…,) in nats, over the last axis."""
    logs = np.log(fractions, out=np.zeros_like(fractions), where=fractions > 0)
    found: Floats = -(fractions * logs).sum(axis=-1)
    return found
