"""The parent's side: a worker as a process."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from reuna.adapters.framed import Frames
from reuna.adapters.processes import end_with_parent
from reuna.adapters.sandbox import Level, SandboxLimits, worker_environment
from reuna.adapters.worker.messages import (
    MAX_FRAME,
    Answer,
    Ask,
    Desk,
    Evaluate,
    Fit,
    FitResult,
    Open,
    Predict,
    Request,
    SelfTest,
    Stand,
    Start,
)
from reuna.core import errors
from reuna.core.bins import Counted
from reuna.core.contract import Line
from reuna.core.errors import BadMessage, LearnerError, ReunaError, WorkerFailed
from reuna.core.foreign import UNREADABLE
from reuna.core.readiness import Module
from reuna.core.records import Metrics, Setting

LOG_LINES = 8
LOG_TAIL = 16_384  #: bytes of a log that are looked at
MAX_LOG = 8 << 20  #: bytes; a longer log is begun anew with the next worker
PROGRAM = (
    "-P",
    "-m",
    "reuna.adapters.worker",
)  #: -P: the folder we happen to stand in is no place for modules
T = TypeVar("T")


class _Line:
    """To a worker's process: each of its messages is awaited, and one that is not ends the line."""

    def __init__(self, frames: Frames, log: Path) -> None:
        self._frames = frames
        self._log = log
        self._awaited: asyncio.Future[bytes | None] | None = None
        self.is_open = True

    def _take(self, frame: bytes | None) -> None:
        self.is_open = self.is_open and frame is not None
        awaited, self._awaited = self._awaited, None
        if awaited is not None and not awaited.done():
            awaited.set_result(frame)
        elif frame is not None:
            self.is_open = False
            raise BadMessage("the worker said what nobody had asked for")

    async def message(self, kind: type[T], request: bytes | None = None) -> T:
        """The worker's next message, once it was sent ``request``, if any. Raises `WorkerFailed`."""
        if not self.is_open:
            raise _ended(self._log)
        awaited = self._awaited = asyncio.get_running_loop().create_future()
        if request is None:  # the first one
            self._frames.take(self._take)
        else:
            self._frames.send(request)
        frame = await awaited
        try:
            if frame is None:
                self._frames.judge()
                raise _ended(self._log)
            return msgspec.msgpack.decode(frame, type=kind)
        except BadMessage as error:
            raise WorkerFailed(f"the worker sent {error.message}") from error
        except UNREADABLE as error:
            raise _ended(self._log) from error

    def close(self) -> None:
        self._frames.close()


class Worker:
    """The parent's side of one training process."""

    def __init__(self, process: asyncio.subprocess.Process, line: _Line, level: Level) -> None:
        self.level = level
        self._process = process
        self._line = line
        self.lines: tuple[Line, ...] = ()  #: how the data keep the contract, once they were looked at
        self.bins: tuple[Counted, ...] = ()  #: and how they are spread
        self._turn = asyncio.Lock()
        self._broken = False

    @classmethod
    async def start(cls, desk: Desk, log: Path, limits: SandboxLimits | None = None) -> Worker:
        """Start the process and wait until it is confined. Raises `WorkerFailed`."""
        ours, theirs = socket.socketpair()
        start = Start(str(desk.project), str(desk.data), desk.room(), limits or SandboxLimits())
        try:
            process = await _spawn(theirs, start, desk, log)
            line = _Line(await Frames.over(ours, MAX_FRAME), log)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        try:
            return cls(process, line, await line.message(Level))
        except BaseException:
            await _end(process, line)
            raise

    @property
    def alive(self) -> bool:
        """Whether it can take another request."""
        return not self._broken and self._line.is_open and self._process.returncode is None

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def open(self, entry: str, settings: Mapping[str, Setting]) -> None:
        """Look whether the data keep the contract, import the project and load them.

        Raises `ContractBroken` (``lines`` has the counts then too), `ProjectError`, `DataError`,
        `LearnerError`.
        """
        self.lines, self.bins = (), ()
        answer = await self.look(entry, settings)
        self.lines, self.bins = answer.lines, answer.bins
        _checked(answer)

    async def look(
        self, entry: str, settings: Mapping[str, Setting], modules: tuple[Module, ...] = ()
    ) -> Answer:
        """As `open`, and whatever came of it: an error is in the answer. See `Open` for the arguments.

        Raises `WorkerFailed`.
        """
        return await self._carry_out(Open(entry, dict(settings), modules))

    async def fit(
        self, model: Path | bytes, settings: Mapping[str, Setting], seed: int, out: Path
    ) -> FitResult:
        """Train; the new model lies in ``out`` afterwards, that of a small model itself is in the result.

        Raises `LearnerError`, `WorkerFailed`.
        """
        path, data = _lent(model)
        return _result(await self._ask(Fit(path, str(out), dict(settings), seed, data)))

    async def evaluate(self, model: Path | bytes, settings: Mapping[str, Setting]) -> Metrics:
        """Metrics of a model on this node's data. Raises `LearnerError`, `WorkerFailed`."""
        path, data = _lent(model)
        return (await self._ask(Evaluate(path, dict(settings), data))).metrics

    async def predict(
        self, entry: str, settings: Mapping[str, Setting], graph: Path, out: Path, check: bool = False
    ) -> Answer:
        """Run a graph on the recordings; `Answers` lie in ``out`` afterwards, counts are in the answer.

        For the arguments see `Predict`.

        Raises as `open`, and `ExtraMissing`.
        """
        return await self._ask(Predict(entry, str(graph), str(out), dict(settings), check))

    async def stand(self, entry: str, settings: Mapping[str, Setting], graph: Path) -> None:
        """Keep a release at hand for `ask`: see `Stand`. Raises as `predict`."""
        await self._ask(Stand(entry, str(graph), dict(settings)))

    async def ask(self, request: Ask) -> Answer:
        """Answer windows; they are in the answer. Raises as `predict`."""
        return await self._ask(request)

    async def self_test(self, graph: Path | None = None) -> None:
        """Raises `LearnerError` when a graph, else the release that stands, cannot answer what it must."""
        await self._ask(SelfTest("" if graph is None else str(graph)))

    async def close(self) -> None:
        """End the process."""
        await _end(self._process, self._line)

    async def _ask(self, request: Request) -> Answer:
        return _checked(await self._carry_out(request))

    async def _carry_out(self, request: Request) -> Answer:
        async with self._turn:
            self._broken = True  # until the answer to this very request is there
            answer = await self._exchange(request)
            self._broken = False
        return answer

    async def _exchange(self, request: Request) -> Answer:
        data = msgspec.msgpack.encode(request)
        if len(data) > MAX_FRAME:
            self._broken = False  # nothing was sent
            raise LearnerError(f"a request takes {len(data)} bytes, {MAX_FRAME} are allowed")
        return await self._line.message(Answer, data)


def _ended(log: Path) -> WorkerFailed:
    return WorkerFailed(f"the worker ended:\n{last_lines(log)}")


async def _end(process: asyncio.subprocess.Process, line: _Line) -> None:
    """End a worker's process, however busy it is, and wait until it is gone."""
    line.close()
    if process.returncode is None:
        process.kill()
    await process.wait()


async def _spawn(theirs: socket.socket, start: Start, desk: Desk, log: Path) -> asyncio.subprocess.Process:
    """The worker's process; of our descriptors it gets one end of the pair and the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(desk.made, ignore_errors=True)
    for folder in (desk.made, desk.lent):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    mode = "wb" if log.exists() and log.stat().st_size > MAX_LOG else "ab"
    with log.open(mode) as out:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *PROGRAM,
            str(theirs.fileno()),
            msgspec.json.encode(start).decode(),
            pass_fds=(theirs.fileno(),),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=worker_environment(os.environ),
            preexec_fn=end_with_parent,
        )


def _checked(answer: Answer) -> Answer:
    """The answer, or the error that it carries."""
    if answer.code:
        raise _error(answer)
    return answer


def _result(answer: Answer) -> FitResult:
    return FitResult(answer.weight, answer.metrics, answer.peak_mib, answer.cpu_s, answer.model)


def _lent(model: Path | bytes) -> tuple[str, bytes]:
    """The model's path, or the model itself."""
    return ("", model) if isinstance(model, bytes) else (str(model), b"")


def last_lines(log: Path) -> str:
    """The end of a worker's log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_TAIL))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-LOG_LINES:])
    except OSError:
        return ""


def _error(answer: Answer) -> ReunaError:
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, ReunaError) and kind.code == answer.code:
            return kind(answer.message, answer.next_step or None)
    return LearnerError(answer.message, answer.next_step or None)
