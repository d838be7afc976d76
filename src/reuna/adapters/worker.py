"""The training process: the project's code, resident during a run, with no key and no socket.

Parent and worker speak length-prefixed msgpack over an inherited socket pair; models pass as
files. BLAS runs with one thread, so that the same seed gives the same bits. The worker ends
when its parent is gone. What the project prints goes to the node's log.

    worker = await Worker.start(project, data, log)
    await worker.open("detector.model", settings)
    result = await worker.fit(model, settings, seed, out)      # the new model lies in `out`

`InlineWorker` does the same in this process, for a notebook; nothing holds its code back.
"""

from __future__ import annotations

import asyncio
import math
import os
import resource
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
    from reuna.core.ports import Learner, Tensors

MAX_FRAME = 4 << 20  #: bytes of one request or answer
MAX_METRICS = 64
MAX_MESSAGE = 4_000  #: characters of an error's text
LOG_LINES = 8
LOG_TAIL = 16_384  #: bytes of a log that are looked at
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
ONE_THREAD = dict.fromkeys(_THREADS, "1")
#: The memory of one round serves the next: the system is not asked for fresh pages each time (bytes).
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 28), "MALLOC_TRIM_THRESHOLD_": str(1 << 28)}
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
    cpu_s: float = 0.0
    code: str = ""
    message: str = ""
    next_step: str = ""


Request = Open | Fit | Evaluate


class FitResult(msgspec.Struct, frozen=True):
    """Samples behind the new model, the learner's metrics, the worker's peak memory so far.

    ``cpu_s`` is the processor time of this fit, reading and writing models included.
    """

    weight: int
    metrics: Metrics
    peak_mib: float
    cpu_s: float = 0.0


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
        try:
            process = await _spawn(theirs, project, data, log)
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
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
        return _result(await self._ask(Fit(str(model), str(out), dict(settings), seed)))

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
        return _checked(answer)

    async def _exchange(self, request: Request) -> Answer:
        data = msgspec.msgpack.encode(request)
        if len(data) > MAX_FRAME:
            self._broken = False  # nothing was sent
            raise LearnerError(f"the settings take {len(data)} bytes, {MAX_FRAME} are allowed")
        try:
            self._writer.write(len(data).to_bytes(4, "little") + data)
            length = int.from_bytes(await self._reader.readexactly(4), "little")
            if length > MAX_FRAME:
                raise WorkerFailed(f"the worker sent a frame of {length} bytes")
            return msgspec.msgpack.decode(await self._reader.readexactly(length), type=Answer)
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError) as error:
            raise WorkerFailed(f"the worker ended:\n{last_lines(self._log)}") from error


async def _spawn(theirs: socket.socket, project: Path, data: Path, log: Path) -> asyncio.subprocess.Process:
    """The worker's process; of our descriptors it gets one end of the pair and the log."""
    with log.open("ab") as out:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # the folder we happen to stand in is no place for modules
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


class InlineWorker:
    """A `Worker` without a process: the learner runs here, in the event loop's thread.

    For notebooks and simulations, where the code is one's own: a crash is a crash of ours.
    """

    alive = True

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.pid = os.getpid()

    @classmethod
    async def start(
        cls,
        project: Path,
        data: Path,
        log: Path | None = None,  # noqa: ARG003 - so that both start alike
    ) -> InlineWorker:
        """As `Worker.start`; what the project prints goes where this process prints."""
        return cls(Bench(project, data))

    @classmethod
    def of(cls, learner: Learner, data: Any) -> InlineWorker:
        """Over a learner and data at hand; needs no `open`."""
        bench = Bench(Path(), Path())
        bench.hold(learner, data)
        return cls(bench)

    async def open(self, entry: str, settings: Mapping[str, Setting]) -> None:
        """As `Worker.open`."""
        self._ask(Open(entry, dict(settings)))

    async def fit(self, model: Path, settings: Mapping[str, Setting], seed: int, out: Path) -> FitResult:
        """As `Worker.fit`."""
        return _result(self._ask(Fit(str(model), str(out), dict(settings), seed)))

    async def evaluate(self, model: Path, settings: Mapping[str, Setting]) -> Metrics:
        """As `Worker.evaluate`."""
        return self._ask(Evaluate(str(model), dict(settings))).metrics

    async def close(self) -> None:
        """Nothing is left running."""

    def _ask(self, request: Request) -> Answer:
        return _checked(self._bench.serve(request))


def _checked(answer: Answer) -> Answer:
    """The answer, or the error that it carries."""
    if answer.code:
        raise _error(answer)
    return answer


def _result(answer: Answer) -> FitResult:
    return FitResult(answer.weight, answer.metrics, answer.peak_mib, answer.cpu_s)


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a worker may see of the environment: no secrets, one BLAS thread."""
    kept = {name: environ[name] for name in PASSED_ON if name in environ}
    coretype = {name: value for name, value in environ.items() if name.startswith("OPENBLAS_")}
    return {**kept, **coretype, **ONE_THREAD, **KEEP_MEMORY, "PYTHONDONTWRITEBYTECODE": "1"}


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


# --- in the worker -------------------------------------------------------------------------------


class Bench:
    """The worker's side: learner and data stay loaded from request to request, and the last model."""

    def __init__(self, project: Path, data: Path) -> None:
        self._project = project
        self._folder = data
        self._learner: Learner | None = None
        self._data: Any = None
        self._read: tuple[tuple[object, ...], Any] = ((), None)

    def hold(self, learner: Learner, data: Any) -> None:
        """Work with these from now on."""
        self._learner, self._data = learner, data

    def serve(self, request: Request) -> Answer:
        """Carry out one request; errors of ours become an answer."""
        try:
            return self._carry_out(request)
        except ReunaError as error:
            message = error.message[:MAX_MESSAGE]
            return Answer(code=error.code, message=message, next_step=error.next_step[:MAX_MESSAGE])

    def _carry_out(self, request: Request) -> Answer:
        from reuna.adapters.project import blame_project

        if isinstance(request, Open):
            return self._load(request)
        with blame_project(self._project, "training" if isinstance(request, Fit) else "evaluating"):
            return self._fit(request) if isinstance(request, Fit) else self._evaluate(request)

    def _load(self, request: Open) -> Answer:
        from reuna.adapters.project import blame_project, load_entry

        entry = load_entry(self._project, request.entry)
        with blame_project(self._project, "loading this node's data"):
            data = entry.load(self._folder, request.settings)
        with blame_project(self._project, "making the learner"):
            self.hold(entry.learner(request.settings), data)
        return Answer(peak_mib=own_peak_mib())

    def _fit(self, request: Fit) -> Answer:
        from reuna.core.tensors import layout_of

        began = _cpu_s()
        learner, model = self._open(), self._model(request.model)
        trained, weight, metrics = learner.fit(model, self._data, request.settings, request.seed)
        if type(weight) is not int or weight < 1:
            raise LearnerError(f"fit returned {weight!r} samples, expected a whole number from 1 on")
        if layout_of(trained) != layout_of(model):
            raise LearnerError("fit returned tensors of other names or shapes than it was given")
        numbers = _numbers(metrics)
        write_model(Path(request.out), trained)
        return Answer(weight, numbers, own_peak_mib(), _cpu_s() - began)

    def _evaluate(self, request: Evaluate) -> Answer:
        began = _cpu_s()
        metrics = self._open().evaluate(self._model(request.model), self._data, request.settings)
        return Answer(metrics=_numbers(metrics), peak_mib=own_peak_mib(), cpu_s=_cpu_s() - began)

    def _open(self) -> Learner:
        if self._learner is None:
            raise LearnerError("the worker was asked to train before its project was opened")
        return self._learner

    def _model(self, path: str) -> Any:
        """The tensors in a file; those of the last request when the file is the very same."""
        from reuna.adapters.files import storage_error
        from reuna.core.tensors import unpack

        file = Path(path)
        try:
            status = file.stat()
            key = (path, status.st_ino, status.st_mtime_ns, status.st_size)
            if self._read[0] != key:
                self._read = ((), None)  # two models at once are one too many
                self._read = (key, unpack(file.read_bytes()))
        except OSError as error:
            raise storage_error(error, file) from error
        return dict(self._read[1])


def write_model(path: Path, tensors: Tensors) -> None:
    """A model's file, in the format of `reuna.core.tensors`; whole under its name or not at all.

    It is not forced to the disk: the egress does that with what it makes of it. Raises `DiskFull`.
    """
    from reuna.adapters.files import storage_error
    from reuna.core.tensors import packed_parts

    part = path.with_name(f"{path.name}.part")
    parts = packed_parts(tensors)
    try:
        with part.open("wb") as file:
            file.writelines(parts)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise storage_error(error, path) from error


def _cpu_s() -> float:
    """Processor time of this process so far, seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _numbers(metrics: Mapping[str, Any]) -> Metrics:
    """Metrics as the port promises them: at most 64 finite numbers by name."""
    try:
        found = {str(name): float(value) for name, value in metrics.items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise LearnerError(f"metrics must be numbers by name: {error}") from error
    wrong = [name for name, value in found.items() if not math.isfinite(value)]
    if wrong:
        raise LearnerError(f"the metric {wrong[0]!r} is {found[wrong[0]]}, expected a finite number")
    if len(found) > MAX_METRICS:
        raise LearnerError(f"the learner gave {len(found)} metrics, {MAX_METRICS} are allowed")
    return found


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
