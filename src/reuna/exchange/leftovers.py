"""What an edge's updates did not send, from round to round of a run: durable, one blob a round.

The plan of a round names the last one in which this node counted (`Plan.carried`). What was left after that
round is added to the update of this one, and no other: so a round made again, after a crash or in another
attempt, gives the same bits, and an update that came too late changes nothing later.

    leftovers/<digest>      fine steps, `reuna.learn.rounding.LEFT_TYPE`
    leftovers.state         run -> round -> digest, exponent of the round's grid
"""

from __future__ import annotations

import logging
from typing import NamedTuple, Protocol

from reuna.core.ports import Blob, Blobs, BlobWriter
from reuna.core.records import Plan
from reuna.learn.rounding import LEFT_TYPE

log = logging.getLogger("reuna.egress")
RUNS = 4  #: whose leftovers are kept; a run that waits for officers lets others work
Index = dict[str, dict[int, tuple[str, int]]]
MAX_BYTES = 65_536  #: of the index


class Left(NamedTuple):
    """Fine steps, and the exponent of the grid they are of."""

    values: Blob
    exponent: int


class Kept(Protocol):
    """Where the index lies."""

    def read(self) -> Index | None:
        """The index as it was last written; None when there is none that can be used."""

    def write(self, value: Index) -> None:
        """Durable when it returns. Raises `DiskFull`."""


class Leftovers:
    """Keeps them. Blocking."""

    def __init__(self, blobs: Blobs, kept: Kept) -> None:
        self._blobs = blobs
        self._kept = kept

    def after(self, run: str, round: int, params: int) -> Left | None:
        """What was left after a round; None where it is lost, which is said in the log."""
        digest, exponent = self._index().get(run, {}).get(round, ("", 0))
        found = self._blobs.get(digest) if digest else None
        if found is None or found.size != params * LEFT_TYPE.itemsize:
            log.warning(
                "what round %d of %s left is not here any more: the update goes without it", round, run
            )
            return None
        return Left(found, exponent)

    def new(self, params: int) -> BlobWriter:
        """A writer for what a round leaves. Raises `DiskFull`."""
        return self._blobs.new(params * LEFT_TYPE.itemsize)

    def keep(self, plan: Plan, left: Blob, carried: int) -> None:
        """What is left after a plan's round, beside that of the round ``carried``, which it was made with."""
        index = self._index()
        rounds = {number: each for number, each in index.pop(plan.run, {}).items() if number == carried}
        index[plan.run] = {**rounds, plan.round: (left.digest, plan.grid.exponent)}
        self._write(dict(list(index.items())[-RUNS:]))

    def end(self, run: str) -> None:
        """A run trains no more: nothing of it is kept."""
        index = self._index()
        if index.pop(run, None) is not None:
            self._write(index)

    def _index(self) -> Index:
        return self._kept.read() or {}

    def _write(self, index: Index) -> None:
        self._kept.write(index)
        self._blobs.prune({digest for rounds in index.values() for digest, _ in rounds.values()})
