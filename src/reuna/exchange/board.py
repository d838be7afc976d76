"""What the egress shows at a place's ``/metrics``: its own figures, and what the place's processes told.

    reader ── agent ──socket pair── egress ── 127.0.0.1:9464 ── whoever scrapes

The egress is the process that may speak to the network; so it listens, and no other does. Figures come to
it in a closed list (`reuna.core.figures`) every `EVERY_S`, however often somebody asks: a scrape makes
nobody work but the egress. The listening socket is opened by the place before it leaves the machine's
network, so a port in use is an error at its start; it outlives an egress that ends.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence

from reuna.adapters.processes import began_s, family, parent, part_of, pss_mib
from reuna.core.errors import BadMessage, ReunaError
from reuna.core.figures import Figure, judged
from reuna.core.ports import Clock, Offload
from reuna.exchange.arrivals import Counts
from reuna.trust.ledger import Entry

log = logging.getLogger("reuna.metrics")
EVERY_S = 5.0  #: between two times that a process tells its figures
FRESH_S = 1.0  #: a page is made so often at most
PROCESSES = ("agent", "gateway", "reader")  #: that may tell
MIB = 1 << 20
Collect = Callable[[], Awaitable[Sequence[Figure]]]
Tell = Callable[[str, Sequence[Figure]], Awaitable[None]]


async def keep_telling(process: str, collect: Collect, tell: Tell, clock: Clock) -> None:
    """Tell the figures of a process, until cancelled. What goes wrong is said once; nothing waits for it."""
    said = ""
    while True:
        try:
            await tell(process, await collect())
            said = ""
        except ReunaError as error:
            if said != str(error):
                log.warning("figures of %s are not told: %s %s", process, error.code, error)
            said = str(error)
        await clock.sleep(EVERY_S)


class LeftCounts:
    """What the ledger let leave and kept back since this process began, by kind.

    Of messages that repeat it knows how many left when their minute is over.
    """

    def __init__(self) -> None:
        self.bytes: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self.kept_back: Counter[str] = Counter()
        self._allowed: dict[int, str] = {}  #: number of an allowance that goes on -> its kind

    def take(self, numbers: Iterable[int], entries: Iterable[Entry]) -> None:
        """Entries that are on the disk under these numbers."""
        for number, each in zip(numbers, entries, strict=True):
            if each.kind == "refused":
                self.kept_back[each.flow] += 1
            elif each.kind == "intent" and each.messages:
                self._allowed[number] = each.flow
            elif each.kind == "intent":
                self._leave(each.flow, each.payload_bytes, 1)
            elif each.kind == "outcome" and each.intent in self._allowed:
                self._leave(self._allowed.pop(each.intent), each.payload_bytes, each.messages)

    def _leave(self, kind: str, size_bytes: int, payloads: int) -> None:
        self.bytes[kind] += size_bytes
        self.left[kind] += payloads

    def figures(self) -> list[Figure]:
        """As counters."""
        return [
            Figure(name, count, (kind,))
            for name, counts in (
                ("reuna_left_bytes_total", self.bytes),
                ("reuna_left_total", self.left),
                ("reuna_kept_back_total", self.kept_back),
            )
            for kind, count in sorted(counts.items())
        ]


class Board:
    """The newest figures of each process of a place. ``place``: edge or fog, ``version``: of the egress."""

    def __init__(self, place: str, version: str, own: Callable[[], Sequence[Figure]], clock: Clock) -> None:
        self._place = place
        self._version = version
        self._own = own
        self._clock = clock
        self._told: dict[str, tuple[float, list[Figure]]] = {}

    def tell(self, process: str, figures: Sequence[Figure]) -> None:
        """Take the place of what a process told before. Raises `BadMessage`."""
        if process not in PROCESSES:
            raise BadMessage(f"there is no process {process!r:.40}")
        self._told[process] = self._clock.now(), judged(figures)

    def figures(self) -> list[Figure]:
        """All that is known now. Blocking, for some milliseconds."""
        told = [Figure("reuna_told_timestamp_seconds", at, (name,)) for name, (at, _) in self._told.items()]
        return [
            Figure("reuna_place_info", 1, (self._place, self._version)),
            *told,
            *self._own(),
            *(each for _, figures in self._told.values() for each in figures),
            *of_processes(place_pid()),
        ]


def place_pid() -> int:
    """The place that this egress belongs to: what started the starter that started us."""
    return parent(os.getppid())


def of_processes(place: int) -> list[Figure]:
    """Memory and age of a place and all that it started, by what they are."""
    found: dict[str, list[int]] = {}
    for pid in family(place):
        part = part_of(pid)
        found.setdefault(part if pid == place or part != "main" else "other", []).append(pid)
    found.pop("gone", None)
    return [
        figure
        for part, pids in sorted(found.items())
        for figure in (
            Figure("reuna_processes", len(pids), (part,)),
            Figure("reuna_process_memory_bytes", sum(pss_mib(pid) for pid in pids) * MIB, (part,)),
            Figure("reuna_process_start_timestamp_seconds", min(map(began_s, pids)), (part,)),
        )
    ]


def of_arrivals(counts: Counts) -> list[Figure]:
    """What came down, by kind."""
    return [
        *(Figure("reuna_came_bytes_total", size, (kind,)) for kind, (size, _) in sorted(counts.items())),
        *(Figure("reuna_came_total", times, (kind,)) for kind, (_, times) in sorted(counts.items())),
    ]


async def show(board: Board, node: str, sock: socket.socket, offload: Offload) -> None:
    """Give the board's page to whoever asks at the socket, until cancelled."""
    from reuna.adapters.exposition import serve, text  # prometheus-client, where it is asked for

    made = (-FRESH_S, b"")

    async def page() -> bytes:
        nonlocal made
        now = time.monotonic()
        if now - made[0] >= FRESH_S:
            made = now, await offload(lambda: text(node, board.figures()))
        return made[1]

    await serve(sock, page)
