"""The edge's workers: one process per (run, bundle), resident while it has work.

The worker is fresh for each run and bundle, keeps code, data and model in memory from round to
round, and ends when it was idle long enough. Two bundles never share one.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from reuna.adapters.files import FileBlob
from reuna.adapters.project import unpack_bundle
from reuna.adapters.worker import Worker
from reuna.core.errors import WorkerFailed
from reuna.core.ports import Blob
from reuna.core.records import Metrics, Setting
from reuna.edge.train import Fitted

log = logging.getLogger("reuna.edge")
T = TypeVar("T")


class WorkerWorkshop:
    """The `Workshop` over worker subprocesses."""

    def __init__(self, folder: Path, data: Path, idle_s: float) -> None:
        self._folder = folder
        self._data = data
        self._idle_s = idle_s
        self._worker: Worker | None = None
        self._for: tuple[str, str] | None = None
        self._opened: tuple[str, Blob, Mapping[str, Setting]] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self, run: str, bundle: Blob, settings: Mapping[str, Setting]) -> None:
        """A worker for this run and bundle; the one that runs already when it is the same."""
        self._busy()
        wanted = (run, bundle.digest)
        self._opened = (run, bundle, settings)
        if self._worker is not None and self._for == wanted and self._worker.alive:
            return
        await self.close()
        project = self._folder / "project"
        shutil.rmtree(project, ignore_errors=True)
        unpack_bundle(bundle.read(0, bundle.size), project)
        worker = await Worker.start(project, self._data, self._folder / "worker.log")
        try:
            await worker.open(str(settings["entry"]), settings)
        except BaseException:
            await worker.close()
            raise
        self._worker, self._for = worker, wanted

    async def fit(self, model: Blob, settings: Mapping[str, Setting], seed: int) -> Fitted:
        """Train in the worker. Raises `LearnerError`, `WorkerFailed`, `DataError`."""
        out = self._folder / "trained.safetensors"
        result = await self._carry_out(lambda worker: worker.fit(_path(model), settings, seed, out))
        return Fitted(FileBlob(out, "", out.stat().st_size), result.weight, result.metrics)

    async def evaluate(self, model: Blob, settings: Mapping[str, Setting]) -> Metrics:
        """Metrics of the model on this node's own data."""
        return await self._carry_out(lambda worker: worker.evaluate(_path(model), settings))

    async def close(self) -> None:
        """End the worker, if there is one."""
        self._busy()
        worker, self._worker, self._for = self._worker, None, None
        if worker is not None:
            await worker.close()

    async def _carry_out(self, work: Callable[[Worker], Awaitable[T]]) -> T:
        """Do the work; a worker that died under it is replaced once, and the work begun again."""
        self._busy()
        try:
            found = await work(await self._ready())
        except WorkerFailed as error:
            log.warning("%s; once more in a new worker", error)
            found = await work(await self._ready())
        self._rest()
        return found

    async def _ready(self) -> Worker:
        """The worker that was opened, or a new one in its place."""
        if self._worker is not None and self._worker.alive:
            return self._worker
        if self._opened is None:
            raise WorkerFailed("no project was opened on this node")
        await self.open(*self._opened)
        assert self._worker is not None
        return self._worker

    def _busy(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _rest(self) -> None:
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(self._idle_s, self._end_idle)

    def _end_idle(self) -> None:
        task = asyncio.create_task(self.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _path(model: Blob) -> Path:
    path: Path = model.path  # type: ignore[attr-defined]  # blobs of a real place lie in files
    return path
