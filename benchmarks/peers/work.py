"""The work that every system is given: updates without learning, and a small logistic regression.

Standard library and numpy only: Flower's and NVFlare's processes load it in environments of their own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
ROWS, FEATURES, CLASSES = 100, 50, 2
RATE = 0.1


def draw(path: Path, params: int) -> None:
    """Write twice as many numbers as there are parameters; an update is a window of them."""
    drawn = np.random.default_rng(0).random(2 * params, np.float32)
    np.save(path, drawn - np.float32(0.5))


def update(path: Path, params: int, node: int, number: int) -> Array:
    """A node's update of a round, (params,) float32: random, dense, and new each round.

    It is read where it lies, so that what is measured is a round and not a generator; the benchmark of
    our own rounds does the same (`benchmarks/noop`).
    """
    drawn: Array = np.load(path, mmap_mode="r")
    first = int(np.random.default_rng([node, number]).integers(params + 1))
    return drawn[first : first + params]


def expected(path: Path, params: int, nodes: int, numbers: range) -> Array:
    """The model after these rounds, (params,): zeros and the mean update of every one."""
    total = np.zeros(params, np.float32)
    share = np.float32(1 / nodes)
    for number in numbers:
        for node in range(nodes):
            total += share * update(path, params, node, number)
    return total


def is_right(model: Array, wanted: Array) -> bool:
    """Whether a system's model is that, up to the rounding of its sums."""
    return model.size == wanted.size and bool(np.allclose(model.ravel(), wanted, atol=1e-4))


def client_rows(seed: int) -> tuple[Array, NDArray[np.int64]]:
    """Features (100, 50) and labels (100,) of one virtual client, as `benchmarks.simulate` has them."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(ROWS, FEATURES)).astype(np.float32), rng.integers(0, CLASSES, ROWS)


def fit(weight: Array, bias: Array, rows: Array, labels: NDArray[np.int64]) -> tuple[Array, Array]:
    """One epoch in one step of softmax regression: what our `SoftmaxClassifier` does with these settings."""
    scores = rows @ weight + bias
    chances = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    chances[np.arange(len(labels)), labels] -= 1.0
    chances /= np.float32(len(labels))
    step = np.float32(RATE)
    return weight - step * (rows.T @ chances), bias - step * chances.sum(axis=0)
