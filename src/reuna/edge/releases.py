"""Every project that runs on this node: what the egress says of it goes in, what it says of itself goes out.

STATE/choices.state     what the fleet wants and what is here, from the egress
STATE/operates.json     what runs now, for whoever stands at the machine
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.clock import ThreadOffload
from reuna.adapters.files import replace_file, storage_error
from reuna.adapters.sandbox import SandboxLimits, sentence
from reuna.adapters.worker import Desk, Worker
from reuna.core import operating
from reuna.core.errors import LearnerError, SandboxTooWeak, StorageError
from reuna.core.inference import inference
from reuna.core.operating import Operating
from reuna.core.ports import Clock
from reuna.core.records import Event
from reuna.edge.operate import Bench, MakeAsking, Operation, StartRelease
from reuna.edge.slots import Slots, projects, read
from reuna.exchange.choices import FOLDER, ProjectChoice, choices_file
from reuna.loop.operate import Chosen
from reuna.wire import release as wire

log = logging.getLogger("reuna.operate")
STATUS = "operates.json"
LOOK_S = 0.25  #: between two looks whether the egress has written
COUNTS_S = 60.0  #: counts alone go up so often at most
AGAIN_S = 60.0  #: until what the site's policy kept here is offered again
CALM_S = 3600.0  #: and so often where nothing is on trial or runs beside

#: Passes an event on; False when the site's policy keeps it here.
Emit = Callable[[Event], Awaitable[bool]]
#: How releases are started here, and how they are asked.
Means = tuple[StartRelease, MakeAsking]


class GraphAlone:
    """A release that answers nothing here: its graph tests itself in a sandbox, and that is all.

    One that runs at fogs alone does not even that: it may be too large for this machine.
    """

    restarts = 0
    takes_windows = False

    @classmethod
    async def start(cls, release: Path, folder: Path, limits: SandboxLimits, min_level: int) -> GraphAlone:
        """Have the graph test itself. Raises `Untrusted`, `SandboxTooWeak`, `WorkerFailed`, `DiskFull`."""
        found = await asyncio.to_thread(read, release)
        if inference(wire.settings(found)).place == "fog":
            return cls("")
        desk = Desk(folder / "project", folder / "node", folder / "lent", folder / "made")
        graph = desk.lent / wire.MODEL
        try:
            for each in (desk.project, desk.data, desk.lent):
                each.mkdir(parents=True, exist_ok=True)
            graph.write_bytes(found.parts[wire.MODEL])
        except OSError as error:
            raise storage_error(error, folder) from error
        worker = await Worker.start(desk, folder / "worker.log", limits)
        try:
            if worker.level.number < min_level:
                raise SandboxTooWeak(
                    f"the sandbox reaches level {worker.level.number}, {min_level} is asked for; "
                    f"missing: {sentence(worker.level, min_level)}"
                )
            return cls(await _tested(worker, graph))
        finally:
            await worker.close()

    def __init__(self, why: str) -> None:
        self._why = why

    async def golden(self) -> str:
        """See `Standing.golden`."""
        return self._why

    async def close(self) -> None:
        """Nothing runs."""


async def _tested(worker: Worker, graph: Path) -> str:
    try:
        await worker.self_test(graph)
    except LearnerError as error:
        return error.message
    return ""


def bench_without_machine(limits: SandboxLimits, min_level: int) -> Means:
    """On a node that reads no machine: graphs test themselves, and are asked nothing."""

    async def start(_project: str, release: Path, folder: Path) -> GraphAlone:
        return await GraphAlone.start(release, folder, limits, min_level)

    return start, lambda _project, _on_outcome: None


class Releases:
    """All operations of a node, and what goes up about them."""

    def __init__(self, node: str, boot: str, state: Path, means: Means, emit: Emit, clock: Clock) -> None:
        self._node = node
        self._boot = boot
        self._state = state
        self._emit = emit
        self._clock = clock
        self._to_tell, self._to_show = asyncio.Event(), asyncio.Event()
        self._bench = Bench(*means, self._source, self._on_change, clock, time.monotonic, ThreadOffload())
        self._choices = choices_file(state)
        self._written: tuple[int, int] = (0, 0)  #: of the choices that were read
        self._told: dict[str, ProjectChoice] = {}
        self._operations: dict[str, tuple[Operation, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Run what was kept and what comes. Until cancelled."""
        own = [asyncio.create_task(self._tell()), asyncio.create_task(self._show())]
        try:
            for project in await asyncio.to_thread(projects, self._state):
                self._begin(project)
            while True:
                await self._look()
                await self._clock.sleep(LOOK_S)
        finally:
            tasks = [*own, *(task for _, task in self._operations.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def report(self) -> list[Operating]:
        """What is said of every project."""
        return [operation.report() for operation, _ in self._operations.values()]

    def _source(self, project: str, digest: str) -> Path | None:
        """Where a release that is held lies."""
        told = self._told.get(project)
        blob = told.blobs.get(digest) if told else None
        return None if blob is None else self._state / FOLDER / blob

    async def _look(self) -> None:
        """Take in what the egress has written since the last look."""
        try:
            status = self._choices.path.stat()
        except OSError:
            return
        written = (status.st_mtime_ns, status.st_ino)
        if written == self._written:
            return
        found = await asyncio.to_thread(self._choices.read)
        self._written = written
        for each in found or []:
            self._told[each.project] = each
            if each.project not in self._operations and each.choice.held:
                self._begin(each.project)
            if each.project in self._operations:
                self._operations[each.project][0].happen(Chosen(each.choice))

    def _begin(self, project: str) -> None:
        operation = Operation(Slots(self._state, project, self._node), self._bench)
        task = asyncio.create_task(operation.run())
        task.add_done_callback(_said)
        self._operations[project] = (operation, task)

    # --- saying ----------------------------------------------------------------------------------

    def _on_change(self) -> None:
        self._to_tell.set()
        self._to_show.set()

    async def _tell(self) -> None:
        """Up, at once when something else runs, and now and then for counts alone. Until cancelled."""
        told: list[Operating] = []
        number, last = 0, -COUNTS_S
        while True:
            await self._to_tell.wait()
            self._to_tell.clear()
            now, ticks = self.report(), self._bench.monotonic()
            news = _without_counts(now) != _without_counts(told)
            if not news and (now == told or ticks - last < counts_apart_s(now)):
                continue
            event = operating.event_of(self._node, self._boot, number, self._clock.now(), now)
            if await self._emit(event):
                told, number, last = now, number + 1, ticks
            else:  # the policy keeps it here; perhaps another one comes
                await self._clock.sleep(AGAIN_S)
                self._to_tell.set()

    async def _show(self) -> None:
        """For people at the machine, with the details that do not leave it. Until cancelled."""
        before = b""
        while True:
            await self._to_show.wait()
            self._to_show.clear()
            shown = [operation.shown() for operation, _ in self._operations.values()]
            text = msgspec.json.encode({"pid": os.getpid(), "boot": self._boot, "projects": shown})
            if text == before:
                continue
            before = text
            try:
                await asyncio.to_thread(replace_file, self._state / STATUS, text, 0o644)
            except StorageError as error:
                log.warning("%s is not written: %s", STATUS, error)


def _without_counts(told: list[Operating]) -> list[Operating]:
    return [msgspec.structs.replace(each, windows=0, safe=0, compared=0, agreed=0) for each in told]


def counts_apart_s(told: list[Operating]) -> float:
    """How far apart counts alone are said."""
    return COUNTS_S if any(each.phase in ("trial", "shadow") for each in told) else CALM_S


def _said(task: asyncio.Task[Any]) -> None:
    """An operation that ended by a fault of ours is in the log, whole."""
    if not task.cancelled() and task.exception() is not None:
        log.error("a project runs no more", exc_info=task.exception())
