"""`reuna.learn.lots`: packed integers as a parent gets them, of as many values as the first byte says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fuzz.kit import attempt
from reuna.core.errors import BadMessage
from reuna.learn.grid import LOT, Ints
from reuna.learn.lots import Lots, most_bytes, written

COUNTS = (0, 1, 7, 100, 1000, LOT, LOT + 9)


def seeds() -> Iterator[bytes]:
    rng = np.random.default_rng(1)
    for number, count in enumerate(COUNTS):
        dense, rare = rng.integers(-3, 4, count), rng.integers(-100, 100, count) * (rng.random(count) < 0.02)
        for values in (
            np.zeros(count, np.int64),
            dense,
            rare,
            rng.integers(-(2**40), 2**40, min(count, 100)),
        ):
            if len(values) == count and (count <= 1000 or values is not dense):
                yield bytes((number,)) + b"".join(written(values))


def check(data: bytes) -> None:
    count, body = COUNTS[data[0] % len(COUNTS)] if data else 0, data[1:]

    def read() -> list[Ints]:
        return [*Lots(lambda at, size: body[at : at + size], len(body), count)]

    found = attempt(read, BadMessage)
    if found is None:
        return
    values = np.concatenate([np.zeros(0, np.int64), *found])
    assert len(values) == count
    again = b"".join(written(values))
    assert len(again) <= most_bytes(count, 8)
    assert [*map(np.ndarray.tolist, Lots(lambda at, size: again[at : at + size], len(again), count))] == [
        each.tolist() for each in found
    ]
