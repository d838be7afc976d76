"""What a source may give: batches of columns, checked whole."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from reuna.core.errors import DataError
from reuna.core.sources import (
    BAD,
    GOOD,
    Batch,
    Column,
    Gap,
    Scaling,
    Source,
    Tag,
    chained,
    check_batch,
    check_tags,
    column,
    joined,
    ns_of,
)

TAGS = [Tag("t", "degC"), Tag("p", "bar")]


def batch(found: Column, **rest) -> Batch:
    return Batch({"t": found}, 10, **rest)


def test_the_port_has_no_word_for_writing() -> None:
    """Read-only by construction: whoever holds a source can name it, list it and read it."""
    own = {name for name in vars(Source) if not name.startswith("_")}
    assert own == {"name", "tags", "batches"}
    assert list(inspect.signature(Source.batches).parameters) == ["self"]


def test_readings_are_sorted_by_time_and_what_is_not_finite_is_bad() -> None:
    made = column([3, 1, 2], [30.0, np.inf, np.nan], [0, 0, 1], [7, 8, 9])
    assert made.times.tolist() == [1, 2, 3]
    assert made.quality.tolist() == [BAD, BAD, GOOD]
    assert made.codes.tolist() == [8, 9, 7]
    check_batch(batch(made), TAGS)


def test_times_at_both_ends_of_64_bits_are_in_order() -> None:
    check_batch(batch(column([2**63 - 1, -(2**63)], [1, 2])), TAGS)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Batch({"x": column([1], [1])}, 1), "tag 'x': the source has no such tag"),
        (batch(Column(np.zeros(1), np.zeros(1), np.zeros(1, np.uint8))), "times is float64"),  # type: ignore[arg-type]
        (batch(Column(np.zeros(1, np.int64), np.zeros((1, 1)), np.zeros(1, np.uint8))), r"shape \(1, 1\)"),
        (batch(Column(np.zeros(2, np.int64), np.zeros(1), np.zeros(2, np.uint8))), "1 values for 2 times"),
        (batch(Column(np.zeros(1, np.int64), np.zeros(1), np.zeros(0, np.uint8))), "0 quality for 1 times"),
        (batch(Column(np.array([2, 1]), np.zeros(2), np.zeros(2, np.uint8))), "not in order"),
        (batch(Column(np.zeros(1, np.int64), np.zeros(1), np.array([3], np.uint8))), "quality 3"),
        (batch(Column(np.zeros(1, np.int64), np.full(1, np.nan), np.zeros(1, np.uint8))), "not finite"),
        (batch(column([1], [1]), gaps=(Gap(2, 1, "away"),)), "a gap ends before it begins"),
        (batch(column([1], [1]), gaps=(Gap(1, 2, "away", ("x",)),)), "names an unknown tag"),
        (batch(column([1], [1]), gaps=(Gap(1, 2, "a" * 201),)), "says too much"),
    ],
)
def test_a_batch_that_no_source_may_give_is_refused(wrong: Batch, said: str) -> None:
    with pytest.raises(DataError, match=said):
        check_batch(wrong, TAGS)


@pytest.mark.parametrize("names", [[""], ["a\n"], ["a" * 201], ["a", "a"]])
def test_names_of_tags_are_printable_and_there_once(names: list[str]) -> None:
    with pytest.raises(DataError):
        check_tags([Tag(name) for name in names])


def test_batches_of_a_second_become_one() -> None:
    one = Batch({"t": column([1, 3], [1, 3])}, 5, (Gap(0, 1, "began"),))
    two = Batch({"t": column([2], [2], codes=[9]), "p": column([2], [5])}, 6)
    made = joined([one, two])
    assert made.columns["t"].values.tolist() == [1, 2, 3]
    assert made.columns["t"].codes.tolist() == [0, 9, 0]
    assert (made.received_ns, made.readings, made.gaps) == (6, 4, one.gaps)


def test_live_and_historical_batches_stay_apart() -> None:
    with pytest.raises(DataError, match="all live or all historical"):
        joined([batch(column([1], [1])), batch(column([1], [1]), historical=True)])


def test_nothing_chained_is_an_empty_column() -> None:
    assert len(chained([])) == 0


def test_a_number_that_scaling_makes_too_large_is_bad() -> None:
    assert Scaling(0.1, -40.0)(np.array([400.0])).tolist() == [0.0]
    assert column([1], Scaling(1e300)(np.array([1e300]))).quality.tolist() == [BAD]


def test_seconds_become_nanoseconds_without_loss_of_whole_ones() -> None:
    assert ns_of(1_800_000_000.0) == 1_800_000_000 * 10**9
    assert ns_of(-1.5) == -1_500_000_000
