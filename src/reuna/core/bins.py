"""Reference bins: how the values of each signal were spread when a model was trained, in whole numbers.

Every node counts its training tables into the same bins, `INNER` equally wide ones over the range that the
contract gives a signal and one for all that lies outside. Counts leave as a statistic, in an event ``bins``
with a field ``bin/PLACE/COLUMN`` for each that is not zero, and are summed over nodes. Of few rows a site's
policy may keep them; `without_small` then keeps so many more that none is told by subtraction, from the
counts of `reuna.core.contract_report` either.

>>> import numpy as np
>>> from reuna.core.conformity import Columns
>>> agreed = Contract(signals=(Signal("t", min=0, max=32), Signal("open", min=0)))
>>> (found,) = count(agreed, Columns(4, {"t": np.array([0.0, 32.0, 40.0, np.nan])}))
>>> found.counts[0], found.counts[31], found.outside
(1, 1, 1)
>>> as_fields(1, [found])
{'version': 1, 'bin/0/t': 1, 'bin/31/t': 1, 'bin/outside/t': 1}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from reuna.core.contract import Contract, Signal
from reuna.core.contract_report import MAX_COLUMN
from reuna.core.records import Event, Setting

if TYPE_CHECKING:
    from reuna.core.conformity import Columns

WHAT = "bins"  #: of the event
INNER = 32  #: can be put together to 16, 8, 4
OUTSIDE = "outside"
LARGEST = 2**48  #: a node that tells of more readings is not believed
MAX_SIGNALS = 128  #: that a node tells of, so that an event stays below a megabyte
_PLACES = {**{str(place): place for place in range(INNER)}, OUTSIDE: INNER}


class Counted(msgspec.Struct, frozen=True):
    """A signal's counts. ``counts`` are `INNER` from its lowest value to its highest."""

    signal: str
    counts: tuple[int, ...]
    outside: int = 0

    @property
    def cells(self) -> tuple[int, ...]:
        """All of them, those outside last."""
        return (*self.counts, self.outside)


def binned(agreed: Contract) -> list[Signal]:
    """The signals that have bins: numbers with both ends of a range; at most `MAX_SIGNALS`."""
    found = [x for x in agreed.signals if x.type != "text" and x.min is not None and x.max is not None]
    return [each for each in found if len(each.name) <= MAX_COLUMN][:MAX_SIGNALS]


def of_contract(agreed: Contract, counted: Iterable[Counted]) -> list[Counted]:
    """Whole counts of signals that have bins; no others are told."""
    names = {each.name for each in binned(agreed)}
    return [each for each in counted if each.signal in names and len(each.counts) == INNER]


def count(agreed: Contract, table: Columns) -> tuple[Counted, ...]:
    """The counts of one table; empty cells and what is no number are in none."""
    import numpy as np  # who passes counts on has no use for it

    found = []
    for signal in binned(agreed):
        values = table.values.get(signal.name)
        known = np.empty(0) if values is None or values.dtype.kind == "U" else values.astype(np.float64)
        known = known[np.isfinite(known)]
        within = (signal.low <= known) & (known <= signal.high)
        inner, _ = np.histogram(known[within], INNER, (signal.low, signal.high))
        found.append(Counted(signal.name, tuple(map(int, inner)), int(np.count_nonzero(~within))))
    return tuple(found)


def together(parts: Iterable[Iterable[Counted]]) -> tuple[Counted, ...]:
    """Sums of several tables or nodes, by signal."""
    sums: dict[str, list[int]] = {}
    for each in (one for part in parts for one in part):
        cells = sums.setdefault(each.signal, [0] * (INNER + 1))
        for place, number in enumerate(each.cells):
            cells[place] += number
    return tuple(_of(name, cells) for name, cells in sums.items())


def as_fields(version: int, counted: Iterable[Counted]) -> dict[str, int]:
    """An event's fields."""
    cells = {
        f"bin/{place}/{each.signal}": each.cells[at]
        for each in counted
        for place, at in _PLACES.items()
        if each.cells[at]
    }
    return {"version": version, **cells}


def told(fields: Mapping[str, Setting]) -> tuple[Counted, ...]:
    """The counts in an event's fields, by signal; what is not told is 0."""
    found: dict[str, list[int]] = {}
    for key, value in fields.items():
        what, _, rest = key.partition("/")
        place, _, signal = rest.partition("/")
        if what == "bin" and place in _PLACES and type(value) is int and 0 <= value <= LARGEST:
            found.setdefault(signal, [0] * (INNER + 1))[_PLACES[place]] = value
    return tuple(_of(signal, cells) for signal, cells in found.items())


def is_bins(event: Event) -> bool:
    """Whether an event says nothing but such counts; any other is of the kind that may quote data."""
    few = len(event.fields) <= MAX_SIGNALS * (INNER + 1) + 2
    return event.what == WHAT and few and all(map(_is_count, event.fields, event.fields.values()))


def _is_count(key: str, value: Setting) -> bool:
    what, _, rest = key.partition("/")
    place, _, signal = rest.partition("/")
    named = key in ("version", "withheld") or (what == "bin" and place in _PLACES)
    return named and len(signal) <= MAX_COLUMN and type(value) is int and value >= 0


def without_small(fields: Mapping[str, Setting], least: int) -> dict[str, Setting]:
    """Without counts of fewer rows than ``least``; ``withheld`` says how many counts stayed.

    Where one of a signal's stays, so many of its smallest inner ones stay that together they hold at
    least ``least`` rows: else the rows of the table less all that is told would be the small one.
    """
    hidden = {(each.signal, place) for each in told(fields) for place in _hidden(each, least)}
    if not hidden:
        return dict(fields)
    gone = {f"bin/{place}/{signal}" for signal, place in hidden}
    before = fields.get("withheld", 0)
    kept = {key: value for key, value in fields.items() if key not in gone}
    return {**kept, "withheld": len(hidden) + (before if isinstance(before, int) else 0)}


def _hidden(each: Counted, least: int) -> list[str]:
    names = list(_PLACES)
    if not any(0 < cell < least for cell in each.cells):
        return []
    stays = [OUTSIDE] if 0 < each.outside < least else []
    rows = 0
    for number, place in sorted((cell, place) for place, cell in enumerate(each.counts) if cell):
        if number >= least and rows >= least:
            break
        stays.append(names[place])
        rows += number
    return stays


def merged(agreed: Contract, reports: Sequence[Mapping[str, Setting]]) -> dict[str, Any]:
    """What nodes told, summed: ``bins.json`` of a release, without signals of which nobody told."""
    heard = [told(report) for report in reports]
    sums = {each.signal: each for each in together(heard)}
    nodes = Counter(each.signal for one in heard for each in one)
    bins = {
        signal.name: {
            "min": signal.min,
            "max": signal.max,
            "counts": list(sums[signal.name].counts),
            OUTSIDE: sums[signal.name].outside,
            "nodes": nodes[signal.name],
        }
        for signal in binned(agreed)
        if signal.name in sums
    }
    stayed = [report.get("withheld", 0) for report in reports]
    withheld = sum(number for number in stayed if isinstance(number, int) and 0 <= number <= LARGEST)
    return {"version": agreed.version, "bins": bins, "withheld": withheld}


def reference(said: Mapping[str, Any]) -> tuple[Counted, ...]:
    """The counts in a release's ``bins.json``, see `merged`. Raises `ValueError` for anything else."""
    spread = msgspec.convert(said, _Reference).bins
    if not all(len(each.counts) == INNER for each in spread.values()):
        raise ValueError(f"a signal has not {INNER} bins")
    return tuple(Counted(name, each.counts, each.outside) for name, each in spread.items())


class _Spread(msgspec.Struct):
    counts: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    outside: Annotated[int, msgspec.Meta(ge=0)]


class _Reference(msgspec.Struct):
    bins: dict[str, _Spread]


def _of(signal: str, cells: Sequence[int]) -> Counted:
    return Counted(signal, tuple(cells[:INNER]), cells[INNER])
