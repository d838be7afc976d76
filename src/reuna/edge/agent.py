"""The edge node's long-running process. Holds no key and no socket to the network.

agent ──socket pair── egress ──TLS── fog
  ├────socket pair── reader ── machines (what comes is in the local store)
  ├────socket pair── worker (the project's code, sandboxed, resident during a run)
  └────socket pair── worker (a release, sandboxed; one more while another tests itself or is a shadow)

Where metrics are scraped the egress listens for that, on a socket that the agent opened and closed again.
Once egress and reader run the agent itself leaves the machine's network, before it loads anything that
starts threads; the worker is started from there.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import secrets
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuna import __version__
from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.adapters.processes import loading
from reuna.adapters.sandbox import NotReached, leave_network_whole
from reuna.adapters.sandbox.kernel import threads
from reuna.core.errors import ReunaError, StorageError
from reuna.core.records import Event, Hello, Identity
from reuna.edge.reading import Job, ReaderProcess
from reuna.exchange.board import keep_telling
from reuna.exchange.child import EgressProcess
from reuna.exchange.forked import fork_keeping
from reuna.exchange.kept import Companions, Keeping, start_keeping
from reuna.exchange.link import EgressSettings
from reuna.exchange.presence import Presence
from reuna.exchange.rounds import Rounds
from reuna.exchange.sandbox_settings import sandbox_limits
from reuna.exchange.small import keep_small
from reuna.wire import OLDEST, VERSION

if TYPE_CHECKING:
    from reuna.core.source_settings import AnySource, StoreSettings
    from reuna.edge.answering import Answering
    from reuna.edge.figures import EdgeFigures
    from reuna.edge.labelled import LabelledRows
    from reuna.edge.monitor import Monitor

log = logging.getLogger("reuna.edge")
#: Loaded before egress and reader are forked where a node reads machines: all three need numpy then.
READS = ("reuna.edge.reader",)
OWN = ("reuna.edge.train", "reuna.edge.workshop", "reuna.edge.releases")  #: what the agent alone needs
AGAIN_S = 60.0  #: until a store of answers that cannot be used is tried again


async def run(settings: dict[str, Any], changes: asyncio.Queue[dict[str, Any]]) -> None:
    """Serve until cancelled. ``settings`` as `reuna.edge.settings.EDGE` parses them.

    Nothing of an edge changes while it runs: ``changes`` are not looked at.
    """
    folder = Path(settings["folder"]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    listener = None
    if settings["metrics.listen"]:
        from reuna.adapters.exposition import listening  # others do not need it in memory

        listener = await listening(settings["metrics.listen"], SystemClock())
    egress = EgressProcess(egress_settings(settings, folder), listener)
    told = listener is not None
    job = Job(settings["name"], settings["sources"], str(folder), told)
    on_told = partial(_pass_on, egress) if told else None
    reads = bool(settings["sources"])
    parts = (egress, ReaderProcess(job, on_told)) if reads else (egress,)
    async with Companions(parts, _load_for_all(reads)):
        _leave_network()
        await _serve(settings, folder, egress, job if reads else None, told)


def _load_for_all(reads: bool) -> Keeping:
    """Load what agent, egress and reader need, once for all three; the way to start the other two.

    They are forks where that is safe: on Linux, and while no thread runs. What one of them alone needs it
    loads itself, afterwards: the others would hold the original of each page that it writes to.
    """
    if sys.platform != "linux" or threads() != 1:
        return start_keeping
    for name in READS if reads else ():
        importlib.import_module(name)
    return fork_keeping if threads() == 1 else start_keeping


def _leave_network() -> None:
    """Into a network namespace of its own, where kernel and rights allow it; the log says which."""
    try:
        leave_network_whole()
    except NotReached as error:
        log.warning(
            "agent: keeps the machine's network, for a namespace of its own was not reached: %s", error
        )
    else:
        log.info("agent: own network namespace")


async def _serve(
    settings: dict[str, Any], folder: Path, egress: EgressProcess, job: Job | None, told: bool
) -> None:
    with loading():
        for each in OWN:
            importlib.import_module(each)
    from reuna.edge.train import Trainer
    from reuna.edge.workshop import WorkerWorkshop

    name, boot, clock = settings["name"], secrets.token_hex(4), SystemClock()
    workshop = WorkerWorkshop(
        folder / "work",
        Path(settings["data"]).absolute(),
        settings["idle_s"],
        sandbox_limits(settings),
        settings["sandbox.min_level"],
    )
    rounds = Rounds(name, boot, egress.emit if settings["traces.on"] else None, clock)
    figures = _figures(settings, folder, rounds) if told else None
    rows = _labelled_rows(settings, boot, folder, egress)
    trainer = Trainer(name, boot, egress, workshop, clock, rounds, rows.trained if rows else None)
    hello = partial(Hello, name, boot, __version__, (), VERSION, OLDEST)
    presence = Presence(
        lambda every_s: egress.hello(hello(every_s, works_on=trainer.works_on)), settings["hello_s"]
    )
    await egress.listen(presence.answering(trainer.on_plan))
    beside = [
        asyncio.create_task(egress.emit(Event(name, boot, 0, clock.now(), "started"))),
        asyncio.create_task(_run_releases(settings, boot, folder, egress, job, figures)),
        asyncio.create_task(_send_answers(settings["sinks"], folder, egress)),
        asyncio.create_task(keep_small(clock)),
        *([asyncio.create_task(rows.keep())] if rows else []),
    ]
    if figures is not None:
        beside.append(asyncio.create_task(keep_telling("agent", figures.collect, egress.tell, clock)))
    try:
        await asyncio.gather(presence.keep(), *beside[1:])
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await trainer.stop()
        await workshop.close()


async def _pass_on(egress: EgressProcess, line: bytes) -> None:
    """What the reader says of itself, to the egress that shows it."""
    from reuna.edge.figures import told_by

    try:
        await egress.tell("reader", told_by(line))
    except ReunaError as error:
        log.warning("figures of the reader are not told: %s %s", error.code, error)


def _figures(settings: dict[str, Any], folder: Path, rounds: Rounds) -> EdgeFigures:
    """What this agent tells of itself. Raises `SettingsError`."""
    from reuna.edge.answering import ANSWERS
    from reuna.edge.figures import EdgeFigures
    from reuna.exchange.declared_sinks import declared

    sinks = [each.name for each in declared(settings["sinks"])] if settings["sinks"] else []
    return EdgeFigures(sinks, folder, folder / ANSWERS, rounds.worked)


def _labelled_rows(
    settings: dict[str, Any], boot: str, folder: Path, egress: EgressProcess
) -> LabelledRows | None:
    """What counts new labelled rows, None where none are to be."""
    if not settings["labelled_s"]:
        return None
    from reuna.edge.labelled import LabelledRows

    data, every_s = Path(settings["data"]).absolute(), settings["labelled_s"]
    return LabelledRows(
        settings["name"], boot, folder, data, every_s, egress.emit, SystemClock(), ThreadOffload()
    )


async def _run_releases(
    settings: dict[str, Any],
    boot: str,
    folder: Path,
    egress: EgressProcess,
    job: Job | None,
    figures: EdgeFigures | None = None,
) -> None:
    """Run what this node holds; a store that cannot be used is said in the log, and tried again.

    Raises `SettingsError`.
    """
    from reuna.edge.releases import Releases, bench_without_machine

    clock, limits = SystemClock(), sandbox_limits(settings)
    bench = bench_without_machine(limits, settings["sandbox.min_level"])
    sources, store = _declared(job)
    monitor = None if store is None or not settings["live.on"] else _monitor(settings, boot, folder, egress)
    while True:
        answering: Answering | None = None
        beside: list[asyncio.Task[None]] = []
        try:
            if store is not None and monitor is not None:
                from reuna.edge.answering import Answering, place_of  # others do not need it in memory

                work = monitor.tell(), _take_labels(settings["sources"], folder, monitor)
                beside += map(asyncio.create_task, work)
                watch = monitor.seen if figures is None else figures.also(monitor.seen)
                place = place_of(settings, folder, limits)
                answering = Answering(place, egress, Path(store.folder), sources, clock, watch, egress.advise)
                bench = answering.start, answering.asking
            releases = Releases(settings["name"], boot, folder, bench, egress.emit, clock)
            if figures is not None:
                figures.runs(releases.report, answering)
            await asyncio.gather(releases.run(), *beside)
        except StorageError as error:
            log.error("no release answers: %s %s %s", error.code, error, error.next_step)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            if answering is not None:
                answering.close()
        await clock.sleep(AGAIN_S)


def _monitor(settings: dict[str, Any], boot: str, folder: Path, egress: EgressProcess) -> Monitor:
    """What watches over releases that answer live."""
    from reuna.edge.monitor import Monitor  # others do not need it in memory

    data = Path(settings["data"]).absolute()
    return Monitor(settings["name"], boot, folder, data, egress.emit, SystemClock(), ThreadOffload())


def _declared(job: Job | None) -> tuple[tuple[AnySource, ...], StoreSettings | None]:
    """What this node reads and where it is kept; nothing where it reads nothing. Raises `SettingsError`."""
    if job is None:
        return (), None
    from reuna.edge.reader import declared  # others do not need it in memory

    return declared(job)


async def _take_labels(sources: str, folder: Path, monitor: Monitor) -> None:
    """Hold labels that come later against answers, where any are declared; a store that fails is tried again.

    Raises `SettingsError`.
    """
    from reuna.edge.answering import ANSWERS
    from reuna.edge.labels import declared, keep_all

    clock, found = SystemClock(), declared(sources)
    while found:
        try:
            await keep_all(found, folder, folder / ANSWERS, monitor, clock, ThreadOffload())
        except StorageError as error:
            log.error("no labels are taken: %s %s %s", error.code, error, error.next_step)
        await clock.sleep(AGAIN_S)


async def _send_answers(sinks: str, folder: Path, egress: EgressProcess) -> None:
    """Hand answers and alarms to the egress, for each sink of the file; without any, nothing is loaded.

    Raises `SettingsError`.
    """
    if not sinks:
        return
    from reuna.edge.answering import ANSWERS
    from reuna.edge.sinks import send_all
    from reuna.exchange.declared_sinks import declared

    await send_all(declared(sinks), folder, folder / ANSWERS, egress, SystemClock(), ThreadOffload())


def gateway_of(fleet: str, fog: str) -> Identity:
    """What a fog's own site calls it."""
    return Identity(fleet, "gateway", fog, fog)


def egress_settings(settings: dict[str, Any], folder: Path) -> EgressSettings:
    """The egress's part of the edge's settings."""
    return EgressSettings(
        name=settings["name"],
        parent=settings["parent.name"],
        parent_identity=gateway_of(settings["fleet"], settings["parent.name"]).uri,
        nats_url=settings["parent.nats"],
        freight_host=settings["parent.freight_host"],
        freight_port=settings["parent.freight_port"],
        certificate=settings["tls.certificate"],
        key=settings["tls.key"],
        authority=settings["tls.authority"],
        folder=str(folder),
        fleet=settings["fleet"],
        root=settings["root"],
        policy=settings["policy"],
        bus=("gateway", settings["parent.name"]),
        freight=("gateway", settings["parent.name"]),
        enrol=settings["enrol.parent"],
        heads_s=settings["heads_s"],
        dataset=settings["dataset"],
        sinks=settings["sinks"] and str(Path(settings["sinks"]).absolute()),
    )
