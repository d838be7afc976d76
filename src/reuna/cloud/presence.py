"""Who is there: fogs that were heard of, and the edges that each of them last told of.

What fogs told is kept for after a restart, each fog's at most every `KEEP_S`: a thousand edges that come one
by one are not written down a thousand times.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial

from reuna.adapters.clock import ThreadOffload
from reuna.adapters.events import EventLog
from reuna.core.ports import Clock
from reuna.core.records import Event
from reuna.exchange.room import STORE, when_there_is_room
from reuna.exchange.roster import Heard, Known

log = logging.getLogger("reuna.cloud")
EDGES = "edges"  #: the edges that a fog last told of
KEEP_S = 10.0

#: Of names that a fog tells of, those that it may speak of.
Own = Callable[[str, Iterable[str]], list[str]]


class Presence:
    """``below``: fog -> what it told of its edges, also before a restart."""

    def __init__(self, events: EventLog, clock: Clock) -> None:
        self.below = {event.node: Known(event.fields) for _, event in events.last(EDGES)}
        self._events = events
        self._clock = clock
        self._at: dict[str, float] = {}  #: fogs, and edges that are gone -> when they were heard of last
        self._above: dict[str, str] | None = None
        self._fogs = 0  #: how many there were when it was looked for
        self._kept: dict[str, tuple[frozenset[str], float]] = {
            fog: (known.names, 0.0) for fog, known in self.below.items()
        }

    @property
    def above(self) -> Mapping[str, str]:
        """Fog -> the fog over it, as fogs told; looked for anew when somebody came or went."""
        if self._above is None or self._fogs != len(self.below):
            self._fogs, fogs = len(self.below), set(self.below)
            self._above = {
                child: fog
                for fog, known in self.below.items()
                for child in fogs & known.names
                if child != fog
            }
        return self._above

    def told(self) -> dict[str, tuple[str, ...]]:
        """Fog -> the edges and fogs right below it that it last told of."""
        return {fog: tuple(known.names) for fog, known in self.below.items()}

    def told_of(self, fog: str, names: Collection[str]) -> Awaitable[None]:
        """All who are right below a fog, as the one over it tells; to be awaited as `heard`."""
        before = self.below.get(fog, Known()).names
        if before != frozenset(names) or fog not in self.below:
            self.below[fog] = Known(names)
        after = self.below[fog].names
        return self.heard(fog, Heard(after - before, before - after))

    def heard(self, fog: str, heard: Heard) -> Awaitable[None]:
        """A fog has said something, and who came and went by it; to be awaited when it is to be kept."""
        now = self._at[fog] = self._clock.now()
        if heard.joined or heard.gone:
            self._above = None
        for edge in heard.joined:
            self._at.pop(edge, None)
        self._at.update(dict.fromkeys(heard.gone, now))
        return self._keep(fog, now)

    def nodes(self, own: Own) -> dict[str, float]:
        """Nodes heard of and when, seconds since the epoch."""
        there = {fog: at for fog, at in self._at.items() if fog in self.below}
        edges = {edge: at for fog, at in there.items() for edge in own(fog, self.below[fog].names)}
        return {**self._at, **edges, **there}

    async def _keep(self, fog: str, now: float) -> None:
        names = self.below[fog].names
        before, at = self._kept.get(fog, (None, 0.0))
        if names == before or 0 <= now - at < KEEP_S:
            return
        self._kept[fog] = names, now
        keep = partial(ThreadOffload(), lambda: self._events.keep_last(edges_event(fog, names, now)))
        await when_there_is_room(keep, self._clock, log, waits=STORE)


def edges_event(fog: str, edges: Collection[str], now: float) -> Event:
    """The edges that a fog tells of, to be known after a restart before it tells again."""
    return Event(fog, "", 0, now, EDGES, fields=dict.fromkeys(sorted(edges), True))
