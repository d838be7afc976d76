"""How many labelled rows a node has that were not there when it trained in a run: a number, as an event.

A site that gives out counts of some rows at least (``min_cell``) gives out no smaller one, and says that it
keeps it.

>>> read_labelled(as_event("e1", "b", 0, 5.0, Labelled("r-1", 120))).rows
120
>>> without_small({"rows": 3}, 20)
{'withheld': 1}
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from reuna.core.errors import BadMessage
from reuna.core.records import Event, Setting

WHAT = "labelled"  #: of the event; its run is the one since which rows are counted
FIELDS = frozenset({"rows", "withheld"})
MOST = 2**53  #: rows that are believed


class Labelled(msgspec.Struct, frozen=True):
    """New labelled rows since a run. ``withheld``: 1 where the site keeps the number."""

    run: str
    rows: int = 0
    withheld: int = 0


def as_event(node: str, boot: str, number: int, now: float, said: Labelled) -> Event:
    """What a node tells; of one run the newest counts."""
    fields: dict[str, Setting] = {"rows": said.rows}
    return Event(node, f"{boot}/{WHAT}", number, now, WHAT, run=said.run, fields=fields)


def read_labelled(event: Event) -> Labelled:
    """What an event says. Raises `BadMessage`."""
    rows, withheld = event.fields.get("rows", 0), event.fields.get("withheld", 0)
    if type(rows) is int and type(withheld) is int and 0 <= rows <= MOST and event.run:
        return Labelled(event.run, rows, withheld)
    raise BadMessage(f"what {event.node} tells of labelled rows cannot be read")


def is_labelled(event: Event) -> bool:
    """Whether an event says of the data nothing but what `as_event` does."""
    counts = all(type(value) is int and value >= 0 for value in event.fields.values())
    return event.what == WHAT and counts and event.fields.keys() <= FIELDS


def without_small(fields: Mapping[str, Setting], least: int) -> dict[str, Setting]:
    """Without a count of fewer rows than ``least``; none is told."""
    rows = fields.get("rows", 0)
    return {"withheld": 1} if isinstance(rows, int) and 0 < rows < least else dict(fields)
