"""What a node says of its watch has numbers and names of signals, and nothing else."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.contract_report import MAX_COLUMN
from reuna.core.errors import BadMessage
from reuna.core.records import Event, Setting
from reuna.core.watched import MOST, WHAT, Watched, as_fields, is_watched, read_fields, without_small

NUMBER = st.floats(0, 1e9)
SAID = st.builds(
    Watched,
    rows=st.integers(0, 10**6),
    blocks=st.integers(0, 10**6),
    level=NUMBER,
    alarm=st.booleans(),
    moved=st.dictionaries(st.text(min_size=1, max_size=20), NUMBER, max_size=5),
    answers_alarm=st.booleans(),
    p99_ms=NUMBER,
    project=st.text(max_size=20),
)


def event(fields: dict[str, Setting], what: str = WHAT) -> Event:
    return Event("edge-1", "b", 0, 0.0, what, fields=fields)


@given(SAID)
def test_what_is_said_is_read_again(said: Watched) -> None:
    assert read_fields(as_fields(said)) == said
    assert is_watched(event(as_fields(said)))


@pytest.mark.parametrize(
    "fields",
    [
        {"level": "high"},
        {"rows": -1},
        {"rows": 1.5},
        {"alarm": 1},
        {"first_row": 17},
        {"level": float("nan")},
        {"moved/oil": "17.2 bar at 03:12"},
        {"project": 3},
        {"project": "x" * 201},
        {"labels": 0.5},
        {"errors_alarm": 1},
        {"moved/" + "x" * (MAX_COLUMN + 1): 1.0},
        {f"moved/{n}": 1.0 for n in range(MOST + 1)},
    ],
)
def test_an_event_with_anything_else_is_none(fields: dict[str, Setting]) -> None:
    assert not is_watched(event(fields))


def test_another_event_is_none() -> None:
    assert not is_watched(event({"level": 1.0}, "log"))


@given(SAID, st.integers(0, 10**6))
def test_of_short_blocks_no_level_and_no_name_is_told(said: Watched, least: int) -> None:
    told = read_fields(without_small(as_fields(said), least))
    if said.rows >= least:
        assert told == said
    else:
        assert told == Watched(rows=said.rows, blocks=said.blocks, withheld=1, project=said.project)


@pytest.mark.parametrize(
    ("windows", "safe", "told"),
    [(400, 0, True), (400, 40, True), (400, 3, False), (400, 397, False), (7, 0, False), (7, 7, False)],
)
def test_few_windows_of_a_kind_are_not_told(windows: int, safe: int, told: bool) -> None:
    fields = as_fields(Watched(rows=600, level=0.5, windows=windows, safe=safe))
    kept = read_fields(without_small(fields, 20))
    assert (kept.windows, kept.safe) == ((windows, safe) if told else (0, 0))
    assert (kept.level, kept.windows_withheld) == (0.5, int(not told))


@pytest.mark.parametrize("rows", [10, 600])
@pytest.mark.parametrize(
    ("labels", "wrong", "told"),
    [(400, 0, True), (400, 40, True), (400, 3, False), (400, 397, False), (7, 0, False), (7, 7, False)],
)
def test_few_labels_of_a_kind_are_not_told_nor_what_is_made_of_them(
    rows: int, labels: int, wrong: int, told: bool
) -> None:
    fields = as_fields(
        Watched(rows, labels=labels, wrong=wrong, error=0.1, errors_level=2.0, errors_alarm=True)
    )
    kept = read_fields(without_small(fields, 20))
    said = (kept.labels, kept.wrong, kept.error, kept.errors_level, kept.errors_alarm, kept.labels_withheld)
    assert said == ((labels, wrong, 0.1, 2.0, True, 0) if told else (0, 0, 0.0, 0.0, False, 1))
    assert kept.withheld == (rows < 20)


def test_so_many_signals_are_named_those_that_moved_furthest() -> None:
    said = Watched(moved={f"s{n}": float(n) for n in range(MOST + 9)})
    told = read_fields(as_fields(said)).moved
    assert len(told) == MOST
    assert min(told.values()) == 9


def test_what_cannot_be_read_is_refused() -> None:
    for fields in ({"rows": "many"}, {"moved/oil": "far"}):
        with pytest.raises(BadMessage, match="cannot be read"):
            read_fields(fields)


def test_fields_keep_their_names() -> None:
    fields = as_fields(Watched(600, 9, 100, 1.5, True, {"oil": 3.25}, 0.5, True, 40, 2, 1.5, 4.0, 1))
    assert msgspec.json.encode(fields) == (
        b'{"rows":600,"blocks":9,"reference":100,"level":1.5,"alarm":true,"answers_level":0.5,'
        b'"answers_alarm":true,"windows":40,"safe":2,"p50_ms":1.5,"p99_ms":4.0,"withheld":1,"moved/oil":3.25}'
    )


def test_fields_of_projects_and_labels_keep_their_names() -> None:
    said = Watched(project="pumps", labels=40, wrong=4, error=0.1, errors_level=0.5, errors_alarm=True)
    assert msgspec.json.encode(as_fields(said)) == (
        b'{"project":"pumps","labels":40,"wrong":4,"error":0.1,"errors_level":0.5,"errors_alarm":true}'
    )
    assert without_small({"windows": 3, "labels": 3}, 5) == {"labels_withheld": 1, "withheld": 1}
