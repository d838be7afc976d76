"""What edges answered live, held against what the demo's plants did: windows, right or not.

    judged(state_folder, truth_file, speed)      # of one plant, the oldest first

What a window is about is known only to the plants' server; no edge is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reuna.adapters.answer_store import LIVE, StoredAnswers
from reuna.core.errors import StorageError
from reuna.demo.plants import FAULTS, MINUTES, NORMAL
from reuna.edge.answering import ANSWERS

CLASSES = (NORMAL, *FAULTS)  #: what the detector's classes are
MOST = 100_000  #: windows


@dataclass(frozen=True)
class Judged:
    """One window of one state of the plant: its end (epoch s), the release, the fault, and what was said.

    ``said`` is None for the safe answer; ``took_ms``: how long the answer took.
    """

    ends: float
    version: int
    fault: int
    said: int | None
    took_ms: float

    @property
    def right(self) -> bool:
        return self.said == self.fault


def judged(state: Path, truth: Path, speed: float) -> list[Judged]:
    """The windows of an edge, the oldest first; those over a change of the plant's state are of neither."""
    try:
        stored = StoredAnswers(state / ANSWERS)
    except StorageError:
        return []
    try:
        kept = [each.outcome for each in stored.after(0, MOST) if each.role == LIVE]
    finally:
        stored.close()
    rows = np.loadtxt(truth, dtype=np.int64, delimiter=",", ndmin=2) if truth.is_file() else np.zeros((0, 3))
    step = int(60 * MINUTES / speed * 1e9)
    found = []
    for each in kept:
        first, last = np.searchsorted(
            rows[:, 0], (each.first_ns - 3 * step // 4, each.last_ns + step // 4), "right"
        )
        of = rows[first:last]
        if len(of) and (of[:, 1] == of[0, 1]).all():
            said = None if each.answer is None else CLASSES[int(each.answer)]
            found.append(Judged(each.last_ns / 1e9, each.version, int(of[0, 2]), said, each.took_ms))
    return found


def share(windows: Sequence[Judged]) -> float | None:
    """Share of them that are right; None of none."""
    return sum(each.right for each in windows) / len(windows) if windows else None


def between(windows: Iterable[Judged], since: float, until: float, version: int) -> list[Judged]:
    """Windows of a release that ended in that time, epoch s."""
    return [each for each in windows if since <= each.ends < until and each.version == version]
