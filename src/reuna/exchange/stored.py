"""The streams of a parent's nats-server go on after its disk was full.

Seen with nats-server 2.15.1: after one write that failed a stream refuses each message, however much
room there is later, and says so in the server's log. Started again it takes them, and what it had
acknowledged is there.
"""

from __future__ import annotations

import logging
from typing import Protocol

from reuna.core.errors import DiskFull
from reuna.core.ports import Clock

LOOK_S = 1.0  #: between two looks at what the server said
ENOUGH = 1 << 20  #: free bytes with which it is started again
FULL = ("no space left on device", "disk quota exceeded")


class Server(Protocol):
    """What is asked of a `NatsServer`."""

    @property
    def name(self) -> str: ...

    def log_size(self) -> int: ...

    def log_since(self, offset: int) -> str: ...

    def free_bytes(self) -> int: ...

    async def restart(self) -> None: ...


async def keep_stored(server: Server, clock: Clock, log: logging.Logger) -> None:
    """Watch until cancelled; start the server again when it met a full disk and there is room."""
    seen = server.log_size()
    while True:
        await clock.sleep(LOOK_S)
        said, seen = server.log_since(seen), server.log_size()
        if not any(mark in said for mark in FULL):
            continue
        message = "%s no space left for the streams of %s; waiting. %s"
        log.error(message, DiskFull.code, server.name, DiskFull.default_next_step)
        while server.free_bytes() < ENOUGH:
            await clock.sleep(LOOK_S)
        log.info("there is room again: nats-server of %s is started again", server.name)
        await server.restart()
        seen = server.log_size()
