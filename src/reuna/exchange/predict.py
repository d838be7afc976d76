"""A release that answers windows at a node: its code and its graph in a sandboxed worker of its own.

    predictor = await Predictor.start(file, folder, data, limits)
    for outcome in await predictor.answer(rows): …
    await predictor.close()

The worker is resident: code, graph and the node's own tables, by which most projects scale, are read when it
starts and kept. One that ends is started anew, and the same windows are asked again; those that end it again
and again get the safe answer. What a release says of a window depends on its rows and the node's tables
alone, so a window that is asked twice is answered alike.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
import numpy as np

from reuna.adapters.columns import project_folder
from reuna.adapters.data_folder import folder_tables
from reuna.adapters.files import storage_error
from reuna.adapters.project import unpack_bundle
from reuna.adapters.sandbox import HIGHEST, SandboxLimits, sentence
from reuna.adapters.worker import Desk, Worker
from reuna.adapters.worker.messages import MAX_FRAME, Answer, Answered, Ask
from reuna.core.contract import Contract, contract
from reuna.core.errors import (
    DataError,
    DeviceError,
    NotLive,
    ReleaseNotFound,
    ReunaError,
    SandboxTooWeak,
    UserError,
    WorkerFailed,
)
from reuna.core.fallback import Fallback, decide, fallback, window_starts
from reuna.core.grid import Rows
from reuna.core.inference import Inference, inference
from reuna.core.outcomes import Outcome, State
from reuna.core.ports import Clock
from reuna.core.records import Setting, Terms, Work
from reuna.wire import digest_bytes
from reuna.wire import release as wire
from reuna.wire.release import About, Release

log = logging.getLogger("reuna.live")
SHOWN = "shown"  #: in a release's folder: a copy of the node's data with the columns that code may read
LIVE = Path("test") / "live.csv"  #: where the project's ``load`` finds the rows to answer
TRIES = 3  #: workers that one question may end
FIRST_S, LAST_S = 0.2, 30.0  #: between the end of a worker and the next
ANSWER_S = 60.0  #: after which a worker that says nothing is ended
MAX_WHY = 200  #: characters
MAX_INLINE = MAX_FRAME * 3 // 4  #: bytes of cells in a message; the rest of it is small
MAX_OUTPUTS = 4096
SILENT = f"the worker said nothing for {ANSWER_S:g} s"
T = TypeVar("T")


@dataclass(frozen=True)
class Held:
    """What a release says of itself. ``before``: rows ahead of a window that its rules look back on.

    ``placed``: where it answers.
    """

    digest: str
    about: About
    settings: dict[str, Setting]
    agreed: Contract
    rules: Fallback
    length: int
    step: int
    before: int
    placed: Inference = field(default_factory=Inference)

    @property
    def signals(self) -> tuple[str, ...]:
        """Signals whose readings it takes."""
        return tuple(each.name for each in self.agreed.signals if each.name != self.agreed.label)


class Predictor:
    """One release in its worker. ``restarts`` counts how often the worker was started anew."""

    takes_windows = True

    def __init__(
        self,
        held: Held,
        desk: Desk,
        log_file: Path,
        limits: SandboxLimits,
        min_level: int,
        clock: Clock,
        columns: tuple[str, ...] | None = None,
    ) -> None:
        self.held = held
        self.restarts = 0
        self._desk = desk
        self._log = log_file
        self._limits = limits
        self._min_level = min_level
        self._clock = clock
        self._columns = columns
        self._worker: Worker | None = None
        self._failures = 0  #: of workers, one after the other

    @classmethod
    async def start(
        cls,
        release: Path,
        folder: Path,
        data: Path,
        limits: SandboxLimits,
        min_level: int,
        clock: Clock,
        columns: tuple[str, ...] | None = None,
    ) -> Predictor:
        """Read a release, check every digest in it, and have it stand ready.

        ``folder`` is this predictor's alone and is emptied first; ``data`` is the node's own. ``columns``:
        those that code may read; signals beyond them are missing (None: all).

        Raises `ReleaseNotFound`, `Untrusted`, `Corrupted`, `NotLive` for a release that cannot answer live
        readings, `DiskFull`, `SandboxTooWeak`, `WorkerFailed`, `ContractBroken`, `DataError`, `ProjectError`,
        `LearnerError`, `ExtraMissing`.
        """
        found = await asyncio.to_thread(read_release, release)
        held = held_of(found)
        desk = await asyncio.to_thread(_set_out, found, folder, data)
        predictor = cls(held, desk, folder / "worker.log", limits, min_level, clock, columns)
        await predictor._stand()
        return predictor

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Signals that its code may read; None: all."""
        return self._columns

    @property
    def pid(self) -> int:
        """Process id of the worker, 0 while there is none."""
        return self._worker.pid if self._worker is not None and self._worker.alive else 0

    async def answer(self, rows: Rows) -> list[Outcome]:
        """An outcome for each window of the rows, in order; what goes wrong is a safe one, with the reason.

        The first window begins after ``rows.before`` rows. Raises `StorageError`.
        """
        began = time.perf_counter()
        asked, starts = self._lent(_asked(rows, self._columns)), self._windows(rows)
        try:
            answer = await self._again(lambda worker: worker.ask(asked))
            windows = _checked(answer, starts)
        except (UserError, DeviceError) as error:
            log.warning("%s: %s", self._name, error)
            return self.safe_for(rows, _said(error), failed=True)
        took_ms = (time.perf_counter() - began) * 1000 / max(1, len(windows))
        shared_ms = answer.features_ms / max(1, len(windows))
        return [self._outcome(rows, each, took_ms, shared_ms) for each in windows]

    async def golden(self) -> str:
        """Why this release must not be used: its self-test; '' when it may be."""
        try:
            await self._again(lambda worker: worker.self_test())
        except (UserError, DeviceError) as error:
            return _said(error)
        return ""

    async def close(self) -> None:
        """End the worker."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.close()

    def _lent(self, asked: Ask) -> Ask:
        """With the cells in a file where a message cannot hold them. Raises `StorageError`."""
        if sum(len(values) + len(good) for values, good in asked.cells.values()) <= MAX_INLINE:
            return asked
        file = self._desk.lent / "rows"
        try:
            file.write_bytes(msgspec.msgpack.encode(asked.cells))
        except OSError as error:
            raise storage_error(error, file) from error
        return msgspec.structs.replace(asked, cells={}, file=str(file))

    @property
    def _name(self) -> str:
        return f"{self.held.about.project} {self.held.about.version}"

    async def _again(self, work: Callable[[Worker], Awaitable[T]]) -> T:
        """Do it; a worker that ends or is silent under it is replaced, `TRIES` times in all."""
        tries = TRIES
        while True:
            try:
                found = await asyncio.wait_for(work(await self._ready()), ANSWER_S)
            except (WorkerFailed, TimeoutError) as error:
                await self.close()
                tries -= 1
                failed = error if isinstance(error, WorkerFailed) else WorkerFailed(SILENT)
                log.warning("%s: %s", self._name, failed)
                if not tries:
                    raise failed from error
                await self._clock.sleep(min(FIRST_S * 2.0**self._failures, LAST_S))
                self._failures += 1
            else:
                self._failures = 0
                return found

    async def _ready(self) -> Worker:
        """The worker, or a new one in its place."""
        if self._worker is None or not self._worker.alive:
            await self.close()
            self.restarts += 1
            await self._stand()
        assert self._worker is not None
        return self._worker

    async def _stand(self) -> None:
        worker = await Worker.start(self._desk, self._log, self._limits)
        try:
            level = worker.level
            if level.number < self._min_level:
                raise SandboxTooWeak(
                    f"the sandbox reaches level {level.number}, {self._min_level} is asked for; "
                    f"missing: {sentence(level, self._min_level)}"
                )
            graph = self._desk.lent / wire.MODEL
            await worker.stand(str(self.held.settings["entry"]), self.held.settings, graph)
        except BaseException:
            await worker.close()
            raise
        self._worker = worker

    def _windows(self, rows: Rows) -> range:
        """First rows of the windows."""
        held = self.held
        starts = window_starts(rows.count - rows.before, held.length, held.step)
        return range(rows.before + starts.start, rows.before + starts.stop, starts.step)

    def _outcome(self, rows: Rows, each: Answered, took_ms: float, features_ms: float) -> Outcome:
        window = each.window
        decided = decide(self.held.rules, each.output, window.why if window.state == "refused" else "")
        state: State = "safe" if decided.why else "mended" if window.state == "mended" else "answered"
        made = self._made(
            rows,
            each.start,
            state=state,
            answer=decided.answer,
            output=tuple(each.output),
            why=(decided.why or window.why)[:MAX_WHY],
            took_ms=took_ms,
            features_ms=features_ms,
            graph_ms=each.took_ms,
        )
        owed = state == "safe" and window.state != "refused"
        return msgspec.structs.replace(made, failed=owed and made.confidence is None)

    def safe_for(self, rows: Rows, why: str, failed: bool = False) -> list[Outcome]:
        """What is said of the windows of these rows when the release is not asked, or ``failed``."""
        said = {"state": "safe", "answer": self.held.rules.safe, "why": why[:MAX_WHY], "failed": failed}
        return [self._made(rows, start, **said) for start in self._windows(rows)]

    def _made(self, rows: Rows, start: int, **said: Any) -> Outcome:
        about, first_ns = self.held.about, rows.first_ns + start * rows.every_ns
        last_ns = first_ns + (self.held.length - 1) * rows.every_ns
        return Outcome(about.project, about.version, self.held.digest, first_ns, last_ns, **said)


class Approves(Protocol):
    """Who says on what terms code may run here (`reuna.core.ports.Link`)."""

    async def approved(self, work: Work) -> Terms: ...


@dataclass(frozen=True)
class Confines:
    """How much a worker may take, and the least level of the sandbox in which it runs."""

    limits: SandboxLimits
    min_level: int


async def stand(
    release: Path, folder: Path, data: Path, confines: Confines, link: Approves, clock: Clock
) -> Predictor:
    """A release in its worker, if the site's policy lets its code run; it sees what it may of ``data``.

    Raises `NotApproved`, `Refused`, and what `Predictor.start` does.
    """
    found = await asyncio.to_thread(read_release, release)
    held_of(found)  # before anybody is asked to approve what cannot answer
    code = digest_bytes(found.parts[wire.CODE])
    terms = await link.approved(Work(found.manifest.about.run, code, "inference"))
    level = max(confines.min_level, terms.level)
    if terms.columns is not None:
        shown = folder.with_name(f"{folder.name}-{SHOWN}")
        await asyncio.to_thread(project_folder, data, terms.columns, shown)
        data, level = shown, HIGHEST
    return await Predictor.start(release, folder, data, confines.limits, level, clock, terms.columns)


def held_of(found: Release) -> Held:
    """What of a release says how it answers. Raises `Corrupted`, `SettingsError`, `NotLive`."""
    return held(found.digest, found.manifest.about, wire.settings(found))


def held(digest: str, about: About, settings: dict[str, Setting]) -> Held:
    """The same from the settings of a run. Raises `SettingsError`, `NotLive`."""
    agreed, rules = contract(settings), fallback(settings)
    length, step = agreed.window_rows
    named = f"{about.project} {about.version}"
    if not agreed.every_s:
        raise NotLive(f"the contract of {named} does not say how far apart rows are (`every_s`)")
    read = [each for each in agreed.signals if each.name != agreed.label]
    if not read:
        raise NotLive(f"the contract of {named} names no signals")
    for each in read:
        if each.type == "text":
            raise NotLive(f"the signal {each.name!r} of {named} is text, and readings are numbers")
    before = rules.look_back(each.name for each in read)
    return Held(digest, about, settings, agreed, rules, length or 1, step or 1, before, inference(settings))


def read_release(file: Path) -> Release:
    """A release from its file, every digest checked. Raises `ReleaseNotFound`, `NotUsable`, `Untrusted`."""
    try:
        with file.open("rb") as opened:
            data = opened.read(wire.MAX_RELEASE + 1)
    except FileNotFoundError as error:
        raise ReleaseNotFound(f"there is no file {file}") from error
    except OSError as error:
        raise storage_error(error, file) from error
    return wire.decode(data)


def _set_out(found: Release, folder: Path, data: Path) -> Desk:
    """The worker's folders, anew. Raises `DataError` when the node's folder has no tables to scale by."""
    node = folder / "node"
    desk = Desk(folder / "project", node, folder / "lent", folder / "made")
    own = folder_tables(data)
    if "all" in own:
        raise DataError(f"{data} has no folder train", "Put the tables that the node trains on into one.")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        for each in (desk.project, desk.lent, node / LIVE.parent):
            each.mkdir(parents=True)
        unpack_bundle(found.parts[wire.CODE], desk.project)
        (desk.lent / wire.MODEL).write_bytes(found.parts[wire.MODEL])
        (node / LIVE).touch()
        splits = [split for split in own if split != LIVE.parent.name]
        for split in splits:
            (node / split).symlink_to((data / split).resolve())
    except OSError as error:
        raise storage_error(error, folder) from error
    return replace(desk, beside=tuple((data / split).resolve() for split in splits))


def _asked(rows: Rows, columns: tuple[str, ...] | None) -> Ask:
    """As the worker is asked: with what its code may read."""
    cells = {
        name: (found.values.astype("<f8").tobytes(), found.good.astype(np.bool_).tobytes())
        for name, found in rows.cells.items()
        if columns is None or name in columns
    }
    return Ask(rows.first_ns, rows.count, rows.before, cells)


def _checked(answer: Answer, starts: range) -> list[Answered]:
    """The worker's windows; the project's code ran there, so they are read like anybody's.

    Raises `WorkerFailed`.
    """
    if [each.start for each in answer.windows] != list(starts):
        raise WorkerFailed(f"the worker answered {len(answer.windows)} windows, and was asked {len(starts)}")
    if any(len(each.output) > MAX_OUTPUTS for each in answer.windows):
        raise WorkerFailed(f"the worker answered with more than {MAX_OUTPUTS} numbers")
    return answer.windows


def _said(error: ReunaError) -> str:
    return f"{error.code} {(error.message.splitlines() or [''])[0]}"[:MAX_WHY]
