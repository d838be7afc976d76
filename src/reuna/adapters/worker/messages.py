"""What parent and worker say to each other: requests, answers, and a worker's folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from reuna.adapters.sandbox import Room, SandboxLimits
from reuna.core.bins import Counted
from reuna.core.contract import Line
from reuna.core.outcomes import Window
from reuna.core.readiness import Module
from reuna.core.records import Metrics, Setting

MAX_FRAME = 4 << 20  #: bytes of one request or answer
MAX_MESSAGE = 4_000  #: characters of an error's text


@dataclass(frozen=True)
class Desk:
    """A worker's folders: the unpacked bundle, this node's data, models lent to it, what it makes.

    It reads the first three and writes the last, which is empty when it starts; nothing else of the
    node is in its sight.
    """

    project: Path
    data: Path
    lent: Path
    made: Path
    beside: tuple[Path, ...] = ()  #: what else it reads

    def room(self) -> Room:
        """The same for the sandbox."""
        read = (self.project, self.data, self.lent, *self.beside)
        return Room(tuple(str(path.absolute()) for path in read), str(self.made.absolute()))


class Start(msgspec.Struct, frozen=True):
    """What a worker is told on its command line."""

    project: str
    data: str
    room: Room
    limits: SandboxLimits


class Open(msgspec.Struct, tag=True):
    """Hold this node's data against the contract, import the project's entry and load the data.

    Without an ``entry`` no line of the project is read. ``modules``: look whether these are installed.
    """

    entry: str
    settings: dict[str, Setting]
    modules: tuple[Module, ...] = ()


class Fit(msgspec.Struct, tag=True):
    """Train from the model in a file and write the new one to another.

    A small model comes itself, as ``data``, and so does the one made of it: ``out`` is not written then.
    """

    model: str
    out: str
    settings: dict[str, Setting]
    seed: int
    data: bytes = b""


class Evaluate(msgspec.Struct, tag=True):
    """Metrics of the model in a file, or of a small one itself, as ``data``."""

    model: str
    settings: dict[str, Setting]
    data: bytes = b""


class Predict(msgspec.Struct, tag=True):
    """Run a graph on this node's recordings, those of the split ``test``; answers go to a file.

    ``entry``: of the project, whose ``load`` makes the features. ``check``: whether those of a window are the
    same bits when ``load`` sees that window alone.
    """

    entry: str
    graph: str
    out: str
    settings: dict[str, Setting]
    check: bool = False


class Stand(msgspec.Struct, tag=True):
    """Keep a release at hand: code, graph, and this node's own tables, held against the contract first."""

    entry: str
    graph: str
    settings: dict[str, Setting]


Cells = dict[str, tuple[bytes, bytes]]


class Ask(msgspec.Struct, tag=True):
    """Answer the windows of some rows of a sampling grid, with the release that stands.

    ``cells``: by signal its values, float64, and whether each is of good quality, one byte; little-endian.
    ``first_ns``: moment of the first row since the epoch. Of the first ``before`` only rules take notice.
    ``file``: has the cells instead, in MessagePack, where they are too many for a message.
    """

    first_ns: int
    rows: int
    before: int
    cells: Cells
    file: str = ""


class SelfTest(msgspec.Struct, tag=True):
    """Ask a graph its golden input: that in a file, else that of the release that stands."""

    graph: str = ""


class Answered(msgspec.Struct, frozen=True):
    """One window of a recording (its place among them) from row ``start`` on, and the graph's output.

    ``output`` is empty where the rules refused the window; ``took_ms``: one run of the graph. Of rows of a
    grid there is one recording, 0, and ``start`` is a row of these.
    """

    recording: int
    start: int
    window: Window
    output: list[float] = []
    took_ms: float = 0.0


class Answers(msgspec.Struct, frozen=True):
    """The file that a worker writes for `Predict`: names of recordings, their rows, all windows in order.

    ``length``: rows of a window.
    """

    recordings: list[str]
    rows: list[int]
    length: int
    windows: list[Answered]


class Answer(msgspec.Struct):
    """What came of a request; ``code`` is an error's.

    ``lines``: how the data keep the contract; ``bins``: how they are spread. ``missing`` and ``other``:
    modules asked for that are not installed, or of another version. ``samples``: of training, None where
    the project's data do not say. ``windows``: of `Ask`, with ``features_ms`` for the features of them all.
    ``model``: of `Fit`, where the one before came itself.
    """

    weight: int = 0
    metrics: Metrics = {}
    peak_mib: float = 0.0
    cpu_s: float = 0.0
    code: str = ""
    message: str = ""
    next_step: str = ""
    lines: tuple[Line, ...] = ()
    bins: tuple[Counted, ...] = ()
    missing: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    samples: int | None = None
    address_mib: float = 0.0
    windows: list[Answered] = []
    features_ms: float = 0.0
    model: bytes = b""


Request = Open | Fit | Evaluate | Predict | Stand | Ask | SelfTest


class FitResult(msgspec.Struct, frozen=True):
    """Samples behind the new model, the learner's metrics, the worker's peak memory so far.

    ``cpu_s`` is the processor time of this fit, reading and writing models included. ``model`` is the new
    model where the one before was handed over itself.
    """

    weight: int
    metrics: Metrics
    peak_mib: float
    cpu_s: float = 0.0
    model: bytes = b""
