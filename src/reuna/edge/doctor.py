"""Examining sources: the way to each, what it gives in some seconds, and room for the store."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from contextlib import aclosing, suppress
from pathlib import Path

from reuna.adapters.reaching import reach
from reuna.core.errors import ReunaError
from reuna.core.findings import WRONG, Finding, Heard, Listened, hear, judged, room
from reuna.core.ports import Clock, Offload
from reuna.core.source_settings import MIB, AnySource, StoreSettings, peer_of, period_of
from reuna.edge.read import opened


async def examine(
    sources: Sequence[AnySource],
    store: StoreSettings | None,
    clock: Clock,
    offload: Offload,
    seconds: float,
    period_s: float | None = None,
) -> list[Finding]:
    """What is found, source by source; each is listened to for that long, all side by side.

    ``period_s``: how often each tag should give a reading, where its source does not declare it.
    """
    work = [
        _examined(settings, clock, offload, seconds, period_of(settings) or period_s) for settings in sources
    ]
    found = [each for some in await asyncio.gather(*work) for each in some]
    return [*found, *([_room(store)] if store else [])]


async def _examined(
    settings: AnySource, clock: Clock, offload: Offload, seconds: float, period_s: float | None
) -> list[Finding]:
    peer = peer_of(settings)
    found = await reach(settings.name, peer, clock) if peer else []
    if any(each.level == WRONG for each in found):
        return found  # whatever else is wrong follows from it
    listened = Listened({})
    try:
        listened = await _listened(settings, clock, offload, seconds)
    except ReunaError as error:
        return [*found, Finding(settings.name, "source", WRONG, error.message, error.next_step)]
    return [*found, *judged(settings.name, listened, period_s)]


async def _listened(settings: AnySource, clock: Clock, offload: Offload, seconds: float) -> Listened:
    source = opened(settings, clock, offload)
    listened = Listened({tag.name: Heard() for tag in source.tags})
    began = None
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds), aclosing(source.batches()) as batches:
            async for batch in batches:
                hear(listened, batch)
                if began is None and batch.readings:
                    began = clock.now()
    listened.seconds = clock.now() - began if began is not None else 0.0
    return listened


def _room(store: StoreSettings) -> Finding:
    folder = Path(store.folder)
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not os.access(there, os.W_OK):
        step = "Give the agent's user the right to write there, or correct store.folder."
        return Finding("", "store", WRONG, f"{there} may not be written", step)
    used = sum(path.stat().st_size for path in folder.iterdir()) if folder.is_dir() else 0
    return room(store.folder, shutil.disk_usage(there).free, used, store.mib * MIB)
