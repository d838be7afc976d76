"""The worker's side: the project's learner and this node's data, asked for one thing after the other."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from reuna.adapters.processes import own_address_mib, own_peak_mib
from reuna.adapters.worker.messages import (
    MAX_MESSAGE,
    Answer,
    Ask,
    Evaluate,
    Fit,
    Open,
    Predict,
    Request,
    SelfTest,
    Stand,
)
from reuna.adapters.worker.modules import looked_for
from reuna.core.contract import contract
from reuna.core.data import Dataset
from reuna.core.errors import ExtraMissing, LearnerError, ReunaError
from reuna.core.gates import LATENCY, SIZE, WITHOUT, of_graph, stuck_sensors

if TYPE_CHECKING:
    from reuna.adapters.project import Entry
    from reuna.adapters.worker.live import Standing
    from reuna.core.ports import Learner, Tensors
    from reuna.core.records import Metrics


class Bench:
    """The worker's side: learner and data stay loaded from request to request, and the last model."""

    def __init__(self, project: Path, data: Path) -> None:
        self._project = project
        self._folder = data
        self._learner: Learner | None = None
        self._entry: Entry | None = None
        self._data: Any = None
        self._read: tuple[tuple[object, ...], Any] = ((), None)
        self._standing: Standing | None = None

    def serve(self, request: Request) -> Answer:
        """Carry out one request; errors of ours become an answer."""
        try:
            return self._carry_out(request)
        except ReunaError as error:
            return _refusal(error)

    def _carry_out(self, request: Request) -> Answer:
        from reuna.adapters.project import blame_project

        if isinstance(request, Open):
            return self._load(request)
        if isinstance(request, Predict):
            from reuna.adapters.worker.predict import predict

            return predict(self._project, self._folder, request)
        if isinstance(request, Stand | Ask | SelfTest):
            return self._stand(request)
        with blame_project(self._project, "training" if isinstance(request, Fit) else "evaluating"):
            return self._fit(request) if isinstance(request, Fit) else self._evaluate(request)

    def _stand(self, request: Stand | Ask | SelfTest) -> Answer:
        from reuna.adapters.worker.live import Standing, judge_graph

        if isinstance(request, SelfTest) and request.graph:
            return judge_graph(Path(request.graph))
        if isinstance(request, Stand):
            self._standing = Standing(self._project, self._folder, request)
            return Answer()
        if self._standing is None:
            raise LearnerError("the worker was asked to answer before a release stood")
        return self._standing.test() if isinstance(request, SelfTest) else self._standing.answer(request)

    def _load(self, request: Open) -> Answer:
        """Hold the data against the contract before a line of the project runs, which could count wrong."""
        from reuna.adapters.conformity import judge_folder

        missing, other = looked_for(request.modules)
        found = Answer(missing=missing, other=other)
        try:
            agreed = contract(request.settings)
            judged = judge_folder(self._folder, agreed)
            found.lines = judged.lines
            judged.refuse(agreed)
            if request.entry:
                self._set_up(request)
                found.bins = judged.bins
                train = self._data.train if isinstance(self._data, Dataset) else None
                found.samples = None if train is None else len(train)
        except ReunaError as error:
            found = _refusal(error, found)
        found.peak_mib, found.address_mib = own_peak_mib(), own_address_mib()
        return found

    def _set_up(self, request: Open) -> None:
        """Import the project, load this node's data, make the learner."""
        from reuna.adapters.project import blame_project, load_entry

        entry = load_entry(self._project, request.entry)
        with blame_project(self._project, "loading this node's data"):
            data = entry.load_judged(self._folder, request.settings)
        with blame_project(self._project, "making the learner"):
            self._learner, self._data = entry.learner(request.settings), data
        self._entry = entry

    def _fit(self, request: Fit) -> Answer:
        from reuna.core.answers import fitted
        from reuna.core.tensors import pack

        began = _cpu_s()
        learner, model = self._open(), self._model(request)
        trained, weight, metrics = learner.fit(model, self._data, request.settings, request.seed)
        numbers = fitted(model, trained, weight, metrics)
        made = pack(trained) if request.data else b""
        if not made:
            write_model(Path(request.out), trained)
        return Answer(weight, numbers, own_peak_mib(), _cpu_s() - began, model=made)

    def _evaluate(self, request: Evaluate) -> Answer:
        from reuna.core.answers import numbers

        began = _cpu_s()
        metrics = self._open().evaluate(self._model(request), self._data, request.settings)
        metrics = numbers({**metrics, **self._without_sensors(request), **self._of_graph(request)})
        return Answer(metrics=metrics, peak_mib=own_peak_mib(), cpu_s=_cpu_s() - began)

    def _of_graph(self, request: Evaluate) -> Metrics:
        """Size and latency here of the model as ONNX, if gates ask; nothing where ONNX is not installed."""
        wanted = of_graph(request.settings)
        if not wanted:
            return {}
        from reuna.adapters.onnx_export import latency_ms

        try:
            graph = self._open().export(self._model(request))
            found = {SIZE: len(graph) / 1024}
            if LATENCY in wanted:
                found[LATENCY] = latency_ms(graph)
        except ExtraMissing:
            return {}
        return {name: found[name] for name in wanted}

    def _without_sensors(self, request: Evaluate) -> Metrics:
        """What gates ask for besides: metrics of this node's data while one sensor is stuck.

        A project that reads its files by other means than `reuna.read_folder` has none: nothing of its
        sensors is known here.
        """
        found: Metrics = {}
        for sensor, wanted in stuck_sensors(request.settings).items():
            assert self._entry is not None
            data, known = self._entry.load_stuck(self._folder, request.settings, sensor)
            if known:
                again = self._open().evaluate(self._model(request), data, request.settings)
                found |= {f"{name}{WITHOUT}{sensor}": again[name] for name in wanted if name in again}
        return found

    def _open(self) -> Learner:
        if self._learner is None:
            raise LearnerError("the worker was asked to train before its project was opened")
        return self._learner

    def _model(self, request: Fit | Evaluate) -> Any:
        """The tensors of a model, or in its file; those of the last request when it is the very same."""
        from reuna.adapters.files import storage_error
        from reuna.core.tensors import unpack

        if request.data:
            if self._read[0] != (request.data,):
                self._read = ((request.data,), unpack(request.data))
            return dict(self._read[1])
        file = Path(request.model)
        try:
            status = file.stat()
            key = (request.model, status.st_ino, status.st_mtime_ns, status.st_size)
            if self._read[0] != key:
                self._read = ((), None)  # two models at once are one too many
                self._read = (key, unpack(file.read_bytes()))
        except OSError as error:
            raise storage_error(error, file) from error
        return dict(self._read[1])


def _refusal(error: ReunaError, found: Answer | None = None) -> Answer:
    """An error as the parent hears of it, with what was found before."""
    message, next_step = error.message[:MAX_MESSAGE], error.next_step[:MAX_MESSAGE]
    return msgspec.structs.replace(found or Answer(), code=error.code, message=message, next_step=next_step)


def write_model(path: Path, tensors: Tensors) -> None:
    """A model's file, in the format of `reuna.core.tensors`; whole under its name or not at all.

    A ``.part`` beside it is written over. It is not forced to the disk: the egress does that with what it
    makes of it. Raises `DiskFull`, and `LearnerError` for more than the sandbox lets into a file.
    """
    from reuna.adapters.files import storage_error
    from reuna.core.tensors import packed_parts

    part = path.with_name(f"{path.name}.part")
    parts = packed_parts(tensors)
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.writelines(parts)
            file.truncate()
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno == errno.EFBIG:
            raise LearnerError("the model is larger than a file may be in this node's sandbox") from error
        raise storage_error(error, path) from error


def _cpu_s() -> float:
    """Processor time of this process so far, seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
