"""The edge's workers: one process per (run, bundle), resident while it has work, in a sandbox.

The worker is fresh for each run and bundle, keeps code, data and model in memory from round to
round, and ends when it was idle long enough. Two bundles never share one. It sees three folders to
read and one to write:

    work/project   the unpacked bundle          work/lent   the models it works on
    DATA           this node's own data         work/made   what it makes, taken out after each fit

Where the site's policy lets code read some columns alone, it sees a copy with those, work/shown, and
not DATA. Only the sandbox's files layer keeps it from the original, so that needs the highest level.

A worker whose sandbox reaches less than the node asks for is ended before it imports a line of the
project.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from reuna.adapters.columns import project_folder
from reuna.adapters.files import FileBlob, HeldBlob, replace_file, storage_error
from reuna.adapters.fingerprint import DATA_KEY, DataFolder, Marks
from reuna.adapters.processes import available_mib
from reuna.adapters.project import unpack_bundle
from reuna.adapters.sandbox import HIGHEST, SandboxLimits, sentence
from reuna.adapters.worker import Desk, Worker
from reuna.core.bins import Counted
from reuna.core.contract import Line
from reuna.core.errors import DataError, LearnerError, NotApproved, SandboxTooWeak, WorkerFailed
from reuna.core.fingerprint import Window
from reuna.core.ports import Blob
from reuna.core.readiness import Needs
from reuna.core.records import Metrics, Setting, Terms
from reuna.edge.ready import Looked
from reuna.edge.train import Fitted

log = logging.getLogger("reuna.edge")
T = TypeVar("T")
TRAINED = "trained.safetensors"
SHOWN = "shown"  #: a copy of the data with the columns that code may read
WAITING = "waiting.zip"  #: a bundle that the site has not approved
RAN = "ran.zip"  #: the bundle that ran last


class WorkerWorkshop:
    """The `Workshop` over worker subprocesses."""

    def __init__(
        self, folder: Path, data: Path, idle_s: float, limits: SandboxLimits, min_level: int
    ) -> None:
        self._folder = folder
        self._desk = Desk(folder / "project", data, folder / "lent", folder / "made")
        self._shown = folder / SHOWN
        self._idle_s = idle_s
        self._limits = limits
        self._min_level = min_level
        self._terms = Terms()  #: of the site's policy
        self._waits = ("", "")  #: digest of the bundle that waits, and why
        self.lines: tuple[Line, ...] = ()
        self.bins: tuple[Counted, ...] = ()
        self.window: Window | None = None
        self._data = DataFolder(data, folder.parent / DATA_KEY)
        self._mixed = ("", "")  #: run and bundle that trained on data that nobody can tell any more
        self._looks: asyncio.Task[None] | None = None  #: at the data that the worker has loaded
        self._worker: Worker | None = None
        self._for: tuple[str, str, tuple[str, ...] | None] | None = None  #: run, bundle, columns
        self._opened: tuple[str, Blob, Mapping[str, Setting]] | None = None
        self._idle: asyncio.TimerHandle | None = None  #: one for many rounds, which looks since when it rests
        self._rests_s: float | None = None  #: since when, by the event loop's clock; None while it works
        self._closing: set[asyncio.Task[None]] = set()

    def hold(self, bundle: Blob, why: str) -> None:
        """See `Workshop.hold`."""
        if self._waits == (bundle.digest, why):
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        replace_file(self._folder / WAITING, bundle.read(0, bundle.size))
        self._waits = (bundle.digest, why)
        log.warning(
            "%s code %s: %s. To look at it: reuna code review %s",
            NotApproved.code,
            bundle.digest,
            why,
            self._folder.parent,
        )

    async def open(self, run: str, bundle: Blob, settings: Mapping[str, Setting], terms: Terms) -> None:
        """A worker for this run, bundle and columns; the one that runs already when it is the same.

        Raises `SandboxTooWeak`, `DiskFull`, and what opening the project raises.
        """
        self._busy()
        wanted = (run, bundle.digest, terms.columns)
        self._opened, self._terms = (run, bundle, settings), terms
        if self._worker is not None and self._for == wanted and self._worker.alive:
            await self._looked()
            return
        self.lines, self.bins = (), ()
        await self.close()
        shutil.rmtree(self._desk.project, ignore_errors=True)
        (self._folder / TRAINED).unlink(missing_ok=True)  # what one worker made no other sees
        marks = await asyncio.to_thread(self._data.marks)
        with own_errors(self._folder):
            unpack_bundle(bundle.read(0, bundle.size), self._desk.project)
            desk = await self._set_out(terms.columns)
            worker = await Worker.start(desk, self._folder / "worker.log", self._limits)
        try:
            self._check(worker, run)
            await worker.open(str(settings["entry"]), settings)
        except DataError as error:
            self.lines = worker.lines
            await worker.close()
            raise self._explained(error) from error
        except BaseException:
            await worker.close()
            raise
        self.lines, self.bins = worker.lines, worker.bins
        self._worker, self._for = worker, wanted
        self._keep(bundle)
        self.window = None
        self._looks = asyncio.create_task(self._look(wanted[:2], marks, terms))
        await self._looked()  # last: whoever is cancelled in it has a worker to close

    async def _looked(self) -> None:
        """Until the data are known; who is cancelled, by a newer plan, leaves that to the next one."""
        if self._looks is not None:
            await asyncio.shield(self._looks)

    async def _look(self, work: tuple[str, str], marks: Marks | None, terms: Terms) -> None:
        """The data that the worker has loaded, as they may be told of; ``marks`` are from before that.

        They are read when a worker loads them and they are not known from the time before.
        """
        if self._mixed == work:
            return
        window = await asyncio.to_thread(self._data.since, marks, terms.columns)
        if self._looks is asyncio.current_task():  # else another worker has loaded them since
            self.window = window
            self._mixed = work if window is None else self._mixed

    async def survey(self, terms: Terms) -> Window | None:
        """See `reuna.edge.ready.Workshop`."""
        return await asyncio.to_thread(self._data.anew, terms.columns)

    async def look(
        self, bundle: Blob | None, settings: Mapping[str, Setting], needs: Needs, terms: Terms
    ) -> Looked:
        """See `reuna.edge.ready.Workshop`. The worker that was resident ends first: two may be too many."""
        await self.close()
        self.lines, self.bins = (), ()
        free = available_mib()
        shutil.rmtree(self._desk.project, ignore_errors=True)
        with own_errors(self._folder):
            self._desk.project.mkdir(parents=True)
            if bundle is not None:
                unpack_bundle(bundle.read(0, bundle.size), self._desk.project)
            desk = await self._set_out(terms.columns)
            worker = await Worker.start(desk, self._folder / "worker.log", self._limits)
        try:
            weak = worker.level.number < self._wanted(terms)
            entry = "" if bundle is None or weak else str(settings["entry"])
            answer = await worker.look(entry, settings, needs.modules)
        finally:
            await worker.close()
        if answer.code:
            log.warning("a check found: %s %s", answer.code, answer.message)
        self.lines = answer.lines
        return Looked(
            lines=answer.lines,
            missing=answer.missing,
            other=answer.other,
            code=answer.code,
            level=worker.level.number,
            weak=weak,
            samples=answer.samples,
            peak_mib=answer.peak_mib,
            address_mib=answer.address_mib,
            free_mib=free,
            limit_mib=self._limits.memory_mib,
        )

    def _wanted(self, terms: Terms) -> int:
        """The least level of a sandbox for code; hiding columns needs them all."""
        return HIGHEST if terms.columns is not None else max(self._min_level, terms.level)

    async def _set_out(self, columns: tuple[str, ...] | None) -> Desk:
        """The worker's folders, with as much of this node's data as its site lets code read."""
        if columns is None:
            shutil.rmtree(self._shown, ignore_errors=True)
            return self._desk
        withheld = await asyncio.to_thread(project_folder, self._desk.data, columns, self._shown)
        log.info("code sees the columns %s; not %s", ", ".join(columns), ", ".join(withheld) or "no other")
        return replace(self._desk, data=self._shown)

    def _explained(self, error: DataError) -> DataError:
        """With the columns that code may read, if that can be why."""
        if self._terms.columns is None:
            return error
        seen = ", ".join(self._terms.columns)
        return type(error)(f"{error.message}; the site's policy lets code read only {seen}", error.next_step)

    def _keep(self, bundle: Blob) -> None:
        """What runs is what the next one is compared with; it waits no more."""
        data, waiting = bundle.read(0, bundle.size), self._folder / WAITING
        replace_file(self._folder / RAN, data)
        if waiting.is_file() and waiting.read_bytes() == data:
            waiting.unlink()
            self._waits = ("", "")
            log.info("code %s was approved and runs", bundle.digest)

    @property
    def level(self) -> int:
        """See `Workshop.level`; 0 while no worker runs."""
        return self._worker.level.number if self._worker is not None else 0

    async def fit(self, model: Blob, settings: Mapping[str, Setting], seed: int) -> Fitted:
        """Train in the worker. Raises `LearnerError`, `WorkerFailed`, `DataError`."""
        base, made = self._lend(model), self._desk.made / TRAINED
        if not isinstance(model, HeldBlob):  # a small one comes back without a file
            give_back(self._folder / TRAINED, made.with_name(f"{TRAINED}.part"))
        result = await self._carry_out("fit", lambda worker: worker.fit(base, settings, seed, made))
        if isinstance(model, HeldBlob):
            return Fitted(given(result.model, model.size), result.weight, result.metrics)
        return Fitted(take(made, self._folder / TRAINED), result.weight, result.metrics)

    async def evaluate(self, model: Blob, settings: Mapping[str, Setting]) -> Metrics:
        """Metrics of the model on this node's own data."""
        lent = self._lend(model)
        return await self._carry_out("evaluation", lambda worker: worker.evaluate(lent, settings))

    async def close(self) -> None:
        """End the worker, if there is one."""
        self._busy()
        worker, self._worker, self._for = self._worker, None, None
        if worker is not None:
            await worker.close()

    def _check(self, worker: Worker, run: str) -> None:
        level = worker.level
        log.info("worker of %s: sandbox level %d (%s)", run, level.number, ", ".join(level.layers))
        wanted, why = self._wanted(self._terms), "" if self._terms.columns is None else " to hide columns"
        if level.number < wanted:
            raise SandboxTooWeak(
                f"the sandbox reaches level {level.number}, this node and its policy ask for {wanted}{why}; "
                f"missing: {sentence(level, wanted)}"
            )

    def _lend(self, model: Blob) -> Path | bytes:
        """The model under a name that the worker can read; the one lent before is taken back.

        One that is in memory is small, and goes to the worker itself.
        """
        if isinstance(model, HeldBlob):
            return model.data
        source: Path = model.path  # type: ignore[attr-defined]  # blobs of a real place lie in files
        self._desk.lent.mkdir(parents=True, exist_ok=True)
        lent = self._desk.lent / (model.digest or "own")
        if lent.exists() and lent.samefile(source):
            return lent
        for old in self._desk.lent.iterdir():
            old.unlink()
        try:
            os.link(source, lent)
        except OSError:  # another file system, or one without links
            replace_file(lent, source.read_bytes())
        return lent

    async def _carry_out(self, what: str, work: Callable[[Worker], Awaitable[T]]) -> T:
        """Do the work; a worker that died under it is replaced once, and the work begun again."""
        self._busy()
        try:
            found = await work(await self._ready())
        except WorkerFailed as error:
            log.warning("%s; its %s once more in a new worker", error, what)
            found = await work(await self._ready())
        self._rest()
        return found

    async def _ready(self) -> Worker:
        """The worker that was opened, or a new one in its place."""
        if self._worker is not None and self._worker.alive:
            return self._worker
        if self._opened is None:
            raise WorkerFailed("no project was opened on this node")
        await self.open(*self._opened, self._terms)
        assert self._worker is not None
        return self._worker

    def _busy(self) -> None:
        self._rests_s = None

    def _rest(self) -> None:
        self._rests_s = asyncio.get_running_loop().time()
        if self._idle is None:
            self._look_idle()

    def _look_idle(self) -> None:
        """End a worker that rests for long enough, or look again when it will have."""
        self._idle, loop = None, asyncio.get_running_loop()
        if self._rests_s is None:
            return
        ends_s = self._rests_s + self._idle_s
        if loop.time() < ends_s:
            self._idle = loop.call_at(ends_s, self._look_idle)
        else:
            self._end_idle()

    def _end_idle(self) -> None:
        task = asyncio.create_task(self.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


@contextmanager
def own_errors(path: Path) -> Iterator[None]:
    """The system's errors as ours. Raises `DiskFull`, `Corrupted`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def given(made: bytes, size: int) -> HeldBlob:
    """A model that a worker gave itself. Raises `LearnerError` for one larger than what it was given."""
    if len(made) != size:
        raise LearnerError(f"the worker gave a model of {len(made)} bytes for one of {size}")
    return HeldBlob(made, "")


def give_back(kept: Path, part: Path) -> None:
    """What a worker made before, for it to write over: a new file would cost it four times as much."""
    with suppress(OSError):  # there is none, or the worker has put something else in its place
        kept.rename(part)


def take(made: Path, kept: Path) -> FileBlob:
    """Move what a worker made out of its reach.

    Raises `LearnerError` unless it is a plain file of one name: a link would have us read and send
    what the worker itself may not see.
    """
    kept.unlink(missing_ok=True)
    try:
        made.rename(kept)
        status = kept.lstat()
    except OSError as error:
        raise LearnerError(f"the worker left no model: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        kept.rename(made)
        raise LearnerError("the worker left something other than a plain file for its model")
    return FileBlob(kept, "", status.st_size)
