"""A pause between two looks, which ends early when there is something new."""

from __future__ import annotations

import asyncio
from typing import Any

from reuna.core.ports import Clock


async def until_changed(changed: asyncio.Event, clock: Clock, seconds: float) -> None:
    """Until it is set, or so long when that is more than 0; it is clear again on return."""
    waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(changed.wait())]
    if seconds:
        waits.append(asyncio.ensure_future(clock.sleep(seconds)))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
    changed.clear()
