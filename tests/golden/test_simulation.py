"""Published bits: equal arguments of `reuna.simulate` give an equal result, also in a later version.

The learner counts on a grid that floats hold exactly, so that no library and no processor shows.
Regenerate on purpose with ``python -m tests.golden.test_simulation`` when a result has to change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reuna
from reuna.core.ports import Tensors
from reuna.core.records import Metrics, Setting
from reuna.learn.strategies import STRATEGIES

GOLDEN = Path(__file__).with_name("simulation-1.json")


class Counter:
    """Steps by whole multiples of 2^-16 that the seed and the node's number give."""

    def init(self, seed: int) -> Tensors:
        return {"a": np.full((3, 5), seed, np.float32), "b": np.zeros(2, np.float32)}

    def fit(
        self, model: Tensors, data: int, settings: Mapping[str, Setting], seed: int
    ) -> tuple[Tensors, int, Metrics]:
        moved = {}
        for number, name in enumerate(sorted(model)):
            size = model[name].size
            steps = [(seed * (place + 3) + 7919 * data + number) % 4001 - 2000 for place in range(size)]
            step = np.array(steps, np.float32).reshape(model[name].shape)
            moved[name] = np.round(model[name] * 2**16).astype(np.float32) / 2**16 + step / 2**16
        return moved, data + 1, {"loss": float(seed % 64)}

    def evaluate(self, model: Tensors, data: int, settings: Mapping[str, Setting]) -> Metrics:
        return {"all": float(np.abs(model["a"]).max()) + data}

    def export(self, model: Tensors) -> bytes:
        return b""


def simulated(strategy: str) -> dict[str, Any]:
    """What a run of 50 nodes under three fogs comes to."""
    nodes = {f"node-{number}": number for number in range(50)}
    whole = {"buffer": len(nodes)} if STRATEGIES[strategy].buffered else {}  # else who comes first counts
    found = reuna.simulate(Counter(), nodes, 3, strategy=strategy, settings=whole, seed=5, fogs=3)
    return {
        "digest": found.digest,
        "losses": found.losses,
        "scores": found.scores,
    }


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_simulated_run_has_its_published_bits(strategy: str) -> None:
    assert simulated(strategy) == json.loads(GOLDEN.read_text())[strategy]


def test_the_number_of_fogs_changes_no_bit() -> None:
    nodes = {f"node-{number}": number for number in range(7)}
    found = {reuna.simulate(Counter(), nodes, 2, fogs=fogs).digest for fogs in (1, 2, 7)}
    assert len(found) == 1


def main() -> None:
    """Write the golden file anew."""
    GOLDEN.write_text(json.dumps({name: simulated(name) for name in STRATEGIES}, indent=1) + "\n")


if __name__ == "__main__":
    main()
