"""What an edge's processes tell of themselves at its `/metrics`; numbers that are there already.

Told every `reuna.exchange.board.EVERY_S`, and nothing here runs where metrics are off.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from reuna.core.errors import BadMessage, NotUsable, StorageError
from reuna.core.figures import Answered, Figure, Worked
from reuna.core.foreign import UNREADABLE
from reuna.core.ports import Clock
from reuna.core.sources import NS
from reuna.exchange.board import EVERY_S

if TYPE_CHECKING:
    from reuna.adapters.local_store import StoredReadings
    from reuna.core.grid import Rows
    from reuna.core.operating import Operating
    from reuna.core.outcomes import Outcome
    from reuna.edge.answering import Answering
    from reuna.edge.live import Watch
    from reuna.edge.read import Seen
    from reuna.exchange.predict import Held

log = logging.getLogger("reuna.metrics")
_figures = msgspec.json.Decoder(list[Figure])


class EdgeFigures:
    """What an agent knows. ``sinks``: their names; ``folder``: its state, ``answers``: their store."""

    def __init__(self, sinks: Sequence[str], folder: Path, answers: Path, worked: Worked) -> None:
        self.answered = Answered()
        self._worked = worked
        self._report: Callable[[], Sequence[Operating]] = list
        self._waiting: Callable[[], Mapping[str, int]] = dict
        self._sinks = sinks
        self._folder = folder
        self._answers = answers

    def also(self, watch: Watch) -> Watch:
        """What counts answers, and has them watched as before."""

        async def seen(held: Held, rows: Rows | None, outcomes: Sequence[Outcome]) -> None:
            self.answered.count(outcomes)
            await watch(held, rows, outcomes)

        return seen

    def runs(self, report: Callable[[], Sequence[Operating]], answering: Answering | None) -> None:
        """Which releases run now, and what answers with them."""
        self._report = report
        self._waiting = answering.waiting if answering is not None else dict

    async def collect(self) -> list[Figure]:
        """All of them now. Raises `StorageError`."""
        sinks = await asyncio.to_thread(self._of_sinks) if self._sinks else []
        waiting = [Figure("reuna_live_waiting", count, (name,)) for name, count in self._waiting().items()]
        running = [
            Figure("reuna_release_info", 1, (each.project, str(each.version), each.phase))
            for each in self._report()
        ]
        return [*self.answered.figures(), *self._worked.figures(), *waiting, *running, *sinks]

    def _of_sinks(self) -> list[Figure]:
        from reuna.edge.sinks import progress_file

        newest = self._newest()
        found: list[Figure] = []
        for name in self._sinks:
            progress = progress_file(self._folder, name).read()
            if progress is None:
                continue
            counts = {"sent": progress.sent, "refused": progress.refused, "dropped": progress.dropped}
            found += [
                Figure("reuna_sink_answers_total", count, (name, what)) for what, count in counts.items()
            ]
            found.append(Figure("reuna_sink_waiting", max(0, newest - progress.number), (name,)))
        return found

    def _newest(self) -> int:
        """Number of the newest answer, 0 before the first."""
        from reuna.adapters.answer_store import StoredAnswers

        try:
            store = StoredAnswers(self._answers)
        except NotUsable:
            return 0
        try:
            return next((each.number for each in store.newest(1)), 0)
        finally:
            store.close()


def of_sources(seen: Iterable[tuple[str, Seen]]) -> list[Figure]:
    """What came of each source since it was begun."""
    found: list[Figure] = []
    for name, each in seen:
        tags = each.live.values()
        received_ns = max((tag.received_ns for tag in tags), default=0)
        numbers = {
            "reuna_source_up": float(each.error is None and not each.ended),
            "reuna_source_readings_total": sum(tag.readings for tag in tags),
            "reuna_source_uncertain_total": sum(tag.uncertain for tag in tags),
            "reuna_source_bad_total": sum(tag.bad for tag in tags),
            "reuna_source_gaps_total": each.gap_count,
            **({"reuna_source_received_timestamp_seconds": received_ns / NS} if received_ns else {}),
        }
        found += [Figure(series, value, (name,)) for series, value in numbers.items()]
    return found


def of_store(stored: StoredReadings) -> list[Figure]:
    """How large and how old the local store is. Raises `Corrupted`."""
    size, oldest_ns, counts = stored.extent()
    found = [Figure("reuna_store_bytes", size)]
    if oldest_ns is not None:
        found.append(Figure("reuna_store_oldest_timestamp_seconds", oldest_ns / NS))
    return [*found, *(Figure("reuna_store_readings_total", count, (what,)) for what, count in counts.items())]


async def tell_agent(
    sock: socket.socket, seen: Mapping[str, Seen], stored: StoredReadings, clock: Clock
) -> None:
    """The reader's side: a line of JSON to the agent, now and then, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        await clock.sleep(EVERY_S)
        try:
            figures = [*of_sources(seen.items()), *await asyncio.to_thread(of_store, stored)]
        except StorageError as error:
            log.warning("what the store holds is not told: %s", error)
            figures = of_sources(seen.items())
        with suppress(OSError):  # the agent is gone, and this process ends too
            await loop.sock_sendall(sock, msgspec.json.encode(figures) + b"\n")


def told_by(line: bytes) -> list[Figure]:
    """The agent's side: what a reader said. Raises `BadMessage` for what cannot be read."""
    try:
        return _figures.decode(line)
    except UNREADABLE as error:
        raise BadMessage(f"what the reader tells of itself cannot be read: {error}") from error
