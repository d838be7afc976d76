"""The reader: what reads an edge's machines: ``python -m reuna.edge.reader FD STARTER JOB``.

It has the machine's network, to reach what it reads, and no key of the fleet; it runs no project's code.
What comes is kept in the local store, where the agent finds it. It is kept running by
`reuna.exchange.starter`, and ends with its agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import sys
from pathlib import Path

import msgspec

from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.adapters.local_store import LocalStore
from reuna.adapters.logs import say_what_happens
from reuna.adapters.processes import become, end_with_parent, no_core_files
from reuna.adapters.toml_file import read_toml
from reuna.core.errors import ReunaError
from reuna.core.settings import locating, parse
from reuna.core.source_settings import SOURCES, AnySource, StoreSettings, sources_of, store_of
from reuna.edge.read import Recorder, Seen, begun, opened
from reuna.edge.reading import Job, gone
from reuna.exchange.small import keep_small

log = logging.getLogger("reuna.reader")
AGAIN_S = (1.0, 60.0)  #: until a source that ended is begun again: first, longest
STORE = "store"  #: in a node's state folder, where the sources' own file names no other


def declared(job: Job) -> tuple[tuple[AnySource, ...], StoreSettings]:
    """The sources and the store of a node. Raises `SettingsError`."""
    file = read_toml(Path(job.sources))
    values = parse(SOURCES, [file])
    with locating(file.places):
        found, kept = sources_of(values), store_of(values)
    own = StoreSettings(str(Path(job.folder) / STORE), values["store.days"], values["store.mib"])
    return found, kept or own


async def serve(job: Job, sock: socket.socket) -> None:
    """Read until the agent at the other end of ``sock`` is gone. Raises `SettingsError`, `StorageError`."""
    found, kept = declared(job)
    store = LocalStore(kept)
    sock.setblocking(False)
    log.info("reads %s into %s", ", ".join(each.name for each in found), kept.folder)
    seen: dict[str, Seen] = {}
    work = [asyncio.create_task(_read(each, store, seen)) for each in found]
    work.append(asyncio.create_task(keep_small(SystemClock(), math.inf)))  # it reads all the time
    if job.tells:
        from reuna.edge.figures import tell_agent  # others do not need it in memory

        work.append(asyncio.create_task(tell_agent(sock, seen, store.stored, SystemClock())))
    agent = asyncio.create_task(gone(sock))
    left: set[asyncio.Task[None]] = {agent, *work}
    try:
        while agent in left:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in (agent, *work):
            task.cancel()
        await asyncio.gather(agent, *work, return_exceptions=True)
        store.close()


async def _read(settings: AnySource, store: LocalStore, told: dict[str, Seen]) -> None:
    """Keep what one source gives until it has no more; after an error it is begun again.

    ``told``: where others see what came of it.
    """
    clock, offload = SystemClock(), ThreadOffload()
    recorder, (wait, longest) = Recorder(store, clock), AGAIN_S
    while True:
        newest = await offload(lambda: store.stored.newest_ns(settings.name))
        seen = begun([opened(settings, clock, offload, newest)])
        told.update(seen)
        await recorder.record(seen)
        one = seen[settings.name]
        if one.error is None:
            log.info("source %s has no more", settings.name)
            return
        wait = AGAIN_S[0] if any(each.readings for each in one.live.values()) else wait
        log.error("source %s: %s %s; again in %g s", settings.name, one.error.code, one.error, wait)
        await clock.sleep(wait)
        wait = min(2 * wait, longest)


async def _until_told(job: Job, sock: socket.socket) -> None:
    """Serve; SIGTERM ends it once what came is kept."""
    task = asyncio.ensure_future(serve(job, sock))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def begin(sock: socket.socket, starter: int, words: str) -> int:
    """Read for the agent at the other end of ``sock``; ``words`` are a `Job` as JSON. Its status."""
    end_with_parent()
    if os.getppid() != starter:  # what started us ended before it could take us with it
        return 0
    become("reader")
    no_core_files()
    job = msgspec.json.decode(words, type=Job)
    say_what_happens(job.node)
    try:
        with sock:
            asyncio.run(_until_told(job, sock))
    except ReunaError as error:
        log.error("%s %s %s", error.code, error.message, error.next_step)
        return error.exit_status
    return 0


def main() -> int:
    """Entry of a fresh process."""
    return begin(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), sys.argv[3])


if __name__ == "__main__":
    sys.exit(main())
