"""The edge's workers: one process per (run, bundle), resident while it has work.

The worker is fresh for each run and bundle, keeps code, data and model in memory from round to
round, and ends when it was idle long enough. Two bundles never share one.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

from reuna.adapters.files import FileBlob
from reuna.adapters.project import unpack_bundle
from reuna.adapters.worker import Worker
from reuna.core.errors import WorkerFailed
from reuna.core.ports import Blob
from reuna.core.records import Metrics, Setting
from reuna.edge.train import Fitted


class WorkerWorkshop:
    """The `Workshop` over worker subprocesses."""

    def __init__(self, folder: Path, data: Path, idle_s: float) -> None:
        self._folder = folder
        self._data = data
        self._idle_s = idle_s
        self._worker: Worker | None = None
        self._for: tuple[str, str] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self, run: str, bundle: Blob, settings: Mapping[str, Setting]) -> None:
        """A worker for this run and bundle; the one that runs already when it is the same."""
        self._busy()
        wanted = (run, bundle.digest)
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
        self._busy()
        out = self._folder / "trained.safetensors"
        result = await self._open_worker().fit(_path(model), settings, seed, out)
        self._rest()
        return Fitted(FileBlob(out, "", out.stat().st_size), result.weight, result.metrics)

    async def evaluate(self, model: Blob, settings: Mapping[str, Setting]) -> Metrics:
        """Metrics of the model on this node's own data."""
        self._busy()
        metrics = await self._open_worker().evaluate(_path(model), settings)
        self._rest()
        return metrics

    async def close(self) -> None:
        """End the worker, if there is one."""
        self._busy()
        worker, self._worker, self._for = self._worker, None, None
        if worker is not None:
            await worker.close()

    def _open_worker(self) -> Worker:
        if self._worker is None:
            raise WorkerFailed("no worker is open on this node")
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
