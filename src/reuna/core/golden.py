"""The self-test of a model: an input drawn from a seed, and what the graph answered when it was released.

The golden input is no site's data. It stands as text in the graph's own metadata, so that nodes which know
nothing of it read the release as before. Whoever is to run the graph asks it for these rows first, one by
one, as a machine asks: another answer than the golden one, or one that is not finite, and it is not used.

>>> golden = Golden(np.zeros((2, 3), np.float32), np.array([[0.25], [0.5]], np.float32))
>>> same = decode(encode(golden))
>>> wrong(same, golden.y), wrong(same, golden.y + 0.1)
('', 'row 1 of the golden input answers 0.35 where the release said 0.25')
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import BadMessage
from reuna.core.tensors import pack, unpack

KEY = "reuna.golden"  #: of the graph's metadata
ROWS = 4
SEED = 39
TOLERANCE = 1e-4  #: absolute and relative: processors sum float32 in other orders

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Golden:
    """``x`` (rows, …) is asked row by row, ``y`` (rows, outputs) is the answer; both float32."""

    x: Floats
    y: Floats


def seeded(shape: tuple[int, ...]) -> Floats:
    """An input (`ROWS`, …) around zero, float32, from what every numpy gives for a seed."""
    values = np.random.Generator(np.random.PCG64(SEED)).random((ROWS, *shape))
    return (2.0 * values - 1.0).astype(np.float32)


def encode(golden: Golden) -> str:
    """As it stands in the graph's metadata."""
    return base64.b64encode(pack({"x": golden.x, "y": golden.y})).decode()


def decode(text: str) -> Golden:
    """Read it again. Raises `BadMessage`."""
    try:
        found = unpack(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise BadMessage(f"the golden input is no base64: {error}") from error
    if found.keys() != {"x", "y"} or found["y"].ndim != 2 or not found["x"].ndim:
        raise BadMessage("the golden input has no x and y of the same rows")
    if found["x"].shape[0] != found["y"].shape[0] or not found["y"].size:
        raise BadMessage("the golden input has no x and y of the same rows")
    return Golden(found["x"], found["y"])


def wrong(golden: Golden | None, answered: NDArray[Any]) -> str:
    """Why a model is not used that answered (rows, outputs); empty when it may be. None: nothing is known."""
    found = np.asarray(answered, np.float64)
    if not found.size:
        return "the golden input has no answer"
    bad = np.flatnonzero(~np.isfinite(found.reshape(len(found), -1)).all(axis=1))
    if bad.size:
        return f"row {bad[0] + 1} of the golden input has no finite answer"
    if golden is None:
        return ""
    if found.shape != golden.y.shape:
        return f"the graph answers shape {found.shape} where the release said {golden.y.shape}"
    off = ~(np.abs(found - golden.y) <= TOLERANCE * (1 + np.abs(golden.y)))
    if not off.any():
        return ""
    row, column = map(int, np.argwhere(off)[0])
    return (
        f"row {row + 1} of the golden input answers {found[row, column]:.6g} where the release said "
        f"{golden.y[row, column]:.6g}"
    )
