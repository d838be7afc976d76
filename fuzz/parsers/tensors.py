"""`reuna.core.tensors`: the bytes of a model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fuzz.kit import attempt
from reuna.core.errors import BadMessage
from reuna.core.tensors import pack, read_header, unpack, vector_of


def seeds() -> Iterator[bytes]:
    yield pack({})
    yield pack({"b": np.zeros(2, np.float32), "a": np.ones((1, 2), np.float32)})
    yield pack({"weights/ä": np.zeros((2, 0, 3), np.float32), "": np.ones((), np.float32)})


def check(data: bytes) -> None:
    tensors = attempt(lambda: unpack(data), BadMessage)
    if tensors is None:
        return
    layout, _ = vector_of(data)
    again = unpack(pack(tensors))
    assert list(again) == list(tensors) == list(layout.names)
    assert all(again[name].tobytes() == tensors[name].tobytes() for name in tensors)
    assert all(again[name].shape == tensors[name].shape for name in tensors)
    assert read_header(data)[0] == layout
