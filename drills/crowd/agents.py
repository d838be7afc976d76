"""Many edges in one process: ``python -m drills.crowd.agents FLEET EDGE [EDGE...]``.

Each edge has its own settings file, certificate, policy, ledger, outbox, NATS connection and HTTPS
connections, and the parts that real edges have: the agent's `Trainer` speaks to the egress' `Egress`.
What is lighter than in a plant, so that the machine's time goes to fogs and cloud:

- Edges share a process. Agent and egress are no two processes, so calls between them cross no socket,
  and what blocks for a moment (a forced write) is not handed to a thread.
- The learner runs in the process instead of in a sandboxed worker. Policies for this drill therefore say
  that the project's code runs unconfined.
- Edges of one fog in a process share what is the same bytes for each of them: the fleet's metadata, the
  verification of a signed plan, the model in the cache.
- No edge takes releases, exports its ledger, counts what came down or renews its certificate; what became
  of what left is written to the ledger with the next entry, or after `FLUSH_S`.

It ends on SIGTERM, and with the process that started it.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import ssl
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from benchmarks.noop.noop.model import Noop
from drills.crowd.shared import Site, Sites
from reuna import __version__
from reuna.adapters.clock import SystemClock
from reuna.adapters.files import HeldBlob
from reuna.adapters.https_client import HttpsFreight
from reuna.adapters.nats_bus import NatsBus
from reuna.adapters.processes import end_with_parent
from reuna.adapters.spool import DiskSpool
from reuna.adapters.tls import client_context
from reuna.adapters.toml_file import read_toml
from reuna.core.bins import Counted
from reuna.core.contract import Line
from reuna.core.errors import BusDown
from reuna.core.fingerprint import Window
from reuna.core.ports import Blob
from reuna.core.records import Hello, Metrics, Setting, ShownHead, Terms
from reuna.core.settings import parse
from reuna.core.tensors import pack, unpack
from reuna.edge.agent import egress_settings
from reuna.edge.ready import Looked
from reuna.edge.settings import EDGE
from reuna.edge.train import Fitted, Trainer
from reuna.exchange.egress import Egress
from reuna.exchange.heads import HeadKeeper
from reuna.exchange.link import EgressSettings
from reuna.exchange.presence import Presence
from reuna.exchange.process import open_leftovers
from reuna.exchange.proofs import show
from reuna.exchange.site import open_site
from reuna.wire import OLDEST, VERSION

BEGIN_S = 0.02  #: between the begins of two edges, so that their handshakes do not all come at once
AWAY_S = 0.5  #: until the next try to reach a fog's server that is away
FLUSH_S = 10.0  #: what became of what left waits so long at most for an entry to go with
T = TypeVar("T")


class LightWorkshop:
    """The no-op learner in this very process."""

    lines: tuple[Line, ...] = ()
    bins: tuple[Counted, ...] = ()
    window: Window | None = None
    level = 0

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
        """A new dense update of the base model."""
        learner = shared(int(settings["params"]), float(settings["amplitude"]))
        tensors = unpack(model.read(0, model.size))
        made, weight, metrics = learner.fit(tensors, None, settings, seed)
        return Fitted(HeldBlob(pack(made), ""), weight, metrics)

    async def evaluate(self, model: Blob, settings: Mapping[str, Setting]) -> Metrics:
        """Nothing is measured."""
        return {}


_learners: dict[tuple[int, float], Noop] = {}


def shared(params: int, amplitude: float) -> Noop:
    """One learner for all edges: the numbers it draws from are the same in each anyway."""
    return _learners.setdefault((params, amplitude), Noop(params, amplitude, 0.0))


class Here:
    """The `Offload` port: at once, in the loop. A thread would cost more than what it does."""

    async def __call__(self, work: Callable[[], T]) -> T:
        return work()


async def live(file: Path, sites: Sites) -> None:
    """One edge, until cancelled."""
    settings = parse(EDGE, [read_toml(file)])
    folder = Path(settings["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    asked = egress_settings(settings, folder)
    site = sites.of(asked)
    tls = client_context(Path(asked.certificate), Path(asked.key), Path(asked.authority), asked.bus)
    bus = await connected(asked, tls)
    store = HttpsFreight(asked.freight_host, asked.freight_port, tls, site.models)
    try:
        await site.ready(store, bus, asked.name)
        await Light(site, asked, bus, store).live(settings["hello_s"])
    finally:
        await bus.close()
        await store.close()


async def connected(settings: EgressSettings, tls: ssl.SSLContext) -> NatsBus:
    """To the fog's server, however long it takes to appear."""
    while True:
        try:
            return await NatsBus.connect(settings.nats_url, tls, settings.name)
        except BusDown:
            await asyncio.sleep(AWAY_S)


class Light:
    """An edge that has its connections: hears plans, answers them, says that it is there, shows its ledger."""

    def __init__(self, site: Site, settings: EgressSettings, bus: NatsBus, store: HttpsFreight) -> None:
        folder, clock, here = Path(settings.folder), SystemClock(), Here()
        self._settings = settings
        self._own = open_site(settings, folder, clock)
        self._outbox = DiskSpool(folder / "outbox")
        own, parent = self._own, settings.parent_identity
        self._egress = Egress(
            settings.name,
            parent,
            bus,
            store,
            site.models,
            self._outbox,
            own.flows,
            clock,
            here,
            site.plan,
            site.guard.among,
            site.unsigned,
            open_leftovers(folder),
        )
        keys, every_s = site.guard.plan_keys, settings.heads_s
        self._heads = HeadKeeper(own.news, own.flows, parent, store, self._prove, keys, clock, here, every_s)
        self._trainer = Trainer(settings.name, "light", self._egress, LightWorkshop(), clock)

    async def live(self, hello_s: float) -> None:
        """Until cancelled."""
        await self._egress.listen(self._trainer.on_plan)
        parts = (Presence(self._say, hello_s).keep(), self._heads.keep(), self._flush())
        work = [asyncio.create_task(each) for each in parts]
        try:
            await asyncio.gather(*work)
        finally:
            for each in work:
                each.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            await self._trainer.stop()
            self._own.flows.close()
            self._own.news.ledger.close()
            self._outbox.close()

    async def _say(self, every_s: float) -> None:
        works_on = self._trainer.works_on
        hello = Hello(self._settings.name, "light", __version__, (), VERSION, OLDEST, every_s, works_on)
        await self._egress.hello(hello)

    def _prove(self, head: bytes) -> ShownHead:
        return show(head, self._own.key, Path(self._settings.certificate), Path(self._settings.key))

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self._own.flows.flush()


async def live_all(files: list[Path]) -> None:
    """Edges one after the other, then all of them until this process is to end."""
    over, sites = asyncio.Event(), Sites()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    tasks = []
    for file in files:
        tasks.append(asyncio.create_task(live(file, sites)))
        await asyncio.sleep(BEGIN_S)
    ending = asyncio.create_task(over.wait())
    await asyncio.wait([ending, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in (ending, *tasks):
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    await sites.close()
    for each in found:
        if isinstance(each, Exception):
            raise each


def more_files() -> None:
    """As many open files as this process may have: an edge has about ten."""
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
