"""Windows cross to the fog as they are; what comes back decides only where the fog is sure."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.grid import Cells, Rows
from reuna.core.outcomes import Outcome, counted
from reuna.core.packed import packed, unpacked
from reuna.core.second import Doubtful, Opinion, Opinions, alone, decided, opinion
from reuna.wire import decode, encode

OWN = Outcome("pumps", 3, "d" * 64, 0, 11, "answered", 0.0, (0.6, 0.4), took_ms=4.0)
SAID = Opinions(7, "e" * 64, ())


def rows(count: int, before: int, seed: int = 1) -> Rows:
    chance = np.random.default_rng(seed)
    values = chance.normal(size=count)
    values[chance.random(count) < 0.2] = np.nan
    cells = {name: Cells(values + place, chance.random(count) < 0.8) for place, name in enumerate("ab")}
    return Rows(1000, 10, count, cells, before)


@given(st.integers(0, 5), st.integers(1, 6), st.integers(0, 5), st.integers(0, 20))
def test_a_window_comes_out_of_the_message_as_it_went_in(
    before: int, length: int, start: int, after: int
) -> None:
    all_rows = rows(start + length + after, 0)
    window = packed(all_rows, start, length, before)
    asked = Doubtful("big", 60.0, 10, {"a": "", "b": ""}, (window,), 2.0)
    (came,) = decode(Doubtful, encode(asked)).windows
    found = unpacked(asked, came)
    assert found is not None
    first = start - min(before, start)
    assert (found.first_ns, found.before) == (1000 + 10 * first, min(before, start))
    assert found.count == found.before + length, "the window and what mends it, and no row besides"
    for name, each in found.cells.items():
        part = slice(first, first + found.count)
        assert each.values.tobytes() == all_rows.cells[name].values[part].tobytes()
        assert (each.good == all_rows.cells[name].good[part]).all()


@pytest.mark.parametrize("cell", [(bytes(16), b"\1"), (bytes(8), b"\1\1"), (b"", b"")])
def test_cells_of_another_number_of_rows_are_no_window(cell: tuple[bytes, bytes]) -> None:
    window = msgspec.structs.replace(packed(rows(2, 0), 0, 2, 0), cells={"a": cell})
    assert unpacked(Doubtful("big", 1.0, 1, {"a": ""}, (window,), 1.0), window) is None


def test_a_signal_without_a_unit_is_no_window() -> None:
    window = packed(rows(2, 0), 0, 2, 0)
    assert unpacked(Doubtful("big", 1.0, 1, {"a": ""}, (window,), 1.0), window) is None


def test_where_the_fog_is_sure_its_answer_stands_and_the_edge_s_is_kept_beside() -> None:
    found = decided(
        OWN, "big", SAID, Opinion(True, True, 1.0, (0.1, 0.9), "flow: missing"), "it was low", 9.0
    )
    assert (found.place, found.answer, found.output, found.state) == ("fog", 1.0, (0.1, 0.9), "mended")
    assert found.why == "unsure: it was low; flow: missing"
    assert (found.own, found.own_ms, found.took_ms) == (0.0, 4.0, 13.0)
    assert (found.project, found.version, found.release) == ("pumps", 3, OWN.release), (
        "it is the edge's window"
    )
    assert found.fog is not None
    assert (found.fog.word, found.fog.project, found.fog.version, found.fog.release) == (
        "answered", "big", 7, SAID.release,
    )  # fmt: skip


@pytest.mark.parametrize(
    "said",
    [
        Opinion(False, False, 5.0, (0.5, 0.5), "confidence"),
        Opinion(True, False, None, ()),
        Opinion(True, False, math.nan, (0.5, 0.5)),
        Opinion(True, False, 1.0, (math.inf, 0.5)),
    ],
)
def test_a_fog_that_is_unsure_as_well_leaves_the_edge_s_answer(said: Opinion) -> None:
    found = decided(OWN, "big", SAID, said, "it was low", 9.0)
    assert (found.place, found.answer, found.output) == ("edge", 0.0, OWN.output)
    assert found.fog is not None
    assert found.fog.word == "unsure"


def test_a_safe_answer_stays_the_safe_one_and_says_both_reasons() -> None:
    safe = msgspec.structs.replace(OWN, state="safe", answer=5.0, why="confidence 0.6 is below 0.7")
    found = alone(safe, "big", "away", "confidence 0.6 is below 0.8")
    assert (found.state, found.answer) == ("safe", 5.0)
    assert found.why == "unsure: confidence 0.6 is below 0.8; fog: away; confidence 0.6 is below 0.7"


def test_counts_say_where_windows_were_decided_and_what_the_fog_did() -> None:
    by_fog = decided(OWN, "big", SAID, Opinion(True, False, 1.0, (0.1, 0.9)), "", 1.0)
    found = counted([OWN, by_fog, alone(OWN, "big", "late", "")])
    assert (found.places, found.fog) == ({"edge": 2, "fog": 1}, {"answered": 1, "late": 1})


def test_agreement_with_a_shadow_is_of_what_the_release_itself_said() -> None:
    by_fog = decided(OWN, "big", SAID, Opinion(True, False, 1.0, (0.1, 0.9)), "", 1.0)
    assert by_fog.agrees(OWN)


def test_a_safe_answer_of_the_fog_is_not_sure() -> None:
    assert not opinion(msgspec.structs.replace(OWN, state="safe")).sure
    assert opinion(msgspec.structs.replace(OWN, state="mended")).mended


def test_an_outcome_kept_before_there_were_fogs_is_still_read() -> None:
    old = msgspec.msgpack.encode({**msgspec.to_builtins(OWN), "fog": None})
    plain = {name: value for name, value in msgspec.msgpack.decode(old).items() if name != "fog"}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plain), type=Outcome) == OWN
