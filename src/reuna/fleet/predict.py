"""Answers of a release for recordings: its code in a sandboxed worker, its graph run window by window.

    found = await predict(Asked(file, recordings, node))
    found.decided[0].answer, found.latency_ms["p99"]

The release is read whole and every digest checked. Its code and its graph are unpacked into a folder of
their own, which goes away afterwards; the worker sees that, the node's own tables and the recordings.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from reuna.adapters.data_folder import folder_tables
from reuna.adapters.project import unpack_bundle
from reuna.adapters.sandbox import SandboxLimits, sentence
from reuna.adapters.worker import Desk, Worker
from reuna.adapters.worker.messages import Answered, Answers
from reuna.core.bins import Counted, reference
from reuna.core.drift import Shift, shifts
from reuna.core.errors import (
    Corrupted,
    DataError,
    LearnerError,
    ReleaseNotFound,
    ReunaError,
    SandboxTooWeak,
    WorkerFailed,
)
from reuna.core.fallback import Decision, decide, fallback
from reuna.core.foreign import UNREADABLE
from reuna.core.outcomes import Window
from reuna.core.records import Setting
from reuna.fleet import release as releases
from reuna.wire import release as wire
from reuna.wire.release import Release

RECORDINGS = "test"  #: split of the folder that the project's load reads
PERCENTILES = {"p50": 50, "p95": 95, "p99": 99, "max": 100}


@dataclass(frozen=True)
class Asked:
    """A release's file; the recordings' folder; the node's own folder, by whose tables ``load`` scales.

    ``min_level``: of the sandbox, see `reuna.adapters.sandbox`. ``check_windows``: look first whether the
    features of a window are the same bits when ``load`` sees that window alone.
    """

    release: Path
    recordings: Path
    node: Path | None = None
    min_level: int = 0
    check_windows: bool = False


@dataclass(frozen=True)
class Predicted:
    """What came of it: windows in the order of recordings and time, and the decision on each.

    ``inputs``: how far each signal with reference bins has moved from the training.
    """

    release: Release
    answers: Answers
    decided: tuple[Decision, ...]
    inputs: tuple[Shift, ...]
    level: int

    @property
    def states(self) -> Counter[str]:
        """How many windows are answered as they are, answered after mending, or given the safe answer."""
        return Counter(_state(*each) for each in zip(self.answers.windows, self.decided, strict=True))

    @property
    def latency_ms(self) -> dict[str, float]:
        """Percentiles of one run of the graph, milliseconds; nothing when it never ran."""
        took = [each.took_ms for each in self.answers.windows if each.output]
        return {name: float(np.percentile(took, part)) for name, part in PERCENTILES.items()} if took else {}


async def predict(asked: Asked) -> Predicted:
    """Answer every window of the recordings.

    Raises `ReleaseNotFound`, `Untrusted` for a release that is not whole, `Corrupted`, `ContractBroken`,
    `DataError`, `LearnerError`, `ExtraMissing`, `SandboxTooWeak`, `WorkerFailed`.
    """
    if not asked.release.exists():
        raise ReleaseNotFound(f"there is no file {asked.release}")
    found = releases.read(asked.release)
    settings = wire.settings(found)
    with tempfile.TemporaryDirectory(prefix="reuna-predict-") as folder:
        answers, bins, level = await _ask(Path(folder), asked, found, settings)
    rules = fallback(settings)
    decided = tuple(
        decide(rules, each.output, each.window.why if each.window.state == "refused" else "")
        for each in answers.windows
    )
    return Predicted(found, answers, decided, shifts(_reference(found), bins), level)


async def _ask(
    folder: Path, asked: Asked, found: Release, settings: Mapping[str, Setting]
) -> tuple[Answers, Sequence[Counted], int]:
    desk = _set_out(folder, asked, found)
    log, out = folder / "worker.log", desk.made / "answers"
    worker = await Worker.start(desk, log, SandboxLimits())
    try:
        level = worker.level
        if level.number < asked.min_level:
            raise SandboxTooWeak(
                f"the sandbox reaches level {level.number}, {asked.min_level} is asked for; "
                f"missing: {sentence(level, asked.min_level)}"
            )
        with _own_names(desk):
            graph, check = desk.lent / wire.MODEL, asked.check_windows
            answer = await worker.predict(str(settings["entry"]), settings, graph, out, check)
        return read_answers(out), answer.bins, level.number
    finally:
        await worker.close()


def _set_out(folder: Path, asked: Asked, found: Release) -> Desk:
    """The worker's folders. Raises `DataError` for folders that hold no tables."""
    node, beside = folder / "node", []
    desk = Desk(folder / "project", node, folder / "lent", folder / "made")
    unpack_bundle(found.parts[wire.CODE], desk.project)
    for each in (node, desk.lent, desk.project):
        each.mkdir(exist_ok=True)
    (desk.lent / wire.MODEL).write_bytes(found.parts[wire.MODEL])
    for split, source in _splits(asked):
        (node / split).symlink_to(source)
        beside.append(source)
    return Desk(desk.project, node, desk.lent, desk.made, tuple(beside))


def _splits(asked: Asked) -> Iterator[tuple[str, Path]]:
    """Split -> folder, as the project's ``load`` is to see them: the node's own, and the recordings.

    Without a folder of the node's own, the one with the recordings may be such a folder itself.
    """
    node, tables = asked.node, folder_tables(asked.recordings)
    recordings = asked.recordings
    if "all" not in tables:
        if RECORDINGS not in tables:
            raise DataError(
                f"{recordings} has {' and '.join(tables)}, and no {RECORDINGS} with recordings to predict",
                "Name the folder in which the recordings lie with --data.",
            )
        node, recordings = node or recordings, recordings / RECORDINGS
    if node is not None:
        own = folder_tables(node)
        if "all" in own:
            raise DataError(
                f"{node} has no folder train", "Name the node's own folder, by whose tables it trained."
            )
        for split in own:
            if split != RECORDINGS:
                yield split, (node / split).resolve()
    yield RECORDINGS, recordings.resolve()


@contextmanager
def _own_names(desk: Desk) -> Iterator[None]:
    """An error names the files where they lie, and not the folder in which the worker finds them.

    What a project's ``load`` makes of recordings alone is most often that it misses the node's own tables.
    """
    try:
        yield
    except ReunaError as error:
        if isinstance(error, LearnerError) and {link.name for link in desk.data.iterdir()} == {RECORDINGS}:
            error.next_step = "Name the node's own folder, by whose tables the project scales, with --node."
        for link in desk.data.iterdir():
            error.message = error.message.replace(str(link), str(link.resolve()))
        raise


def read_answers(file: Path) -> Answers:
    """What the worker wrote; the project's code ran there, so it is read like anybody's.

    Raises `WorkerFailed`.
    """
    try:
        found = msgspec.msgpack.decode(file.read_bytes(), type=Answers)
    except (OSError, *UNREADABLE) as error:
        raise WorkerFailed(f"the worker's answers cannot be read: {error}") from error
    count = len(found.recordings)
    if len(found.rows) != count or not all(0 <= each.recording < count for each in found.windows):
        raise WorkerFailed("the worker's answers are of recordings that there are not")
    return found


def _reference(found: Release) -> tuple[Counted, ...]:
    try:
        return reference(msgspec.json.decode(found.parts[wire.BINS]))
    except (*UNREADABLE, ValueError) as error:
        raise Corrupted(
            f"{wire.BINS} of release {found.manifest.about.version} cannot be read: {error}",
            "Take it from where it was made again.",
        ) from error


def _state(each: Answered, decided: Decision) -> str:
    """``answered``, ``mended``, or ``safe``: the rules or the model left a doubt."""
    if decided.why:
        return "safe"
    return "mended" if each.window.state == "mended" else "answered"


def as_dict(found: Predicted) -> dict[str, Any]:
    """As `reuna predict --json` prints it."""
    about, answers = found.release.manifest.about, found.answers
    return {
        "release": found.release.digest,
        "project": about.project,
        "version": about.version,
        "sandbox": found.level,
        "recordings": dict(zip(answers.recordings, answers.rows, strict=True)),
        "states": dict(found.states),
        "latency_ms": found.latency_ms,
        "inputs": [msgspec.to_builtins(each) for each in found.inputs],
        "windows": [
            {
                "recording": answers.recordings[each.recording],
                "first_row": each.start + 1,
                "last_row": each.start + answers.length,
                "state": _state(each, decided),
                "answer": decided.answer,
                "why": decided.why or _mending(each.window),
                "output": [value if np.isfinite(value) else None for value in each.output],
            }
            for each, decided in zip(answers.windows, found.decided, strict=True)
        ],
    }


def _mending(window: Window) -> str:
    return window.why if window.state == "mended" else ""
