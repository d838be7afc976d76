"""A learner that learns nothing: random dense updates, new each round, at the cost of a memory pass.

Numbers are drawn once, the same in every worker and up to a million more than there are parameters; a round's
update is a window of them that begins where the round's seed says. So what is measured is the round and not a
generator, a worker in the place of another gives the same update, and the learner has one model of its own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

MORE = 1_000_000  #: windows, at most


def load(folder: Path, settings: Mapping[str, Any]) -> None:
    """No data is needed."""


def learner(settings: Mapping[str, Any]) -> Noop:
    """The learner with ``settings["params"]`` float32 parameters."""
    return Noop(int(settings["params"]), float(settings["amplitude"]), float(settings["busy_s"]))


class Noop:
    def __init__(self, params: int, amplitude: float, busy_s: float) -> None:
        self._busy_s = busy_s
        self._params = params
        self._more = min(params, MORE)
        self._amplitude = np.float32(2 * amplitude)
        self._drawn = np.empty(0, np.float32)

    def init(self, seed: int) -> dict[str, np.ndarray]:
        return {"w": np.zeros(self._params, np.float32)}

    def fit(self, model: Mapping[str, np.ndarray], data: None, settings: Mapping[str, Any], seed: int) -> Any:
        self._work()
        if not self._drawn.size:
            drawn = np.random.default_rng(0).random(self._params + self._more, np.float32)
            drawn -= np.float32(0.5)  # in place: the worker's peak is to be that of a round
            drawn *= self._amplitude
            self._drawn = drawn
        first = int(np.random.default_rng(seed).integers(self._more + 1))
        return {"w": model["w"] + self._drawn[first : first + self._params]}, 1, {"loss": 0.0}

    def evaluate(self, model: Any, data: None, settings: Mapping[str, Any]) -> dict[str, float]:
        self._work()
        return {"all": 0.0}

    def _work(self) -> None:
        """Something to be met at, for those who kill workers."""
        end = time.monotonic() + self._busy_s
        while time.monotonic() < end:
            pass

    def export(self, model: Any) -> bytes:
        return b""
