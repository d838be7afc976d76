"""What changed from one contract to the next, and whether it breaks what kept the old one.

A change is breaking when data that kept the old contract may break the new one, or mean something
else to a model. Whatever only allows more is compatible.

>>> old = Contract(signals=(Signal("t", "degC", max=150),))
>>> new = Contract(signals=(Signal("t", "degC", max=120), Signal("p")))
>>> [str(change) for change in changes(old, new)]
['breaking: t: max 150 -> 120', 'breaking: p: new signal']
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from reuna.core.contract import TYPES, Contract, Signal
from reuna.core.units import same_unit

#: keys of a signal of which a larger number allows more, and the number that None stands for
_LARGER = ("max", "max_gap_s", "max_missing", "max_bad")


@dataclass(frozen=True)
class Change:
    """One thing that is said otherwise; ``signal`` is '' for what is said of the tables as a whole."""

    signal: str
    what: str
    breaking: bool

    def __str__(self) -> str:
        kind = "breaking" if self.breaking else "compatible"
        return f"{kind}: {self.signal + ': ' if self.signal else ''}{self.what}"


def changes(old: Contract, new: Contract) -> tuple[Change, ...]:
    """Every change, those of signals last and in the order of their names."""
    return tuple(_changes(old, new))


def breaking(found: tuple[Change, ...]) -> bool:
    """Whether one of them is."""
    return any(change.breaking for change in found)


def unraised(old: Contract, new: Contract) -> str:
    """What to say when a contract changed under the same version, or went back; else ''."""
    if new.version > old.version or (old == new):
        return ""
    return f"[contract] version is {new.version}; raise it to {old.version + 1}"


def _changes(old: Contract, new: Contract) -> Iterator[Change]:
    for name in ("time", "label"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield Change("", f"{name} {_shown(before)} -> {_shown(after)}", bool(after))
    if new.max_unlabelled != old.max_unlabelled:
        what = f"label.max_missing {old.max_unlabelled:g} -> {new.max_unlabelled:g}"
        yield Change("", what, new.max_unlabelled < old.max_unlabelled)
    if new.window_rows != old.window_rows or new.windows != old.windows:
        yield Change("", f"windows {_windows(old)} -> {_windows(new)}", True)
    before, after = ({each.name: each for each in agreed.signals} for agreed in (old, new))
    for name in sorted(before.keys() - after.keys()):
        yield Change(name, "no signal any more", False)
    for name in sorted(before.keys() & after.keys()):
        yield from _of_signal(before[name], after[name])
    for name in sorted(after.keys() - before.keys()):
        yield Change(name, "new signal", True)


def _of_signal(old: Signal, new: Signal) -> Iterator[Change]:
    if not same_unit(old.unit, new.unit):
        yield _change(old, new, "unit", bool(new.unit))
    if old.type != new.type:
        yield _change(old, new, "type", TYPES.index(new.type) < TYPES.index(old.type))
    if old.min != new.min:
        yield _change(old, new, "min", new.low > old.low)
    for key in _LARGER:
        before, after = getattr(old, key), getattr(new, key)
        if before != after:
            yield _change(old, new, key, after is not None and (before is None or after < before))
    if old.every_s != new.every_s:
        yield _change(old, new, "every_s", new.every_s is not None)
    if old.quality != new.quality:
        yield _change(old, new, "quality", bool(new.quality))
    elif set(old.good) != set(new.good):
        yield _change(old, new, "good", not set(old.good) <= set(new.good))


def _change(old: Signal, new: Signal, key: str, breaks: bool) -> Change:
    return Change(new.name, f"{key} {_shown(getattr(old, key))} -> {_shown(getattr(new, key))}", breaks)


def _windows(agreed: Contract) -> str:
    rows, step = agreed.window_rows
    return f"{rows} rows every {step}" if rows else "none"


def _shown(value: Any) -> str:
    if value in (None, "", ()):
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
