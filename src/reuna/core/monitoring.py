"""What `[monitoring]` of `reuna.toml` asks for, and the blocks into which readings are counted for it.

    [monitoring]
    block_s = 600            # readings of so long are one block
    quiet_days = 90          # between two false alarms of a machine, on average and at least
    regime = "mode"          # a signal; each of its whole numbers is watched by itself
    quiet_labels = 10_000    # between two false alarms of errors, on average and at least

A block has for each signal how its values are spread (`reuna.core.bins`), and how many cells of it are empty;
of a model, how its answers and its confidence are. `reuna.core.watch` holds blocks against each other.

>>> from reuna.core.contract import Signal
>>> agreed = Contract(every_s=60, signals=(Signal("t", min=0, max=32),))
>>> rule = Monitoring(block_s=120)
>>> rest, found = cut(agreed, rule, {}, Columns(5, {"t": np.array([1.0, 2.0, 3.0, np.nan, 5.0])}))
>>> [(each.regime, [sum(one.cells) for one in each.counted]) for each in found]
[('', [2, 2]), ('', [1, 2])]
>>> rest[""].rows
1
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from reuna.core.bins import INNER, Counted, count, together
from reuna.core.conformity import Columns
from reuna.core.contract import Contract
from reuna.core.errors import SettingsError
from reuna.core.foreign import UNREADABLE, shown
from reuna.core.records import Setting
from reuna.core.settings import Option, between

KEY = "monitoring"  #: of the rules among the settings
EMPTY = "empty cells of "  #: before a signal's name: how many of its cells have a value, and how many none
ANSWER, CONFIDENCE = "the model's answer", "the model's confidence"
MOST_REGIMES = 64  #: whose blocks are begun at a time; rows of others are left out
DAY_S = 86_400


class Monitoring(msgspec.Struct, frozen=True, omit_defaults=True):
    """The rules of a project."""

    block_s: float = 600.0
    quiet_days: float = 90.0
    regime: str = ""
    quiet_labels: float = 10_000.0

    def rows(self, every_s: float | None) -> int:
        """Rows of a block; ``every_s``: seconds between two rows, None: one."""
        return max(1, round(self.block_s / (every_s or 1.0)))

    @property
    def periods(self) -> float:
        """Blocks between two false alarms."""
        return self.quiet_days * DAY_S / self.block_s


@dataclass(frozen=True)
class Block:
    """The counts of equally many rows of one regime; '' where there is one regime only."""

    regime: str
    counted: tuple[Counted, ...]


@dataclass(frozen=True)
class Part:
    """The beginning of a block."""

    rows: int
    counted: tuple[Counted, ...]


Parts = Mapping[str, Part]  #: by regime


def cut(agreed: Contract, rule: Monitoring, before: Parts, table: Columns) -> tuple[Parts, list[Block]]:
    """Count more rows: the parts that are not whole yet, and the blocks that have become so."""
    parts, found, whole = dict(before), list[Block](), rule.rows(agreed.every_s)
    for regime, rows in _by_regime(rule, table):
        left = rows
        while len(left) and (regime in parts or len(parts) < MOST_REGIMES):
            part = parts.get(regime, Part(0, ()))
            taken, left = left[: whole - part.rows], left[whole - part.rows :]
            counted = together([part.counted, counted_of(agreed, _at(table, taken))])
            parts[regime] = Part(part.rows + len(taken), counted)
            if parts[regime].rows == whole:
                found.append(Block(regime, counted))
                del parts[regime]
    return parts, found


def counted_of(agreed: Contract, table: Columns) -> tuple[Counted, ...]:
    """A table's values in the bins of each signal, and the empty cells of each."""
    numbers = [each.name for each in agreed.signals if each.type != "text"]
    return (*count(agreed, table), *(_filled(name, table) for name in numbers))


def answered(answers: Sequence[float | None], confidences: Sequence[float]) -> tuple[Counted, ...]:
    """Answers of a classifier, by class (from `INNER` on: outside; none: none), and confidences, 0 to 1."""
    known = np.array([each for each in answers if each is not None], np.float64)
    sure = np.array([each for each in confidences if np.isfinite(each)], np.float64)
    classes, _ = np.histogram(known[(known >= 0) & (known < INNER)], INNER, (0, INNER))
    spread, _ = np.histogram(np.clip(sure, 0, 1), INNER, (0, 1))
    beyond = len(known) - int(classes.sum())
    return (
        Counted(ANSWER, tuple(map(int, classes)), beyond),
        Counted(CONFIDENCE, tuple(map(int, spread)), 0),
    )


def _by_regime(rule: Monitoring, table: Columns) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Rows of each regime, in their order; a row without one belongs to none and is left out."""
    values = table.values.get(rule.regime) if rule.regime else None
    if values is None:
        yield "", np.arange(table.rows if not rule.regime else 0)
        return
    numbers = values.astype(np.float64) if values.dtype.kind != "U" else np.full(len(values), np.nan)
    for regime in np.unique(numbers[np.isfinite(numbers)]):
        yield f"{regime:g}", np.flatnonzero(numbers == regime)


def _at(table: Columns, rows: NDArray[np.int64]) -> Columns:
    return Columns(len(rows), {name: values[rows] for name, values in table.values.items()}, table.units)


def _filled(name: str, table: Columns) -> Counted:
    values = table.values.get(name)
    filled = 0 if values is None else int(np.count_nonzero(_has_value(values)))
    return Counted(EMPTY + name, (filled, table.rows - filled, *[0] * (INNER - 2)))


def _has_value(values: NDArray[Any]) -> NDArray[np.bool_]:
    return values != "" if values.dtype.kind == "U" else np.isfinite(values.astype(np.float64))


# --- reading [monitoring] ------------------------------------------------------------------------

OPTIONS = (
    Option(
        "monitoring.block_s",
        float,
        600.0,
        "readings of so long are compared as one block",
        "s",
        between(1, 7 * DAY_S),
    ),
    Option(
        "monitoring.quiet_days",
        float,
        90.0,
        "days between two false alarms of a machine, on average and at least",
        "d",
        between(0.01, 36_500),
    ),
    Option("monitoring.regime", str, "", "a signal; each of its whole numbers is watched by itself"),
    Option(
        "monitoring.quiet_labels",
        float,
        10_000.0,
        "labels between two false alarms of errors, on average and at least",
        "",
        between(10, 1e12),
    ),
)


def odd(values: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with rules that are right of themselves: lines that name a setting."""
    name = values["monitoring.regime"]
    if name and values["signals"].get(name, {}).get("type") not in ("integer", "boolean"):
        yield f"monitoring.regime is {name!r}, which is no signal of type integer or boolean of the contract"


def monitoring_of(values: Mapping[str, Any]) -> Monitoring:
    """The rules that the checked values of `reuna.toml` say."""
    return Monitoring(
        values["monitoring.block_s"],
        values["monitoring.quiet_days"],
        values["monitoring.regime"],
        values["monitoring.quiet_labels"],
    )


def as_settings(rule: Monitoring) -> dict[str, Setting]:
    """The rules as they stand among a run's settings; nothing when none were declared."""
    return {} if rule == Monitoring() else {KEY: msgspec.json.encode(rule).decode()}


def monitoring(settings: Mapping[str, Setting]) -> Monitoring:
    """The rules among a run's settings. Raises `SettingsError` for a text that is none of ours."""
    text = settings.get(KEY)
    if text is None:
        return Monitoring()
    try:
        return msgspec.json.decode(str(text), type=Monitoring)
    except (*UNREADABLE, UnicodeEncodeError) as error:
        raise SettingsError(f"the rules of monitoring cannot be read: {shown(str(error))}") from error
