"""Readings are counted in blocks of equally many rows, by regime, however they come in."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.bins import INNER, together
from reuna.core.conformity import Columns
from reuna.core.contract import Contract, Signal
from reuna.core.errors import SettingsError
from reuna.core.monitoring import (
    ANSWER,
    CONFIDENCE,
    EMPTY,
    MOST_REGIMES,
    Block,
    Monitoring,
    Parts,
    answered,
    as_settings,
    counted_of,
    cut,
    monitoring,
)
from reuna.core.project import project_settings
from reuna.core.settings import Source

AGREED = Contract(
    every_s=10.0,
    signals=(Signal("flow", min=0, max=32), Signal("mode", type="integer"), Signal("note", type="text")),
)
RULE = Monitoring(block_s=40.0, regime="mode")


def table(flow: list[float], mode: list[float]) -> Columns:
    return Columns(
        len(flow), {"flow": np.array(flow), "mode": np.array(mode), "note": np.array(["x"] * len(flow))}
    )


CELLS = st.one_of(st.floats(-5, 40), st.just(np.nan))
ROWS = st.lists(st.tuples(CELLS, st.sampled_from([0.0, 1.0, np.nan])), max_size=60)


@given(ROWS, st.lists(st.integers(0, 60), max_size=6))
def test_blocks_are_the_same_however_the_rows_come_in(rows: list[tuple[float, float]], at: list[int]) -> None:
    flow, mode = [one for one, _ in rows], [one for _, one in rows]
    whole_parts, whole = cut(AGREED, RULE, {}, table(flow, mode))
    parts: Parts = {}
    found: list[Block] = []
    ends = [0, *sorted(place for place in at if place < len(rows)), len(rows)]
    for first, last in pairwise(ends):
        parts, more = cut(AGREED, RULE, parts, table(flow[first:last], mode[first:last]))
        found += more
    assert parts == whole_parts
    for regime in ("0", "1"):
        assert [each for each in found if each.regime == regime] == [
            each for each in whole if each.regime == regime
        ]


@given(ROWS)
def test_every_row_with_a_regime_is_counted_once(rows: list[tuple[float, float]]) -> None:
    made = table([one for one, _ in rows], [one for _, one in rows])
    parts, found = cut(AGREED, RULE, {}, made)
    kept = [*(each.counted for each in found), *(each.counted for each in parts.values())]
    cells = {each.signal: sum(each.cells) for each in together(kept)}
    expected = sum(bool(np.isfinite(mode)) for _, mode in rows)
    assert cells.get(EMPTY + "flow", 0) == expected
    assert all(sum(each.counted[-1].cells) == RULE.rows(AGREED.every_s) for each in found)


def test_rows_of_a_block_follow_from_the_sampling() -> None:
    assert (Monitoring(600).rows(60), Monitoring(600).rows(None), Monitoring(1).rows(60)) == (10, 600, 1)
    assert Monitoring(block_s=600, quiet_days=90).periods == 12_960


def test_without_a_regime_all_rows_are_one() -> None:
    _, found = cut(AGREED, Monitoring(20.0), {}, table([1.0, 2.0, np.nan, 4.0], [0.0, 1.0, 2.0, np.nan]))
    assert [each.regime for each in found] == ["", ""]
    assert [each.cells[:2] for each in found[1].counted if each.signal == EMPTY + "flow"] == [(1, 1)]


def test_a_table_without_the_regime_is_left_out() -> None:
    assert cut(AGREED, RULE, {}, Columns(9, {"flow": np.arange(9.0)})) == ({}, [])


def test_a_signal_with_endless_regimes_fills_no_memory() -> None:
    parts, _ = cut(AGREED, RULE, {}, table([1.0] * 500, [float(n) for n in range(500)]))
    assert len(parts) == MOST_REGIMES


def test_a_column_that_is_missing_counts_as_empty() -> None:
    found = {each.signal: each.cells for each in counted_of(AGREED, Columns(3, {"mode": np.zeros(3)}))}
    assert found[EMPTY + "flow"][:2] == (0, 3)
    assert sum(found["flow"]) == 0
    assert EMPTY + "note" not in found


def test_answers_and_confidences_have_bins_too() -> None:
    answers, sure = answered([0.0, 2.0, 2.0, None, 99.0], [1.0, 0.5, float("nan")])
    assert (answers.signal, answers.counts[:3], answers.outside) == (ANSWER, (1, 0, 2), 1)
    assert (sure.signal, sum(sure.cells), sure.counts[INNER - 1], sure.counts[INNER // 2]) == (
        CONFIDENCE,
        2,
        1,
        1,
    )


def test_rules_travel_among_the_settings_of_a_run() -> None:
    assert monitoring(as_settings(RULE)) == RULE
    assert as_settings(Monitoring()) == {}
    assert monitoring({}) == Monitoring()
    with pytest.raises(SettingsError, match="rules of monitoring cannot be read"):
        monitoring({"monitoring": "{"})


def said(**monitoring_: object) -> Source:
    values = {
        "project": {"name": "p"},
        "learner": {"entry": "d:L"},
        "signals": {"mode": {"type": "integer"}, "flow": {"unit": "m^3/h"}},
        "monitoring": monitoring_,
    }
    return Source("reuna.toml", values)


def test_a_regime_is_a_signal_with_whole_numbers() -> None:
    strategies = {"fedavg": ()}
    assert "monitoring" in project_settings([said(regime="mode")], strategies).settings
    for wrong in ("flow", "speed"):
        with pytest.raises(SettingsError, match="no signal of type integer or boolean"):
            project_settings([said(regime=wrong)], strategies)
