"""The training process: the project's code, resident during a run, with no key and no socket.

Parent and worker speak length-prefixed msgpack over an inherited socket pair; models pass as
files. BLAS runs with one thread, so that the same seed gives the same bits. The worker ends
when its parent is gone.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from reuna.adapters.processes import end_with_parent, own_peak_mib
from reuna.core import errors
from reuna.core.errors import LearnerError, ReunaError, WorkerFailed
from reuna.core.records import Metrics, Setting

if TYPE_CHECKING:
    from reuna.core.ports import Learner

MAX_FRAME = 4 << 20
LOG_LINES = 8
ONE_THREAD = {
    name: "1"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
}
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")


class Open(msgspec.Struct, tag=True):
    """Import the project's entry and load this node's data."""

    entry: str
    settings: dict[str, Setting]


class Fit(msgspec.Struct, tag=True):
    """Train from the model in a file and write the new one to another."""

    model: str
    out: str
    settings: dict[str, Setting]
    seed: int


class Evaluate(msgspec.Struct, tag=True):
    """Metrics of the model in a file."""

    model: str
    settings: dict[str, Setting]


class Answer(msgspec.Struct):
    """What came of a request; ``code`` is an error's."""

    weight: int = 0
    metrics: Metrics = {}
    peak_mib: float = 0.0
    code: str = ""
    message: str = ""


Request = Open | Fit | Evaluate


class FitResult(msgspec.Struct, frozen=True):
    """Samples behind the new model, the learner's metrics, the worker's peak memory."""

    weight: int
    metrics: Metrics
    peak_mib: float


class Worker:
    """The parent's side of one training process."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        log: Path,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._log = log
        self._turn = asyncio.Lock()
        self._broken = False

    @classmethod
    async def start(cls, project: Path, data: Path, log: Path) -> Worker:
        """Start the process; ``project`` is the unpacked bundle, ``data`` this node's folder."""
        ours, theirs = socket.socketpair()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "reuna.adapters.worker",
                str(theirs.fileno()),
                str(project),
                str(data),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=worker_environment(os.environ),
                preexec_fn=end_with_parent,
            )
        theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        return cls(process, reader, writer, log)

    @property
    def alive(self) -> bool:
        """Whether it can take another request."""
        return not self._broken and self._process.returncode is None

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def open(self, entry: str, settings: Mapping[str, Setting]) -> None:
        """Import the project and load the data. Raises `ProjectError`, `DataError`, `LearnerError`."""
        await self._ask(Open(entry, dict(settings)))

    async def fit(self, model: Path, settings: Mapping[str, Setting], seed: int, out: Path) -> FitResult:
        """Train; the new model lies in ``out`` afterwards. Raises `LearnerError`, `WorkerFailed`."""
        answer = await self._ask(Fit(str(model), str(out), dict(settings), seed))
        return FitResult(answer.weight, answer.metrics, answer.peak_mib)

    async def evaluate(self, model: Path, settings: Mapping[str, Setting]) -> Metrics:
        """Metrics of a model on this node's data. Raises `LearnerError`, `WorkerFailed`."""
        return (await self._ask(Evaluate(str(model), dict(settings)))).metrics

    async def close(self) -> None:
        """End the process."""
        self._writer.close()
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _ask(self, request: Request) -> Answer:
        async with self._turn:
            self._broken = True  # until the answer to this very request is there
            answer = await self._exchange(request)
            self._broken = False
        if answer.code:
            raise _error(answer)
        return answer

    async def _exchange(self, request: Request) -> Answer:
        data = msgspec.msgpack.encode(request)
        try:
            self._writer.write(len(data).to_bytes(4, "little") + data)
            length = int.from_bytes(await self._reader.readexactly(4), "little")
            if length > MAX_FRAME:
                raise WorkerFailed(f"the worker sent a frame of {length} bytes")
            return msgspec.msgpack.decode(await self._reader.readexactly(length), type=Answer)
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError) as error:
            raise WorkerFailed(f"the worker ended:\n{last_lines(self._log)}") from error


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a worker may see of the environment: no secrets, one BLAS thread."""
    kept = {name: environ[name] for name in PASSED_ON if name in environ}
    coretype = {name: value for name, value in environ.items() if name.startswith("OPENBLAS_")}
    return {**kept, **coretype, **ONE_THREAD, "PYTHONDONTWRITEBYTECODE": "1"}


def last_lines(log: Path) -> str:
    """The end of a worker's log."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
    except OSError:
        return ""


def _error(answer: Answer) -> ReunaError:
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, ReunaError) and kind.code == answer.code:
            return kind(answer.message)
    return LearnerError(answer.message)


# --- in the worker -------------------------------------------------------------------------------


class Bench:
    """The worker's side: learner and data stay loaded from request to request."""

    def __init__(self, project: Path, data: Path) -> None:
        self._project = project
        self._folder = data
        self._learner: Learner | None = None
        self._data: Any = None

    def serve(self, request: Request) -> Answer:
        """Carry out one request; errors of ours become an answer."""
        try:
            return self._carry_out(request)
        except ReunaError as error:
            return Answer(code=error.code, message=error.message)

    def _carry_out(self, request: Request) -> Answer:
        from reuna.adapters.project import blame_project, load_entry

        if isinstance(request, Open):
            entry = load_entry(self._project, request.entry)
            with blame_project(self._project, "loading this node's data"):
                self._data = entry.load(self._folder, request.settings)
            with blame_project(self._project, "making the learner"):
                self._learner = entry.learner(request.settings)
            return Answer(peak_mib=own_peak_mib())
        with blame_project(self._project, "training" if isinstance(request, Fit) else "evaluating"):
            return self._fit(request) if isinstance(request, Fit) else self._evaluate(request)

    def _fit(self, request: Fit) -> Answer:
        from reuna.core.tensors import pack

        learner, model = self._open(), self._model(request.model)
        trained, weight, metrics = learner.fit(model, self._data, request.settings, request.seed)
        if type(weight) is not int or weight < 1:
            raise LearnerError(f"fit returned {weight!r} samples, expected a whole number from 1 on")
        Path(request.out).write_bytes(pack(trained))
        return Answer(weight, _numbers(metrics), own_peak_mib())

    def _evaluate(self, request: Evaluate) -> Answer:
        metrics = self._open().evaluate(self._model(request.model), self._data, request.settings)
        return Answer(metrics=_numbers(metrics), peak_mib=own_peak_mib())

    def _open(self) -> Learner:
        if self._learner is None:
            raise LearnerError("the worker was asked to train before its project was opened")
        return self._learner

    def _model(self, path: str) -> Any:
        from reuna.core.tensors import unpack

        return unpack(Path(path).read_bytes())


def _numbers(metrics: Mapping[str, Any]) -> Metrics:
    try:
        return {str(name): float(value) for name, value in metrics.items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise LearnerError(f"metrics must be numbers by name: {error}") from error


def serve(sock: socket.socket, bench: Bench) -> None:
    """Answer requests until the parent is gone."""
    decoder = msgspec.msgpack.Decoder(Request)
    stream = sock.makefile("rwb")
    while len(head := stream.read(4)) == 4:
        length = int.from_bytes(head, "little")
        if length > MAX_FRAME:
            return
        answer = msgspec.msgpack.encode(bench.serve(decoder.decode(stream.read(length))))
        stream.write(len(answer).to_bytes(4, "little") + answer)
        stream.flush()


def main() -> int:
    """Entry of the worker: FD PROJECT DATA."""
    fd, project, data = sys.argv[1:4]
    serve(socket.socket(fileno=int(fd)), Bench(Path(project), Path(data)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
