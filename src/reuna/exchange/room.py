"""A full disk, or a server that is away, is waited for: said once, tried again, and the work goes on.

    body = await when_there_is_room(lambda: offload(write), clock, log)

Work that is carried out again must be idempotent; every round's is.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

from reuna.core.errors import DiskFull, ReunaError, Unreachable
from reuna.core.ports import Clock

T = TypeVar("T")
Told = Callable[[float], Awaitable[None]]  #: afterwards, with the seconds it lasted
FIRST_S = 0.1
ROOM: tuple[type[ReunaError], ...] = (DiskFull,)
SERVER_AWAY = (Unreachable,)
STORE = (DiskFull, Unreachable)  #: for work that asks nobody but a store, which may be a server
LAST_S = 2.0


class Durable(Protocol):
    """What keeps things on the disk and can say how."""

    def durability(self) -> str:
        """Settings read back from what is open, ``name=value`` each."""


def tell_durability(log: logging.Logger, stores: Mapping[str, Durable]) -> None:
    """Write down, when a place ends, how it wrote: `benchmarks.round` believes nothing else."""
    for name, store in stores.items():
        log.info("store=%s %s", name, store.durability())


async def when_there_is_room(
    work: Callable[[], Awaitable[T]],
    clock: Clock,
    log: logging.Logger,
    told: Told | None = None,
    waits: tuple[type[ReunaError], ...] = ROOM,
) -> T:
    """Carry out ``work`` until none of ``waits`` is raised. Raises whatever else it raises."""
    began: float | None = None
    over = ""
    wait = FIRST_S
    while True:
        try:
            done = await work()
        except waits as full:
            if began is None:
                began = clock.now()
                log.error("%s %s; waiting. %s", full.code, full, full.next_step)
            is_disk = isinstance(full, DiskFull)
            over = "there is room on the disk again" if is_disk else "the server answers again"
            await clock.sleep(wait)
            wait = min(2 * wait, LAST_S)
        else:
            break
    if began is not None:
        seconds = clock.now() - began
        log.info("%s, after %.1f s", over, seconds)
        if told is not None:
            await when_there_is_room(lambda: told(seconds), clock, log)
    return done
