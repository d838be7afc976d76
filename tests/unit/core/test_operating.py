"""What a node says of the releases that it runs."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reuna.core.errors import BadMessage
from reuna.core.operating import FIELD, MOST, Operating, event_of, hidden, read_event, without_small

ONE = Operating("pumps", 4, "a" * 64, "trial", windows=40, safe=9, compared=30, agreed=20, since=5.0)


def test_what_is_said_is_heard() -> None:
    assert read_event(event_of("e1", "b", 3, 6.0, [ONE, Operating("ovens")])) == [ONE, Operating("ovens")]


def test_fields_of_a_later_version_are_read_past() -> None:
    event = event_of("e1", "b", 3, 6.0, [ONE])
    later = str(event.fields[FIELD]).replace("{", '{"colour":"red",', 1)
    assert read_event(replace(event, fields={FIELD: later})) == [ONE]


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[7]", '[{"project": ""}]', '[{"project": "p", "phase": "gone"}]',
     '[{"project": "p", "reason": "row 7 said 3.2 bar"}]', '[{"project": "p", "windows": -1}]',
     msgspec.json.encode([Operating("p")] * (MOST + 1)).decode()],
)  # fmt: skip
def test_any_other_words_are_refused(text: str) -> None:
    with pytest.raises(BadMessage):
        read_event(replace(event_of("e1", "b", 3, 6.0, []), fields={FIELD: text}))


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 20))
def test_no_count_that_leaves_tells_of_few_windows(
    windows: int, safe: int, compared: int, agreed: int, least: int
) -> None:
    safe, agreed = min(safe, windows), min(agreed, compared)
    told = replace(ONE, windows=windows, safe=safe, compared=compared, agreed=agreed)
    (seen,) = without_small([told], least)
    for part, of in (
        (seen.windows, windows),
        (seen.compared, compared),
        (seen.safe, windows),
        (seen.agreed, compared),
    ):
        if part is not None:
            assert not 0 < part < least
            assert not 0 < of - part < least
    assert (seen.version, seen.phase, seen.digest) == (4, "trial", "a" * 64)
    assert without_small([told], 0) == [told]


def test_an_event_without_words_that_we_know_leaves_without_any() -> None:
    event = event_of("e1", "b", 3, 6.0, [ONE])
    assert read_event(hidden(event, 10))[0].safe is None
    assert hidden(replace(event, fields={FIELD: "raw", "more": 7}), 10).fields == {}
