"""The edge node's long-running process. Holds no key and no socket to the network.

agent ──socket pair── egress ──TLS── fog
  ├────socket pair── reader ── machines (what comes is in the local store)
  ├────socket pair── worker (the project's code, sandboxed, resident during a run)
  └────socket pair── worker (a release that answers what is read, sandboxed)

Once egress and reader run the agent itself leaves the machine's network, before it loads anything that
starts threads; the worker is started from there.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from pathlib import Path
from typing import Any

from reuna import __version__
from reuna.adapters.clock import SystemClock
from reuna.adapters.sandbox import NotReached, leave_network_whole
from reuna.core.records import Event, Hello, Identity
from reuna.edge.reading import Job, ReaderProcess
from reuna.edge.settings import sandbox_limits
from reuna.exchange.child import EgressProcess
from reuna.exchange.link import EgressSettings
from reuna.exchange.presence import Presence
from reuna.wire import OLDEST, VERSION

log = logging.getLogger("reuna.edge")


async def run(settings: dict[str, Any], changes: asyncio.Queue[dict[str, Any]]) -> None:
    """Serve until cancelled. ``settings`` as `reuna.edge.settings.EDGE` parses them.

    Nothing of an edge changes while it runs: ``changes`` are not looked at.
    """
    folder = Path(settings["folder"]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    egress = EgressProcess(egress_settings(settings, folder))
    job = Job(settings["name"], settings["sources"], str(folder))
    reader = ReaderProcess(job) if settings["sources"] else None
    await egress.start()
    try:
        if reader is not None:
            await reader.start()
        _leave_network()
        await _serve(settings, folder, egress, job if reader else None)
    finally:
        if reader is not None:
            await reader.stop()
        await egress.stop()


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


async def _serve(settings: dict[str, Any], folder: Path, egress: EgressProcess, job: Job | None) -> None:
    from reuna.edge.train import Trainer  # brings numpy, whose threads would stay in the network
    from reuna.edge.workshop import WorkerWorkshop

    name, boot, clock = settings["name"], secrets.token_hex(4), SystemClock()
    workshop = WorkerWorkshop(
        folder / "work",
        Path(settings["data"]).absolute(),
        settings["idle_s"],
        sandbox_limits(settings),
        settings["sandbox.min_level"],
    )
    trainer = Trainer(name, boot, egress, workshop, clock)
    await egress.listen(trainer.on_plan)
    answering = None if job is None else _answering(settings, folder, egress, job)
    started = asyncio.create_task(egress.emit(Event(name, boot, 0, clock.now(), "started")))
    try:
        hello = Hello(name, boot, __version__, protocol=VERSION, oldest=OLDEST)
        presence = Presence(lambda: egress.hello(hello), settings["hello_s"]).keep()
        await asyncio.gather(presence, *([] if answering is None else [answering]))
    finally:
        started.cancel()
        if answering is not None:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
        await trainer.stop()
        await workshop.close()


def _answering(
    settings: dict[str, Any], folder: Path, egress: EgressProcess, job: Job
) -> asyncio.Task[None] | None:
    """What answers the sources' readings, if it is to. Raises `SettingsError`."""
    from reuna.edge.answering import keep_answering, place_of
    from reuna.edge.reader import declared

    sources, store = declared(job)
    if not settings["live.on"]:
        return None
    place = place_of(settings, folder, sandbox_limits(settings))
    return asyncio.create_task(keep_answering(place, egress, Path(store.folder), sources, SystemClock()))


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
    )
