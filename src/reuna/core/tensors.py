"""Named float32 tensors as one flat vector, and as bytes in the safetensors format.

The file is an 8-byte little-endian header length, a JSON header, and the values of all tensors
in the order of their sorted names without gaps. So everything behind the header *is* the flat
vector, and two models of one layout have equal headers. The format is that of the safetensors
project (version 0.x); we write it ourselves so that equal tensors give equal bytes.

>>> data = pack({"b": np.zeros(2, np.float32), "a": np.ones((1, 2), np.float32)})
>>> {name: tensor.shape for name, tensor in unpack(data).items()}
{'a': (1, 2), 'b': (2,)}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import BadMessage, LearnerError

MAX_HEADER = 1 << 20  #: bytes
_ALIGN = 8


class Layout(msgspec.Struct, frozen=True):
    """Names (sorted) and shapes of a model's tensors; all are float32."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def params(self) -> int:
        """Values in all tensors together."""
        return sum(count(shape) for shape in self.shapes)


def count(shape: tuple[int, ...]) -> int:
    """Values in a tensor of that shape."""
    product = 1
    for size in shape:
        product *= size
    return product


def layout_of(tensors: Mapping[str, NDArray[Any]]) -> Layout:
    """The layout of a model. Raises `LearnerError` for a tensor that is not float32."""
    names = tuple(sorted(tensors))
    for name in names:
        if tensors[name].dtype != np.float32:
            raise LearnerError(
                f"tensor {name!r} is {tensors[name].dtype}, expected float32",
                "Return float32 arrays: `value.astype(numpy.float32)`.",
            )
    return Layout(names, tuple(tuple(tensors[name].shape) for name in names))


def flatten(tensors: Mapping[str, NDArray[Any]], layout: Layout) -> NDArray[np.float32]:
    """All values as a (params,) float32 vector. Raises `LearnerError` for another layout."""
    if layout_of(tensors) != layout:
        raise LearnerError("the model's tensors have other names or shapes than before")
    return np.concatenate([tensors[name].reshape(-1) for name in layout.names])


def unflatten(vector: NDArray[np.float32], layout: Layout) -> dict[str, NDArray[np.float32]]:
    """Views into a (params,) vector, by name."""
    tensors, start = {}, 0
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        size = count(shape)
        tensors[name] = vector[start : start + size].reshape(shape)
        start += size
    return tensors


def pack(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """The model's bytes. Raises `LearnerError` for a tensor that is not float32."""
    layout = layout_of(tensors)
    values = [np.ascontiguousarray(tensors[name], "<f4").tobytes() for name in layout.names]
    return header(layout) + b"".join(values)


def header(layout: Layout) -> bytes:
    """The bytes before the values."""
    entries, start = {}, 0
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        end = start + 4 * count(shape)
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGN)
    return len(text).to_bytes(8, "little") + text


def unpack(data: bytes | memoryview) -> dict[str, NDArray[np.float32]]:
    """Tensors by name, read-only views into ``data``. Raises `BadMessage` for anything else."""
    layout, start = read_header(data)
    return unflatten(np.frombuffer(data, "<f4", layout.params, start), layout)


def read_header(data: bytes | memoryview) -> tuple[Layout, int]:
    """The layout and where the values start. Raises `BadMessage`."""
    view = memoryview(data)
    length = int.from_bytes(view[:8], "little")
    if len(view) < 8 or length > MAX_HEADER or 8 + length > len(view):
        raise BadMessage("not a model: its header is cut or too long")
    try:
        entries = json.loads(bytes(view[8 : 8 + length]))
        layout = _layout(entries)
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError) as error:
        raise BadMessage(f"not a model: {error}") from error
    if len(view) != 8 + length + 4 * layout.params:
        raise BadMessage("not a model: its size is not that of its tensors")
    return layout, 8 + length


def _layout(entries: dict[str, Any]) -> Layout:
    """Check what the header says: float32, in the order of sorted names, no gaps."""
    tensors = {name: entry for name, entry in entries.items() if name != "__metadata__"}
    start = 0
    shapes = []
    for name in sorted(tensors):
        entry = tensors[name]
        shape = tuple(entry["shape"])
        if entry["dtype"] != "F32":
            raise ValueError(f"tensor {name!r} is {entry['dtype']}, expected F32")
        if not all(type(size) is int and 0 <= size < 2**40 for size in shape):
            raise ValueError(f"tensor {name!r} has shape {shape}")
        if entry["data_offsets"] != [start, start + 4 * count(shape)]:
            raise ValueError(f"tensor {name!r} does not follow the one before")
        start = entry["data_offsets"][1]
        shapes.append(shape)
    return Layout(tuple(sorted(tensors)), tuple(shapes))


def finite(vector: NDArray[Any]) -> bool:
    """Whether every value is a finite number."""
    return bool(np.isfinite(vector).all())
