"""The fog node's long-running process: serves its edges, and speaks to the cloud through its egress.

    edges ──TLS── gateway ──socket pair── egress ──TLS── cloud
            └─── nats-server: account SITE │ account OUT ──leaf link── the cloud's hub

The gateway and the edges use account SITE. The leaf link binds account OUT, to which the fog's
egress alone may publish.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from reuna import __version__
from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.adapters.files import FileBlobs
from reuna.adapters.https_server import serve_depot
from reuna.adapters.nats_bus import NatsBus
from reuna.adapters.nats_server import LeafConfig, NatsServer, find_server
from reuna.adapters.spool import DiskSpool
from reuna.adapters.tls import KeyPair, client_context, server_context
from reuna.adapters.trust_store import TrustStore
from reuna.core.errors import BadMessage, ReunaError
from reuna.core.records import Event, Hello, Identity
from reuna.exchange.child import EgressProcess
from reuna.exchange.intake import Intake
from reuna.exchange.link import EgressSettings
from reuna.fog.train import Combiner
from reuna.wire import decode

log = logging.getLogger("reuna.fog")


Changes = asyncio.Queue[dict[str, Any]]


async def run(settings: dict[str, Any], changes: Changes) -> None:
    """Serve until cancelled. ``settings`` as `reuna.fog.settings.FOG` parses them.

    Of each of ``changes`` the list of edges is taken over; nobody who stays is disconnected.
    """
    async with AsyncExitStack() as stack:
        await _run(settings, changes, stack)


async def _run(settings: dict[str, Any], changes: Changes, stack: AsyncExitStack) -> None:
    folder = Path(settings["folder"]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    name, boot, clock = settings["name"], secrets.token_hex(4), SystemClock()
    nats = await start_nats(settings, folder, stack)
    bus = await connect(settings, name)
    stack.push_async_callback(bus.close)
    egress = EgressProcess(egress_settings(settings, folder), str(folder / "egress.log"))
    blobs, spool = FileBlobs(folder / "blobs"), DiskSpool(folder / "spool")
    known = TrustStore(folder / "trust")  # the egress writes it, the edges read it
    intake = Intake(name, blobs, spool, egress.fetch, settings["announce_s"], metadata=known.file)
    combiner = Combiner(name, settings["edges"], egress, bus, intake, ThreadOffload())
    await egress.listen(combiner.on_plan)
    await egress.start()
    stack.push_async_callback(egress.stop)
    server = await serve_depot(
        intake, settings["listen.host"], settings["listen.freight_port"], _site_server_context(settings)
    )
    stack.push_async_callback(server.stop)
    stack.push_async_callback(combiner.stop)
    await bus.subscribe("hello.>", lambda _subject, data: _hello(combiner, data))
    await bus.follow("event.>", "up", lambda subject, data: _pass_event(egress, subject, data))
    taking = asyncio.create_task(_take_changes(changes, nats, combiner))
    stack.callback(taking.cancel)
    await egress.emit(Event(name, boot, 0, clock.now(), "started"))
    while True:
        await egress.hello(Hello(name, boot, __version__, combiner.present()))
        await clock.sleep(settings["hello_s"])


async def _take_changes(changes: Changes, nats: NatsServer, combiner: Combiner) -> None:
    """Take over edges that were added or removed, without dropping the others."""
    while True:
        settings = await changes.get()
        try:
            await nats.reload(leaf_config(settings))
        except ReunaError as error:
            log.error("edges stay as they were: %s", error)
            continue
        combiner.edges = frozenset(settings["edges"])
        log.info("edges are now %s", ", ".join(sorted(combiner.edges)))


async def _hello(combiner: Combiner, data: bytes) -> None:
    try:
        hello = decode(Hello, data)
    except BadMessage as error:
        log.warning("refused a hello: %s", error)
        return
    await combiner.on_hello(hello)


async def _pass_event(egress: EgressProcess, subject: str, data: bytes) -> None:
    """Re-encode an edge's event upwards. Done (and so forgotten here) when the cloud holds it."""
    try:
        event = decode(Event, data)
    except BadMessage as error:
        log.warning("refused an event on %s: %s", subject, error)
        return
    if subject == f"event.{event.node}":
        await egress.emit(event)


def _site_server_context(settings: dict[str, Any]) -> Any:
    return server_context(*_site(settings))


def _site(settings: dict[str, Any]) -> tuple[Path, Path, Path]:
    return (
        Path(settings["site.certificate"]),
        Path(settings["site.key"]),
        Path(settings["tls.authority"]),
    )


async def connect(settings: dict[str, Any], name: str) -> NatsBus:
    """The gateway's own connection to the site's server."""
    url = f"tls://{settings['listen.host']}:{settings['listen.nats_port']}"
    return await NatsBus.connect(url, client_context(*_site(settings)), name)


async def start_nats(settings: dict[str, Any], folder: Path, stack: AsyncExitStack) -> NatsServer:
    """The site's nats-server, kept running."""
    binary = find_server(Path(settings["nats_server"]) if settings["nats_server"] else None)
    server = NatsServer(binary, leaf_config(settings), folder / "nats")
    await server.start()
    stack.push_async_callback(server.stop)
    return server


def leaf_config(settings: dict[str, Any]) -> LeafConfig:
    """The site's server: account SITE for the edges, OUT for the link to the hub."""
    return LeafConfig(
        fleet=settings["fleet"],
        name=settings["name"],
        edges=tuple(settings["edges"]),
        host=settings["listen.host"],
        port=settings["listen.nats_port"],
        tls=KeyPair(*_site(settings)),
        hub=settings["parent.leaf"],
        uplink=KeyPair(
            Path(settings["tls.certificate"]), Path(settings["tls.key"]), Path(settings["tls.authority"])
        ),
    )


def egress_settings(settings: dict[str, Any], folder: Path) -> EgressSettings:
    """The egress's part of the fog's settings."""
    return EgressSettings(
        name=settings["name"],
        parent=settings["parent.name"],
        parent_identity=Identity(settings["fleet"], "cloud", settings["parent.name"]).uri,
        nats_url=f"tls://{settings['listen.host']}:{settings['listen.nats_port']}",
        freight_host=settings["parent.freight_host"],
        freight_port=settings["parent.freight_port"],
        certificate=settings["tls.certificate"],
        key=settings["tls.key"],
        authority=settings["tls.authority"],
        folder=str(folder),
        fleet=settings["fleet"],
        root=settings["root"],
        policy=settings["policy"],
    )
