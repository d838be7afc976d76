"""Named float32 tensors as one flat vector, and as bytes in the safetensors format.

The file is an 8-byte little-endian header length, a JSON header, and the values of all tensors
in the order of their sorted names without gaps. So everything behind the header *is* the flat
vector, and two models of one layout have equal headers. The format is that of the safetensors
project (version 0.x); we write it ourselves so that equal tensors give equal bytes, and read it
more strictly: float32 only, sorted, no gaps.

>>> data = pack({"b": np.zeros(2, np.float32), "a": np.ones((1, 2), np.float32)})
>>> {name: tensor.shape for name, tensor in unpack(data).items()}
{'a': (1, 2), 'b': (2,)}
>>> vector_of(data)[1].tolist()
[1.0, 1.0, 0.0, 0.0]
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import BadMessage, LearnerError

MAX_HEADER = 1 << 20  #: bytes
MAX_DIMS = 32  #: axes of one tensor; older numpy makes no more
MAX_PARAMS = 1 << 40  #: values of one model
_ALIGN = 8
_METADATA = "__metadata__"


class Layout(msgspec.Struct, frozen=True):
    """Names (sorted) and shapes of a model's tensors; all are float32."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def params(self) -> int:
        """Values in all tensors together."""
        return sum(map(math.prod, self.shapes))


def count(shape: tuple[int, ...]) -> int:
    """Values in a tensor of that shape."""
    return math.prod(shape)


def float32(values: Any) -> NDArray[np.float32]:
    """What a learner computed, as a model holds it: float64 and integers are rounded to float32.

    The one place where precision is given up. Raises `LearnerError` for anything but real numbers.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise LearnerError(f"a tensor holds {array.dtype}, expected numbers")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which `finite` refuses
        return np.ascontiguousarray(array, np.float32).reshape(array.shape)


def layout_of(tensors: Mapping[str, NDArray[Any]]) -> Layout:
    """The layout of a model. Raises `LearnerError` for a tensor that is not float32 or has no name."""
    for name, tensor in tensors.items():
        _check_tensor(name, tensor)
    names = tuple(sorted(tensors))
    return Layout(names, tuple(tensors[name].shape for name in names))


def _check_tensor(name: str, tensor: NDArray[Any]) -> None:
    if not _is_name(name):
        raise LearnerError(f"{name!r} cannot be the name of a tensor", "Name tensors with plain text.")
    found = tensor.dtype if isinstance(tensor, np.ndarray) else type(tensor).__name__
    if found != np.float32:
        raise LearnerError(
            f"tensor {name!r} is {found}, expected float32",
            "Return float32 arrays: `reuna.core.tensors.float32(value)`.",
        )
    if tensor.ndim > MAX_DIMS:
        raise LearnerError(f"tensor {name!r} has {tensor.ndim} axes, {MAX_DIMS} are allowed")


def _is_name(name: object) -> bool:
    """Text that UTF-8 can say (no lone surrogates) and that the format does not keep for itself."""
    if not isinstance(name, str) or name == _METADATA:
        return False
    return name.isascii() or not any("\ud800" <= c <= "\udfff" for c in name)


def flatten(tensors: Mapping[str, NDArray[Any]], layout: Layout) -> NDArray[np.float32]:
    """All values as a new (params,) float32 vector. Raises `LearnerError` for another layout."""
    if layout_of(tensors) != layout:
        raise LearnerError("the model's tensors have other names or shapes than before")
    if not layout.names:
        return np.empty(0, np.float32)
    return np.concatenate([tensors[name].reshape(-1) for name in layout.names])


def unflatten(vector: NDArray[np.float32], layout: Layout) -> dict[str, NDArray[np.float32]]:
    """Views into a (params,) vector, by name. Raises `LearnerError` for a vector of another size."""
    if vector.shape != (layout.params,):
        raise LearnerError(f"a vector of shape {vector.shape} for a model of {layout.params} values")
    tensors, start = {}, 0
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        size = count(shape)
        tensors[name] = vector[start : start + size].reshape(shape)
        start += size
    return tensors


def pack(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """The model's bytes. Raises `LearnerError` as `layout_of` does."""
    return b"".join(packed_parts(tensors))


def packed_parts(tensors: Mapping[str, NDArray[Any]]) -> Iterator[bytes | memoryview]:
    """`pack` piece by piece, for a file: a contiguous tensor is not copied."""
    layout = layout_of(tensors)
    yield header(layout)
    for name in layout.names:
        yield np.ascontiguousarray(tensors[name], "<f4").reshape(-1).view(np.uint8).data


@lru_cache(maxsize=4)
def header(layout: Layout) -> bytes:
    """The bytes before the values. Raises `LearnerError` when they would be too many."""
    entries, start = {}, 0
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        end = start + 4 * count(shape)
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGN)
    if len(text) > MAX_HEADER:
        raise LearnerError(f"the names and shapes of {len(layout.names)} tensors take {len(text)} bytes")
    return len(text).to_bytes(8, "little") + text


def unpack(data: bytes | memoryview) -> dict[str, NDArray[np.float32]]:
    """Tensors by name, read-only views into ``data``. Raises `BadMessage` for anything else."""
    layout, vector = vector_of(data)
    return unflatten(vector, layout)


def vector_of(data: bytes | memoryview) -> tuple[Layout, NDArray[np.float32]]:
    """The layout and all values as a read-only (params,) view into ``data``. Raises `BadMessage`."""
    layout, start = read_header(data)
    if start == len(data):  # numpy sees no array in nothing
        return layout, np.empty(0, np.float32)
    vector = np.frombuffer(data, "<f4", offset=start)
    vector.flags.writeable = False
    return layout, vector


def read_header(data: bytes | memoryview) -> tuple[Layout, int]:
    """The layout and where the values start. Raises `BadMessage`."""
    layout, start = _header_of(data)
    if len(memoryview(data)) != start + 4 * layout.params:
        raise BadMessage("not a model: its size is not that of its tensors")
    return layout, start


def _header_of(data: bytes | memoryview) -> tuple[Layout, int]:
    view = memoryview(data)
    length = int.from_bytes(view[:8], "little")
    if len(view) < 8 or length > MAX_HEADER or 8 + length > len(view):
        raise BadMessage("not a model: its header is cut or too long")
    return _parsed(bytes(view[8 : 8 + length])), 8 + length


@lru_cache(maxsize=4)  # a node reads models of the one layout, round after round
def _parsed(header: bytes) -> Layout:
    try:
        text = str(header, "utf-8")
        if not text.startswith("{"):
            raise ValueError("its header is no JSON object")
        return _layout(json.loads(text, object_pairs_hook=_once))
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError) as error:
        raise BadMessage(f"not a model: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no name stands twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in its header")
    return found


def _layout(entries: dict[str, Any]) -> Layout:
    """Check what the header says: float32, in the order of sorted names, no gaps."""
    tensors = {name: entry for name, entry in entries.items() if name != _METADATA}
    start = 0
    shapes = []
    for name in sorted(tensors):
        shape = _shape(name, tensors[name])
        end = start + 4 * count(shape)
        offsets = tensors[name]["data_offsets"]
        if offsets != [start, end] or {type(offset) for offset in offsets} != {int}:
            raise ValueError(f"tensor {name!r} does not follow the one before")
        start = end
        shapes.append(shape)
    return Layout(tuple(sorted(tensors)), tuple(shapes))


def _shape(name: str, entry: dict[str, Any]) -> tuple[int, ...]:
    """The entry's shape, of a size that arithmetic and numpy can hold."""
    if not _is_name(name) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name!r} is not described as a tensor")
    if entry["dtype"] != "F32":
        raise ValueError(f"tensor {name!r} is {entry['dtype']!r}, expected F32")
    shape = entry["shape"]
    if type(shape) is not list or len(shape) > MAX_DIMS:
        raise ValueError(f"tensor {name!r} has no shape")
    if not all(type(size) is int and 0 <= size <= MAX_PARAMS for size in shape):
        raise ValueError(f"tensor {name!r} has a size that no model has")
    if math.prod(size or 1 for size in shape) > MAX_PARAMS:
        raise ValueError(f"tensor {name!r} is larger than any model")
    return tuple(shape)


def finite(vector: NDArray[Any]) -> bool:
    """Whether every value is a finite number."""
    return bool(np.isfinite(vector).all())
