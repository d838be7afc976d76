"""The golden input: what a graph answered when it was released, and whether it does so still."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from reuna.core.errors import BadMessage
from reuna.core.golden import TOLERANCE, Golden, decode, encode, seeded, wrong
from reuna.core.tensors import pack

ROWS = Golden(seeded((3,)), np.array([[0.1, 0.9]] * 4, np.float32))


@given(
    arrays.arrays(np.float32, (4, 3), elements=st.floats(-1e6, 1e6, width=32)),
    arrays.arrays(np.float32, (4, 2), elements=st.floats(-1e6, 1e6, width=32)),
)
def test_what_is_written_is_read_again_and_answers_itself(x: np.ndarray, y: np.ndarray) -> None:
    same = decode(encode(Golden(x, y)))
    assert same.x.tobytes() == x.tobytes()
    assert same.y.tobytes() == y.tobytes()
    assert wrong(same, y) == ""


def test_a_shift_that_another_processor_may_make_is_no_fault_and_a_larger_one_is_named() -> None:
    assert wrong(ROWS, ROWS.y + TOLERANCE / 2) == ""
    off = ROWS.y.copy()
    off[2, 1] += 0.01
    assert wrong(ROWS, off) == "row 3 of the golden input answers 0.91 where the release said 0.9"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("known", [ROWS, None])
def test_an_answer_that_is_not_finite_is_named_whether_or_not_the_release_said_one(
    known: Golden | None, value: float
) -> None:
    off = ROWS.y.copy()
    off[1, 0] = value
    assert wrong(known, off) == "row 2 of the golden input has no finite answer"
    assert wrong(None, ROWS.y) == ""


def test_other_shapes_and_no_answers_at_all_are_wrong() -> None:
    assert "shape (4, 1)" in wrong(ROWS, ROWS.y[:, :1])
    assert wrong(ROWS, np.empty((0, 2))) != ""
    assert wrong(None, np.empty((4, 0))) != ""


@pytest.mark.parametrize(
    "text",
    ["", "%%", base64.b64encode(b"x" * 40).decode(), encode(Golden(seeded((2,)), ROWS.y[:2])),
     base64.b64encode(pack({"x": np.zeros((2, 2), np.float32)})).decode(),
     encode(Golden(seeded((2,)), np.empty((4, 0), np.float32)))],
)  # fmt: skip
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(BadMessage):
        decode(text)


def test_the_drawn_input_is_the_same_everywhere() -> None:
    assert seeded((2,)).tolist() == seeded((2,)).tolist()
    assert np.abs(seeded((500,))).max() <= 1
    assert seeded(()).shape == (4,)
