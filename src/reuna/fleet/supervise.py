"""Runs the places of a fleet as processes: starts them, starts again what ended, stops all.

Each place is its own process group and ends its own children; on Linux the kernel ends a whole
place when its parent is gone, so that nothing is left behind.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from reuna.adapters.nats_server import find_server
from reuna.adapters.processes import end_with_parent, family, part_of, peak_mib, pss_mib, uss_mib
from reuna.adapters.toml_file import read_toml
from reuna.core.errors import NotUsable, ServerFailed
from reuna.fleet.layout import Fleet, PlaceFile
from reuna.fleet.place import command

log = logging.getLogger("reuna.up")
T = TypeVar("T")
FIRST_RESTART_S = 0.3
LAST_RESTART_S = 10.0
STEADY_S = 10.0  #: a place that ran this long starts its back-off anew
STOP_S = 5.0
SAMPLE_S = 0.5
ROOM = 1 << 20  #: bytes; with less on the disk, places wait


class Supervisor:
    """Keeps every place of a fleet running until `stop`."""

    def __init__(self, fleet: Fleet, on_restart: Callable[[str, int], None] | None = None) -> None:
        self.fleet = fleet
        self.pids: dict[str, int] = {}
        self.peaks: dict[str, float] = {}
        self.restarts: dict[str, int] = {}
        self._on_restart = on_restart
        self._disk_is_full = False
        self._tasks: list[asyncio.Task[None]] = []
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    async def start(self) -> None:
        """Start every place, the cloud first."""
        for place in self.fleet.places:
            self._tasks.append(asyncio.create_task(self._keep(place)))
        self._tasks.append(asyncio.create_task(self._sample()))

    async def stop(self) -> None:
        """End every place and wait until all are gone; the edges first."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for level in self.fleet.from_below():
            names = {place.name for place in level}
            running = [p for name, p in self._processes.items() if name in names and p.returncode is None]
            for process in running:
                process.terminate()
            await asyncio.gather(*(_ended(process) for process in running))

    async def _keep(self, place: PlaceFile) -> None:
        wait = FIRST_RESTART_S
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            process = await self._spawn(place)
            code = await process.wait()
            self.restarts[place.name] = self.restarts.get(place.name, 0) + 1
            why = why_ended(place) or f"status {code}"
            log.warning(
                "%s %s ended: %s; starting it again, see %s", place.kind, place.name, why, log_path(place)
            )
            if self._on_restart is not None:
                self._on_restart(place.name, code)
            wait = FIRST_RESTART_S if loop.time() - began > STEADY_S else min(2 * wait, LAST_RESTART_S)
            await asyncio.sleep(wait)

    async def _spawn(self, place: PlaceFile) -> asyncio.subprocess.Process:
        place.folder.mkdir(parents=True, exist_ok=True)
        with log_path(place).open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                *command(place.kind, place.settings),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=end_with_parent,
            )
        self.pids[place.name] = process.pid
        self._processes[place.name] = process
        return process

    async def _sample(self) -> None:
        while True:
            self.sample()
            with suppress(OSError):
                self.look_at_disk()
            await asyncio.sleep(SAMPLE_S)

    def sample(self) -> dict[str, float]:
        """Note, and return, the largest resident size of every process so far, MiB."""
        for name, pid in self.processes():
            self.peaks[name] = max(self.peaks.get(name, 0.0), peak_mib(pid))
        return self.peaks

    def look_at_disk(self) -> None:
        """Say once that the disk is full, while places wait and cannot write so down, and that it is over."""
        full = shutil.disk_usage(self.fleet.folder).free < ROOM
        if full and not self._disk_is_full:
            log.warning("no space left for %s; free some, and work goes on by itself", self.fleet.folder)
        elif self._disk_is_full and not full:
            log.warning("there is space for %s again", self.fleet.folder)
        self._disk_is_full = full

    def processes(self) -> list[tuple[str, int]]:
        """Every process now running, named ``place/part``, with its pid."""
        found = []
        for place, pid in self.pids.items():
            for member in family(pid):
                found.append((f"{place}/{part_of(member)}", member))
        return found

    def pss(self, place: str) -> float:
        """Proportional set size of all processes of a place together, MiB."""
        return sum(pss_mib(pid) for pid in family(self.pids[place]))

    def uss(self, place: str) -> float:
        """Unique set size of all processes of a place together, MiB."""
        return sum(uss_mib(pid) for pid in family(self.pids[place]))


async def undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """Carry work out to its end; who is cancelled meanwhile learns it afterwards."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        raise


async def keep_up(fleet: Fleet, begins: Callable[[], None] = lambda: None) -> None:
    """Run a fleet until cancelled. ``begins`` is told when nothing is in its way.

    Raises `ServerMissing`, `ServerTooOld`, and `NotUsable` for a fleet that is up, before anything starts.
    """
    with _alone(fleet):
        for place in (*fleet.of("cloud"), *fleet.of("fog")):
            named = read_toml(place.settings).values.get("nats_server")
            find_server(Path(named) if named else None)
        supervisor = Supervisor(fleet)
        begins()
        try:
            await supervisor.start()
            await asyncio.Event().wait()
        finally:
            await undisturbed(supervisor.stop())


@contextmanager
def _alone(fleet: Fleet) -> Iterator[None]:
    """While nobody else runs these places: two would take each other's ports and folders."""
    fd = os.open(fleet.folder, os.O_RDONLY)
    try:
        _lock(fd, fleet)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, fleet: Fleet) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        what = f"fleet {fleet.name} in {fleet.folder} is up already"
        raise NotUsable(what, "Use that one, or end its `reuna up` first.") from None


def log_path(place: PlaceFile) -> Path:
    """Where a place writes what it has to say."""
    return place.folder / "place.log"


def last_lines(place: PlaceFile, count: int = 5) -> str:
    """The end of a place's log, for an error message."""
    try:
        return "\n".join(log_path(place).read_text(errors="replace").splitlines()[-count:])
    except OSError:
        return ""


def why_ended(place: PlaceFile) -> str:
    """The error with which a place ended, '' for one that said none."""
    said, step = ["", "", *last_lines(place).splitlines()][-2:]
    return said.removeprefix("error: ") if said.startswith("error: ") and step.startswith("next: ") else ""


def failed(place: PlaceFile, logs: Path | None = None) -> ServerFailed:
    """The error for a place that does not come up; ``logs`` is where its log stays, if elsewhere."""
    log = log_path(place) if logs is None else logs / f"{place.name}-{log_path(place).name}"
    return ServerFailed(f"{place.kind} {place.name} does not come up:\n{last_lines(place)}", f"See {log}.")


async def _ended(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
