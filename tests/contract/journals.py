"""The journals that keep the `Journal` port: DBOS in a file and on PostgreSQL, and the simulator's.

Lives of a cloud process are lives of a host here: `World.host` starts another one on what the last
one left.
"""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from reuna.adapters.journal_dbos import DbosHost
from reuna.adapters.postgresql import PostgresqlDatabase
from reuna.core.errors import RunFailed, RunNotFound
from reuna.sim.clock import SimClock
from reuna.sim.journal import JournalStore, SimJournal

JOURNALS = ["dbos", pytest.param("postgresql", marks=pytest.mark.servers), "sim"]


class SimHost:
    """Runs over `SimJournal`, as `DbosHost` runs them over DBOS. ``disk`` outlives it."""

    def __init__(self, disk):
        self._disk = disk
        self._bodies = {}
        self._tasks = {}

    def register(self, kind, body):
        self._bodies[kind] = body

    async def start(self):
        for run, entry in self._disk.items():
            if not entry["ended"]:
                self._go(run, entry)

    async def stop(self):
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def submit(self, kind, run, spec):
        if run not in self._disk:
            self._disk[run] = {"kind": kind, "spec": spec, "store": JournalStore(), "ended": False}
            self._go(run, self._disk[run])

    async def result(self, run):
        if run not in self._disk:
            raise RunNotFound(run)
        await asyncio.wait([self._tasks[run]])
        if self._tasks[run].cancelled():
            raise RunFailed(f"the run {run} was cancelled")
        return self._tasks[run].result()

    async def send(self, run, topic, message):
        if run not in self._disk:
            raise RunNotFound(run)
        self._disk[run]["store"].send(topic, message)

    async def cancel(self, run):
        self._disk[run]["ended"] = True
        self._tasks[run].cancel()
        await asyncio.wait([self._tasks[run]])

    async def resume(self, run):
        if run not in self._disk:
            raise RunNotFound(run)
        if self._tasks[run].done() and (self._tasks[run].cancelled() or self._tasks[run].exception()):
            self._disk[run]["ended"] = False
            self._disk[run]["store"].resume(failed=not self._tasks[run].cancelled())
            self._go(run, self._disk[run])

    def _go(self, run, entry):
        journal = SimJournal(entry["store"])
        self._tasks[run] = asyncio.ensure_future(self._run(entry, journal))

    async def _run(self, entry, journal):
        result = await self._bodies[entry["kind"]](journal, entry["spec"])
        entry["ended"] = True
        return result


class World:
    """One disk, on which one host after the other lives."""

    def __init__(self, kind, folder, server=None):
        self.now = SimClock().now if kind == "sim" else time.time
        self.wait = 4.0 if kind == "postgresql" else 1.8  # longer than a host needs to go on with its runs
        self._disk = {}
        self._make = (
            (lambda: SimHost(self._disk)) if kind == "sim" else (lambda: DbosHost(folder, server=server))
        )

    @asynccontextmanager
    async def host(self, body):
        host = self._make()
        host.register("kind", body)
        await host.start()
        try:
            yield host
        finally:
            await host.stop()


def a_world(request, tmp_path):
    """What a fixture over `JOURNALS` gives."""
    server = None
    if request.param == "postgresql":
        server = PostgresqlDatabase(request.getfixturevalue("postgresql").url(), "journal")
    yield World(request.param, tmp_path, server)
    if server is not None:
        server.close()


async def value(found):
    """A step's work that is done at once."""
    return found
