"""Rows of a table as readings of tags: its time column as nanoseconds, quality by declared values.

An empty cell is no reading; text where a number is expected is a bad one. With a column of quality an
empty value is a bad reading too.

>>> from reuna.core.source_settings import TagSettings
>>> cells = {"time": np.array([0.0, 1.0, 2.0]), "oil": np.array(["1.5", "Err", ""])}
>>> found = readings([TagSettings("oil", "oil")], "time", "", cells)
>>> found.columns["oil"].values.tolist(), found.columns["oil"].quality.tolist(), found.lost
([1.5, nan], [0, 2], 0)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reuna.core.conformity import time_unit_s
from reuna.core.source_settings import TagSettings
from reuna.core.sources import BAD, GOOD, NS, UNCERTAIN, Column, column

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MOST_NS = float(1 << 62)  #: a time beyond is none: the year 2116


@dataclass(frozen=True)
class Readings:
    """Columns of the tags that the table has; ``lost`` rows have no time that can be read."""

    columns: Mapping[str, Column]
    lost: int


def readings(
    tags: Sequence[TagSettings], time: str, unit: str, cells: Mapping[str, NDArray[Any]]
) -> Readings:
    """Readings of a table's rows; ``cells`` are its columns, float64 or text, ``unit`` that of the time."""
    times, timed = times_ns(time, unit, cells[time])
    found = {}
    for tag in tags:
        if tag.column in cells:
            values, filled = _numbers(cells[tag.column])
            levels = _levels(tag, cells, len(times))
            kept = timed & (filled | _said(tag, cells, len(times)))
            found[tag.name] = column(times[kept], tag.scaling(values[kept]), levels[kept])
    return Readings(found, int((~timed).sum()))


def times_ns(name: str, unit: str, cells: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Times as ns since the epoch, and which of them could be read.

    Numbers are in the unit of the column (seconds, where it says none), text is ISO 8601, UTC where it says
    no zone; what most cells are is what the column is.
    """
    numbers, _ = _numbers(cells)
    if cells.dtype.kind == "U" and 2 * np.isfinite(numbers).sum() <= len(cells):  # a broken row makes it text
        found = [instant_ns(cell) for cell in cells.tolist()]
        timed = np.array([moment is not None for moment in found], bool)
        return np.array([moment or 0 for moment in found], np.int64), timed
    seconds = numbers * time_unit_s(name, unit)
    timed = np.abs(seconds) < MOST_NS / NS  # false for NaN
    whole = np.floor(np.where(timed, seconds, 0.0))
    part = np.round((np.where(timed, seconds, 0.0) - whole) * NS)
    return whole.astype(np.int64) * NS + part.astype(np.int64), timed


def instant_ns(text: str) -> int | None:
    """ISO 8601 as ns since the epoch, UTC where it says no zone; None where it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    found = (aware - EPOCH) // MICROSECOND * 1000
    return found if abs(found) < MOST_NS else None


def _numbers(cells: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values, NaN where there is no number, and which cells are not empty."""
    if cells.dtype.kind != "U":
        return cells.astype(np.float64), ~np.isnan(cells)
    return np.array([number_of(cell) for cell in cells.tolist()], np.float64), cells != ""


def number_of(cell: str) -> float:
    """A number as text, NaN where it is none."""
    try:
        return math.nan if "_" in cell else float(cell)
    except ValueError:
        return math.nan


def _said(tag: TagSettings, cells: Mapping[str, NDArray[Any]], rows: int) -> NDArray[np.bool_]:
    """Rows in which something is said of the quality."""
    found = cells.get(tag.quality)
    if found is None:
        return np.zeros(rows, bool)
    return np.asarray(found != "" if found.dtype.kind == "U" else ~np.isnan(found), bool)


def _levels(tag: TagSettings, cells: Mapping[str, NDArray[Any]], rows: int) -> NDArray[np.uint8]:
    """Quality of each row: good where nothing is declared, bad where the declared column is not there."""
    if not tag.quality:
        return np.full(rows, GOOD, np.uint8)
    found = cells.get(tag.quality)
    if found is None:
        return np.full(rows, BAD, np.uint8)
    uncertain = np.where(_among(found, tag.uncertain), np.uint8(UNCERTAIN), np.uint8(BAD))
    return np.where(_among(found, tag.good), np.uint8(GOOD), uncertain)


def _among(found: NDArray[Any], values: Sequence[str]) -> NDArray[np.bool_]:
    """Cells that are one of those values; as numbers where the column has numbers."""
    if found.dtype.kind == "U":
        return np.asarray(np.isin(found, list(values)) & (found != ""), bool)
    numbers = [number for number in map(number_of, values) if not math.isnan(number)]
    return np.asarray(np.isin(found, numbers), bool)
