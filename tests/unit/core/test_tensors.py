"""Tensors, their flat vector and their bytes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reuna.core import tensors as subject
from reuna.core.errors import BadMessage, LearnerError
from reuna.core.tensors import (
    MAX_DIMS,
    MAX_HEADER,
    Layout,
    finite,
    flatten,
    float32,
    header,
    layout_of,
    pack,
    packed_parts,
    read_header,
    unflatten,
    unpack,
    vector_of,
)

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda n: n != "__metadata__")
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
ARRAYS = SHAPES.flatmap(lambda shape: hnp.arrays(np.float32, shape))
MODELS = st.dictionaries(NAMES, ARRAYS, max_size=5)
SMALL = {"b": np.arange(3, dtype=np.float32), "a": np.ones((2, 2), np.float32)}


def made(entries: Any, values: bytes = b"") -> bytes:
    """A file with any header at all."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + values


def entry(shape: list[Any], start: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def same_bits(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].shape == right[name].shape and left[name].tobytes() == right[name].tobytes()
        for name in left
    )


@given(MODELS)
def test_what_was_packed_comes_back_bit_for_bit(model: dict[str, Any]) -> None:
    assert same_bits(unpack(pack(model)), model)
    assert b"".join(packed_parts(model)) == pack(model)


@given(MODELS)
def test_bytes_are_those_of_the_safetensors_library(model: dict[str, Any]) -> None:
    library = pytest.importorskip("safetensors.numpy")
    assert same_bits(library.load(pack(model)), model)
    if model:  # without a tensor the library pads its header by other rules
        contiguous = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in model.items()}
        assert library.save(contiguous) == pack(model)


@given(MODELS)
def test_a_model_and_its_flat_vector_are_the_same_thing(model: dict[str, Any]) -> None:
    layout = layout_of(model)
    vector = flatten(model, layout)
    assert vector.dtype == np.float32
    assert vector.shape == (layout.params,)
    assert same_bits(unflatten(vector, layout), model)
    found, values = vector_of(pack(model))
    assert found == layout
    assert values.tobytes() == vector.tobytes()


def test_the_order_in_which_tensors_were_made_does_not_show() -> None:
    assert pack(SMALL) == pack(dict(reversed(SMALL.items())))
    assert layout_of(SMALL) == Layout(("a", "b"), ((2, 2), (3,)))


def test_arrays_in_any_memory_order_give_the_same_bytes() -> None:
    square = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert pack({"w": np.asfortranarray(square)}) == pack({"w": square})
    assert pack({"w": np.tile(square, 2)[:, ::2]}) == pack({"w": np.tile(square, 2)[:, ::2].copy()})


def test_the_vector_is_a_view_that_cannot_be_written() -> None:
    data = bytearray(pack(SMALL))
    _, vector = vector_of(memoryview(data))
    data[-4:] = np.float32(7).tobytes()
    assert vector[-1] == 7
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        unpack(pack(SMALL))["a"][0] = 1


@pytest.mark.parametrize("vector", [np.zeros(6, np.float32), np.zeros((7, 1), np.float32)])
def test_a_vector_that_does_not_fit_is_refused(vector: Any) -> None:
    with pytest.raises(LearnerError, match="7 values"):
        unflatten(vector, layout_of(SMALL))


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"w": np.zeros(2)}, "float64, expected float32"),
        ({"w": np.zeros(2, ">f4")}, ">f4, expected float32"),
        ({"w": np.zeros(2, np.int32)}, "int32"),
        ({"w": [0.0]}, "list"),
        ({"w": None}, "NoneType"),
        ({1: np.zeros(2, np.float32)}, "cannot be the name"),
        ({"__metadata__": np.zeros(2, np.float32)}, "cannot be the name"),
        ({"\ud800": np.zeros(2, np.float32)}, "cannot be the name"),
        ({"w": np.zeros((1,) * (MAX_DIMS + 1), np.float32)}, "33 axes"),
    ],
)
def test_what_is_no_tensor_of_ours_is_the_learners_fault(tensors: Any, said: str) -> None:
    with pytest.raises(LearnerError, match=said):
        pack(tensors)


def test_a_header_that_nobody_would_read_is_not_written() -> None:
    with pytest.raises(LearnerError, match="100 tensors"):
        pack({str(i) + "x" * (MAX_HEADER // 100): np.zeros(1, np.float32) for i in range(100)})


def test_another_layout_is_not_flattened() -> None:
    with pytest.raises(LearnerError, match="other names or shapes"):
        flatten(SMALL, Layout(("a",), ((4,),)))


MALFORMED = {
    "empty": b"",
    "cut in the length": b"\x01\0\0",
    "header longer than the file": (99).to_bytes(8, "little") + b"{}",
    "header longer than allowed": (MAX_HEADER + 1).to_bytes(8, "little") + b" " * (MAX_HEADER + 1),
    "no JSON": made(b"{nonsense"),
    "no UTF-8": made(b'{"\xff":1}'),
    "not an object": made([1]),
    "leading space": made(b" {}"),
    "deep": made(b'{"a":' + b"[" * 100_000),
    "digits": made(b'{"a":' + b"9" * 5000 + b"}"),
    "entry is no object": made({"a": 1}),
    "entry is a list": made({"a": ["dtype", "shape", "data_offsets"]}),
    "no dtype": made({"a": {"shape": [], "data_offsets": [0, 4]}}, b"1234"),
    "other field": made({"a": {**entry([1], 0, 4), "more": 1}}, b"1234"),
    "float64": made({"a": entry([1], 0, 8, "F64")}, b"12345678"),
    "dtype is a list": made({"a": entry([1], 0, 4, ["F32"])}, b"1234"),
    "shape is text": made({"a": {**entry([], 0, 4), "shape": "1"}}, b"1234"),
    "shape is null": made({"a": {**entry([], 0, 4), "shape": None}}, b"1234"),
    "negative size": made({"a": entry([-1, -1], 0, 4)}, b"1234"),
    "size is true": made({"a": entry([True], 0, 4)}, b"1234"),
    "size is a fraction": made({"a": entry([1.0], 0, 4)}, b"1234"),
    "huge size": made({"a": entry([2**63], 0, 4)}, b"1234"),
    "nothing times much": made({"a": entry([0, 2**40, 2**40], 0, 0)}),
    "too many axes": made({"a": entry([1] * 65, 0, 4)}, b"1234"),
    "enough axes to be slow": made({"a": entry([2**39] * 70_000, 0, 4)}, b"1234"),
    "gap before": made({"a": entry([1], 4, 8)}, b"12345678"),
    "overlap": made({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, b"1234"),
    "not in the order of names": made({"b": entry([1], 0, 4), "a": entry([1], 4, 8)}, b"12345678"),
    "offsets are fractions": made({"a": entry([1], 0.0, 4.0)}, b"1234"),
    "offset is false": made({"a": entry([1], False, 4)}, b"1234"),
    "offsets are null": made({"a": {**entry([1], 0, 4), "data_offsets": None}}, b"1234"),
    "end before start": made({"a": entry([1], 4, 0)}, b"1234"),
    "name twice": made(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":' + b"{}}", b"1234"),
    "lone surrogate": made(b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234"),
    "values cut": pack(SMALL)[:-1],
    "values too many": pack(SMALL) + b"\0",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_a_bad_message(data: bytes) -> None:
    with pytest.raises(BadMessage):
        unpack(data)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with pytest.raises(BadMessage):
        unpack(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**65) | st.floats() | st.sampled_from(["F32", "F64", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
ENTRY = st.fixed_dictionaries({"dtype": st.just("F32") | JSON, "shape": JSON, "data_offsets": JSON})


@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), ENTRY | JSON), st.binary(max_size=16))
def test_no_header_raises_anything_else(entries: dict[str, Any], values: bytes) -> None:
    try:
        unpack(made(entries, values))
    except BadMessage:
        return


@given(MODELS, st.data())
def test_a_flipped_byte_gives_a_model_or_a_bad_message(model: dict[str, Any], data: st.DataObject) -> None:
    packed = bytearray(pack(model))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        layout, vector = vector_of(bytes(packed))
    except BadMessage:
        return
    assert len(vector) == layout.params


def test_metadata_of_other_writers_is_passed_over() -> None:
    library = pytest.importorskip("safetensors.numpy")
    assert unpack(library.save(SMALL, metadata={"made": "elsewhere"})).keys() == SMALL.keys()


def test_a_header_alone_tells_the_layout_only_with_its_values() -> None:
    layout = layout_of(SMALL)
    assert read_header(pack(SMALL)) == (layout, len(header(layout)))
    with pytest.raises(BadMessage, match="size"):
        read_header(header(layout))


def test_the_header_is_aligned() -> None:
    for length in range(1, 20):
        assert len(header(Layout(("n" * length,), ((1,),)))) % 8 == 0


def test_precision_is_given_up_in_one_place() -> None:
    assert float32(np.float64(0.1)).dtype == np.float32
    assert float32(np.float64(0.1)).shape == ()
    assert float32([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert not finite(float32([1e300]))
    with pytest.raises(LearnerError, match="complex128"):
        float32([1j])
    with pytest.raises(LearnerError, match="expected numbers"):
        float32(["one"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_seen(bad: float) -> None:
    assert finite(np.zeros(3, np.float32))
    assert not finite(np.array([0, bad], np.float32))


def test_nothing_is_a_model_too() -> None:
    assert unpack(pack({})) == {}
    assert flatten({}, layout_of({})).shape == (0,)
    assert subject.count(()) == 1
