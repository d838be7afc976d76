"""Reading machines: which adapter reads a source, what came of each tag, and keeping it in the local store.

Sources are read side by side. One that fails does not stop the others; its error is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from reuna.adapters.file_source import FileSource
from reuna.adapters.local_store import LocalStore
from reuna.adapters.modbus_source import ModbusSource
from reuna.adapters.mqtt.source import MqttSource
from reuna.adapters.mqtt.sparkplug import sparkplug_source
from reuna.adapters.opcua.source import OpcUaSource
from reuna.adapters.replay_source import ReplaySource
from reuna.core.errors import DiskFull, ReunaError, StorageError
from reuna.core.modbus_settings import ModbusSettings
from reuna.core.mqtt_readings import MessageReader
from reuna.core.mqtt_settings import MqttSettings, SparkplugSettings
from reuna.core.opcua_settings import OpcUaSettings
from reuna.core.ports import Clock, Offload
from reuna.core.source_settings import AnySource
from reuna.core.sources import BAD, UNCERTAIN, Batch, Gap, Source, Tag, joined, ns_of

EVERY_S = 1.0  #: how often what came is kept: a crash loses at most so much
MOST_WAITING = 500_000  #: readings of a source that wait to be kept; then it is not read on
GAPS_SHOWN = 20

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Live:
    """What came of one tag: how many readings, how many of them uncertain and bad, and the last."""

    tag: Tag
    readings: int = 0
    uncertain: int = 0
    bad: int = 0
    time_ns: int = 0
    value: float = float("nan")
    quality: int = BAD
    received_ns: int = 0


@dataclass
class Seen:
    """What came of one source, None where it is read from the store; ``error`` ended it.

    ``gaps``: the newest of ``gap_count``.
    """

    source: Source | None
    live: dict[str, Live]
    gaps: list[Gap] = field(default_factory=list)
    error: ReunaError | None = None
    ended: bool = False
    gap_count: int = 0


def opened(settings: AnySource, clock: Clock, offload: Offload, after_ns: int | None = None) -> Source:
    """The source that settings say. Up to ``after_ns`` it was read before; a replay begins anew."""
    if isinstance(settings, ModbusSettings):
        return ModbusSource(settings, clock)
    if isinstance(settings, MqttSettings):
        return MqttSource(settings.name, _tags(settings), settings.broker, MessageReader(settings), clock)
    if isinstance(settings, SparkplugSettings):
        return sparkplug_source(settings, clock)
    if isinstance(settings, OpcUaSettings):
        return OpcUaSource(settings, clock, offload, after_ns)
    if settings.kind == "replay":
        return ReplaySource(settings, clock, offload)
    return FileSource(settings, clock, offload, after_ns)


def _tags(settings: AnySource) -> tuple[Tag, ...]:
    return tuple(Tag(tag.name, tag.unit) for tag in settings.tags)


def begun(sources: Sequence[Source]) -> dict[str, Seen]:
    """Nothing seen yet."""
    return {source.name: Seen(source, {tag.name: Live(tag) for tag in source.tags}) for source in sources}


def note(seen: Seen, batch: Batch) -> None:
    """Take a batch into what was seen."""
    for name, found in batch.columns.items():
        if len(found):
            before = seen.live[name]
            seen.live[name] = replace(
                before,
                readings=before.readings + len(found),
                uncertain=before.uncertain + int((found.quality == UNCERTAIN).sum()),
                bad=before.bad + int((found.quality == BAD).sum()),
                time_ns=int(found.times[-1]),
                value=float(found.values[-1]),
                quality=int(found.quality[-1]),
                received_ns=batch.received_ns,
            )
    seen.gap_count += len(set(batch.gaps) - set(seen.gaps))
    seen.gaps = list(dict.fromkeys([*seen.gaps, *batch.gaps]))[-GAPS_SHOWN:]


async def listen(seen: dict[str, Seen], clock: Clock, seconds: float) -> None:
    """Note what the sources give for that long, or until all have ended."""

    async def one(each: Seen, source: Source) -> None:
        async with aclosing(source.batches()) as batches:
            async for batch in batches:
                note(each, batch)

    work = {name: one(each, each.source) for name, each in seen.items() if each.source}
    await _side_by_side(work, seen, clock, seconds)


class Recorder:
    """Keeps what the sources give in the store, once in `EVERY_S`.

    While the disk is full what came waits, up to `MOST_WAITING` readings of each source; then the source is
    not read on.
    """

    def __init__(self, store: LocalStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._full = False

    async def record(self, seen: dict[str, Seen], seconds: float | None = None) -> None:
        """For that long, or until all have ended. What came is kept before it returns, also when cancelled.

        Raises `NotUsable`, `Corrupted`; `DiskFull` when what came last could not be kept.
        """
        work = {name: self._one(each, each.source) for name, each in seen.items() if each.source}
        await _side_by_side(work, seen, self._clock, seconds)

    async def _one(self, each: Seen, source: Source) -> None:
        waiting: list[Batch] = []
        room = asyncio.Event()
        room.set()
        keeper = asyncio.create_task(self._keep_on(source, waiting, room))
        try:
            async with aclosing(source.batches()) as batches:
                async for batch in batches:
                    note(each, batch)
                    waiting.append(batch)
                    if sum(one.readings for one in waiting) >= MOST_WAITING:
                        room.clear()
                        await self._room_or_failure(room, keeper)
                    if keeper.done():
                        keeper.result()
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            self._keep(source, waiting)

    async def _room_or_failure(self, room: asyncio.Event, keeper: asyncio.Task[None]) -> None:
        waiter = asyncio.create_task(room.wait())
        try:
            await asyncio.wait({waiter, keeper}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()

    async def _keep_on(self, source: Source, waiting: list[Batch], room: asyncio.Event) -> None:
        while True:
            await self._clock.sleep(EVERY_S)
            try:
                self._keep(source, waiting)
            except DiskFull as error:
                if not self._full:
                    log.warning("store full: %s", error)
                self._full = True
            else:
                self._full = False
                room.set()

    def _keep(self, source: Source, waiting: list[Batch]) -> None:
        """One append for what is live and one for what is historical; what was kept waits no more.

        In place: an append takes some milliseconds, and must be whole when this task is cancelled.
        """
        now_ns = ns_of(self._clock.now())
        for historical in (False, True):
            some = [batch for batch in waiting if batch.historical is historical]
            if some:
                self._store.append(source.name, source.tags, joined(some), now_ns)
                waiting[:] = [batch for batch in waiting if batch.historical is not historical]


async def _side_by_side(
    work: dict[str, Coroutine[Any, Any, None]], seen: dict[str, Seen], clock: Clock, seconds: float | None
) -> None:
    """All of it at once, for some seconds or until all have ended. A disk's error ends everything."""
    tasks = [asyncio.create_task(_told(name, each, seen[name])) for name, each in work.items()]
    limit = asyncio.create_task(clock.sleep(seconds)) if seconds is not None else None
    try:
        left: set[asyncio.Task[None]] = set(tasks)
        while left and not (limit and limit.done()):
            done, _ = await asyncio.wait(
                {*left, *([limit] if limit else [])}, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
            left -= done
    finally:
        for task in [*tasks, *([limit] if limit else [])]:
            task.cancel()
        ends = await asyncio.gather(*tasks, *([limit] if limit else []), return_exceptions=True)
    for end in ends:
        if isinstance(end, ReunaError):
            raise end


async def _told(name: str, work: Coroutine[Any, Any, None], seen: Seen) -> None:
    try:
        await work
    except StorageError:
        raise
    except ReunaError as error:
        log.warning("source %s: %s", name, error)
        seen.error = error
    seen.ended = True
