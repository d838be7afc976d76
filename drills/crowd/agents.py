"""Many edges in one process: ``python -m drills.crowd.agents FLEET EDGE [EDGE...]``.

Each edge is whole: its own settings file, certificate, policy, ledger, outbox, NATS connection and HTTPS
connections, and the egress that real edges have (`reuna.exchange.process.serve`), which the agent's own
`Trainer` speaks to over a socket pair. Only two things are lighter than in a plant: edges share a process,
and the learner runs in it instead of in a sandboxed worker. Policies for this drill therefore say that the
project's code runs unconfined.

It ends on SIGTERM, and with the process that started it.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.noop.noop.model import Noop
from reuna import __version__
from reuna.adapters.clock import SystemClock
from reuna.adapters.files import FileBlob
from reuna.adapters.processes import end_with_parent
from reuna.adapters.toml_file import read_toml
from reuna.core.bins import Counted
from reuna.core.contract import Line
from reuna.core.fingerprint import Window
from reuna.core.ports import Blob
from reuna.core.records import Hello, Metrics, Setting, Terms
from reuna.core.settings import parse
from reuna.core.tensors import pack, unpack
from reuna.edge.agent import egress_settings
from reuna.edge.ready import Looked
from reuna.edge.settings import EDGE
from reuna.edge.train import Fitted, Trainer
from reuna.exchange.link import Frames, RemoteLink
from reuna.exchange.presence import Presence
from reuna.exchange.process import serve
from reuna.wire import OLDEST, VERSION

THREADS = 4  #: of a process, for what blocks
BEGIN_S = 0.02  #: between the begins of two edges, so that their handshakes do not all come at once


class LightWorkshop:
    """The no-op learner in this very process."""

    lines: tuple[Line, ...] = ()
    bins: tuple[Counted, ...] = ()
    window: Window | None = None
    level = 0

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "weights"

    async def open(self, run: str, bundle: Blob, settings: Mapping[str, Setting], terms: Terms) -> None:
        """Nothing is to be made ready."""

    def hold(self, bundle: Blob, why: str) -> None:
        """Nobody looks at it here."""

    async def look(self, *_: object) -> Looked:
        """As of code that finds no fault."""
        return Looked()

    async def survey(self, terms: Terms) -> None:
        """There are no data to tell of."""

    async def fit(self, model: Blob, settings: Mapping[str, Setting], seed: int) -> Fitted:
        """A new dense update of the base model, in a file."""
        learner = shared(int(settings["params"]), float(settings["amplitude"]))
        tensors = unpack(model.read(0, model.size))
        made, weight, metrics = learner.fit(tensors, None, settings, seed)
        data = pack(made)
        self._file.write_bytes(data)
        return Fitted(FileBlob(self._file, "", len(data)), weight, metrics)

    async def evaluate(self, model: Blob, settings: Mapping[str, Setting]) -> Metrics:
        """Nothing is measured."""
        return {}


_learners: dict[tuple[int, float], Noop] = {}


def shared(params: int, amplitude: float) -> Noop:
    """One learner for all edges: the numbers it draws from are the same in each anyway."""
    return _learners.setdefault((params, amplitude), Noop(params, amplitude, 0.0))


async def live(file: Path) -> None:
    """One edge, until cancelled."""
    settings = parse(EDGE, [read_toml(file)])
    folder = Path(settings["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    egress = asyncio.create_task(serve(egress_settings(settings, folder), theirs))
    frames = await Frames.over(ours)
    link = RemoteLink(frames)
    name = settings["name"]
    trainer = Trainer(name, "light", link, LightWorkshop(folder), SystemClock())
    await link.listen(trainer.on_plan)
    answering = asyncio.create_task(link.run())

    async def say(every_s: float) -> None:
        await link.hello(Hello(name, "light", __version__, (), VERSION, OLDEST, every_s, trainer.works_on))

    saying = asyncio.create_task(Presence(say, settings["hello_s"]).keep())
    try:
        await asyncio.wait([egress, answering, saying], return_when=asyncio.FIRST_COMPLETED)
        for each in (egress, answering, saying):
            if each.done():
                each.result()
    finally:
        saying.cancel()
        await trainer.stop()
        frames.close()  # the egress ends with its place
        await asyncio.gather(egress, answering, saying, return_exceptions=True)


async def live_all(files: list[Path]) -> None:
    """Edges one after the other, then all of them until this process is to end."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS, "offload"))
    over = asyncio.Event()
    tasks = []
    for file in files:
        tasks.append(asyncio.create_task(live(file)))
        await asyncio.sleep(BEGIN_S)
    loop.add_signal_handler(signal.SIGTERM, over.set)  # an egress has taken it for itself alone
    ending = asyncio.create_task(over.wait())
    await asyncio.wait([ending, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in (ending, *tasks):
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    for each in found:
        if isinstance(each, Exception):
            raise each


def more_files() -> None:
    """As many open files as this process may have: an edge has about twenty."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    """Entry of the process."""
    end_with_parent()
    more_files()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    fleet, *names = sys.argv[1:]
    asyncio.run(live_all([Path(fleet) / name / "edge.toml" for name in names]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
