"""The cloud's long-running process: the hub's nats-server, the freight server, the journal, the API.

It publishes and the nodes pull; it never reaches into a device.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.alarm_channels import channels_of
from reuna.adapters.audit import AuditTrail
from reuna.adapters.certificates import flaw, read_chain
from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.adapters.events import EventLog
from reuna.adapters.head_store import HeadStore
from reuna.adapters.https_server import DepotServer, serve_depot
from reuna.adapters.journal_dbos import DbosHost
from reuna.adapters.nats_bus import NatsBus
from reuna.adapters.nats_server import HubConfig, NatsServer, find_server
from reuna.adapters.operator_api import serve_api
from reuna.adapters.people import PeopleStore
from reuna.adapters.register import Alarm, Register
from reuna.adapters.spool import DiskSpool
from reuna.adapters.threads import Threads
from reuna.adapters.tls import KeyPair, client_context, server_context
from reuna.cloud.actions import Coordinator
from reuna.cloud.builds import Builds
from reuna.cloud.check import Checks
from reuna.cloud.files import ALARMS, AUDIT, EVENTS, HEADS, PEOPLE, TRIGGERS
from reuna.cloud.hearing import take_event, take_hello, take_roster
from reuna.cloud.holdings import Holdings
from reuna.cloud.plan import Planner
from reuna.cloud.reception import Reception
from reuna.cloud.sign import Signing
from reuna.cloud.sign_ins import SignIns
from reuna.cloud.stock import Stock
from reuna.cloud.traces import traces_of
from reuna.cloud.train import Conductor, Outcome
from reuna.cloud.witness import CloudWitness
from reuna.core.alarm_board import board_of
from reuna.core.errors import (
    ReunaError,
    SettingsError,
)
from reuna.core.ports import Clock, Journal, Offload
from reuna.core.records import Event, RunSpec, Setting
from reuna.exchange.admission import Admission
from reuna.exchange.door import Door
from reuna.exchange.intake import Intake
from reuna.exchange.news import NewsDesk, Published
from reuna.exchange.parent import address_of, host_of
from reuna.exchange.room import STORE, tell_durability, when_there_is_room
from reuna.exchange.roster import Rosters
from reuna.exchange.storage import blobs_of, server_of, tables_of
from reuna.exchange.stored import keep_stored
from reuna.trust.enrolment import Invite
from reuna.trust.oidc import read_rules
from reuna.trust.people import FOUR_EYES

log = logging.getLogger("reuna.cloud")
PRUNE_S = 86_400.0  #: how often events past their time are forgotten
ROUND_THREADS = 8  #: for what blocks in rounds; one is open at a time, and others may be told of


Changes = asyncio.Queue[dict[str, Any]]


async def run(settings: Mapping[str, Any], changes: Changes) -> None:
    """Serve until cancelled. ``settings`` as `reuna.cloud.settings.CLOUD` parses them.

    Of each of ``changes`` the list of fogs is taken over, and so is the register, by itself; nobody
    who stays is disconnected.
    """
    async with AsyncExitStack() as stack:
        await _run(settings, changes, stack)


async def _run(settings: Mapping[str, Any], changes: Changes, stack: AsyncExitStack) -> None:
    folder = Path(settings["folder"]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    name, clock = settings["name"], SystemClock()
    door = Door(settings, "fog", folder, lambda invite: settings_of_a_fog(settings, invite))
    stack.callback(door.register.close)
    nats = await start_nats(settings, folder, door.admission.names, stack)
    serving = server_context(*_tls(settings), flaw=flaw)
    dialling = client_context(*_tls(settings), ("cloud", name))
    contexts = [serving, dialling]
    bus = await NatsBus.connect(_nats_url(settings), dialling, name)
    stack.push_async_callback(bus.close)
    blobs = await ThreadOffload()(lambda: blobs_of(settings, folder / "blobs"))
    spool = DiskSpool(folder / "spool")
    events = EventLog(tables_of(settings, EVENTS))
    stack.callback(events.close)
    host = DbosHost(folder / "journal", server=server_of(settings, "journal"))
    signing = Signing(Path(settings["trust"]), clock)
    stock = Stock(signing.repository, Path(settings["trust"]) / "targets", ThreadOffload())
    holdings = Holdings(stock, events, door.register, ThreadOffload())
    coordinator = Coordinator(
        name, blobs, events, host, door.admission, holdings, Builds(folder / "builds", clock)
    )
    metadata, announce_s = signing.repository.file, settings["announce_s"]
    intake = Intake(name, blobs, spool, None, announce_s, metadata=metadata, released=stock.get)
    planner = Planner(bus, intake, signing.seal)
    conductor = Conductor(
        name, planner, intake, blobs, clock, _threads(coordinator, stack), coordinator.report
    )
    _take_up(
        settings,
        coordinator,
        conductor,
        Checks(name, planner, intake, conductor.turn, ThreadOffload()),
        stack,
        partial(coordinator.rolling_out, signing, stock),
    )
    reception = _reception(settings, folder, door.register, stack)
    coordinator.triggering(folder / TRIGGERS, clock, reception)
    server = await serve_depot(
        intake,
        settings["listen.host"],
        settings["listen.freight_port"],
        serving,
        admit=door.admission.admit,
        witness=_witness(settings, signing, door.register, events, stack, coordinator),
    )
    stack.push_async_callback(server.stop)
    await bus.follow("event.>", "cloud", partial(take_event, coordinator, door.admission, events))
    published = _trace(settings, coordinator, stock, stack)
    news = _news(settings, bus, door, holdings, stack, published)
    who = door.admission, coordinator.presence, Rosters(bus, clock, coordinator.presence.below)
    await bus.subscribe("hello.>", partial(take_hello, *who, coordinator.is_of, planner, news))
    await bus.subscribe("roster.>", partial(take_roster, *who))
    await host.start()
    stack.push_async_callback(host.stop)
    stack.callback(tell_durability, log, {"spool": spool, "events": events, "journal": host})
    ports = {settings["listen.api_port"]: serving}
    if settings["listen.people_port"]:
        ports[settings["listen.people_port"]] = for_people = server_context(
            *_tls(settings), client=False, flaw=flaw
        )
        contexts.append(for_people)
    sign_ins = _sign_ins(settings, reception, clock)
    api = await serve_api(coordinator, reception, sign_ins, settings["listen.host"], ports)
    stack.push_async_callback(api.stop)
    desk = Desk(settings, nats, bus, server, door.admission)
    await _keep(door, settings, contexts, desk, coordinator, stack)
    for work in (
        _take_changes(changes, door.admission),
        signing.keep_fresh(),
        coordinator.triggers.keep(),
    ):
        stack.callback(asyncio.create_task(work).cancel)
    log.info("ready")
    await _first_end(_prune(events, clock), host.guard())


async def _keep(
    door: Door,
    settings: Mapping[str, Any],
    contexts: list[ssl.SSLContext],
    desk: Desk,
    coordinator: Coordinator,
    stack: AsyncExitStack,
) -> None:
    """Take in and renew, until the stack closes; fogs vouch for sites under those that they tell of."""
    door.over = coordinator.over
    await door.keep(_tls(settings), contexts, desk.on_names, desk.on_files, stack)


async def _prune(events: EventLog, clock: Clock) -> None:
    """Forget events past their time, each day."""
    while True:
        prune = partial(ThreadOffload(), lambda: events.prune(clock.now()))
        await when_there_is_room(prune, clock, log, waits=STORE)
        await clock.sleep(PRUNE_S)


async def _first_end(*works: Coroutine[Any, Any, None]) -> None:
    """Work that has no end, until one of it raises."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()


def _threads(coordinator: Coordinator, stack: AsyncExitStack) -> Threads:
    """For what blocks in a round; they end after the runs."""
    coordinator.offload = threads = Threads(ROUND_THREADS, "round")
    stack.push_async_callback(threads.close)
    return threads


def _news(
    settings: Mapping[str, Any],
    bus: NatsBus,
    door: Door,
    holdings: Holdings,
    stack: AsyncExitStack,
    published: Callable[[], None],
) -> NewsDesk:
    """Tells fogs of new metadata, which another process may publish, for as long as the cloud runs."""
    timestamp = Path(settings["trust"]) / "public" / "timestamp.json"
    version = Published(timestamp, timestamp).version
    news = NewsDesk(bus, version, lambda: door.admission.names, SystemClock())

    def told() -> None:
        holdings.turn.on()
        published()

    stack.callback(asyncio.create_task(news.keep(told)).cancel)
    return news


def _reception(
    settings: Mapping[str, Any], folder: Path, register: Register, stack: AsyncExitStack
) -> Reception:
    """It notes that the cloud starts, and what needs two people."""
    asked = _four_eyes(settings)
    store = PeopleStore(tables_of(settings, PEOPLE))
    stack.callback(store.close)
    reception = Reception(store, AuditTrail(folder / AUDIT), SystemClock(), register, asked)
    reception.note("-", "machine", "cloud.start", "allowed", four_eyes=", ".join(asked) or "nothing")
    return reception


def _four_eyes(settings: Mapping[str, Any]) -> Collection[str]:
    """Raises `SettingsError` for an action that no second person can be asked for."""
    asked: list[str] = settings["four_eyes"]
    unknown = sorted(set(asked) - set(FOUR_EYES))
    if unknown:
        raise SettingsError(f"four_eyes: {unknown[0]!r} is not one of {', '.join(FOUR_EYES)}")
    return asked


def _sign_ins(settings: Mapping[str, Any], reception: Reception, clock: Clock) -> SignIns | None:
    """Those at an identity provider, where the settings name one. Raises `SettingsError`."""
    if not settings["oidc.issuer"]:
        return None
    from reuna.adapters.identity_provider import IdentityProvider, read_secret

    rules, file, authority = read_rules(settings), settings["oidc.secret_file"], settings["oidc.authority"]
    secret = read_secret(Path(file)) if file else ""
    provider = IdentityProvider(rules.issuer, rules.client_id, secret, Path(authority) if authority else None)
    return SignIns(reception, provider, rules, " ".join(settings["oidc.scopes"]), clock)


def _witness(
    settings: Mapping[str, Any],
    signing: Signing,
    register: Register,
    events: EventLog,
    stack: AsyncExitStack,
    coordinator: Coordinator,
) -> CloudWitness:
    """Countersigns the heads of the nodes' ledgers; a rewritten one is an alarm and an event."""
    clock, store = SystemClock(), HeadStore(tables_of(settings, HEADS))
    stack.callback(store.close)
    root = read_chain(Path(settings["tls.authority"]).read_bytes())[0]

    def alarm(node: str, ledger: str, seq: int, what: str) -> None:
        log.error("alarm: %s: %s", node, what)
        if register.alarm(Alarm(node, f"ledger {ledger} {seq}", clock.now(), what)):
            fields: dict[str, Setting] = {"node": node, "index": seq, "ledger": ledger, "message": what}
            boot = f"ledgers/{node}/{ledger}"
            events.record(Event(settings["name"], boot, seq, clock.now(), "ledger rewritten", fields=fields))

    def revoked(name: str) -> bool:
        node = register.node(name)
        return node is not None and node.revoked is not None

    return CloudWitness(
        settings["fleet"],
        root,
        store,
        signing.key,
        revoked,
        alarm,
        clock,
        ThreadOffload(),
        coordinator.is_fog,
    )


def _take_up(
    settings: Mapping[str, Any],
    coordinator: Coordinator,
    conductor: Conductor,
    checks: Checks,
    stack: AsyncExitStack,
    rolling_out: Callable[[Clock, Offload], None],
) -> None:
    """Let runs, rollouts and checks begin; read what nodes watch, and send word of alarms."""
    rolling_out(SystemClock(), ThreadOffload())
    file = Path(settings["folder"]).absolute() / ALARMS
    telling = coordinator.watching(file, channels_of(settings), SystemClock())
    stack.callback(asyncio.create_task(telling).cancel)
    if board := board_of(settings):
        from reuna.adapters.mqtt.alarm_board import AlarmBoard

        stack.callback(
            asyncio.create_task(AlarmBoard(board, coordinator.monitor, SystemClock()).run()).cancel
        )
    coordinator.host.register("train", lambda journal, spec: _body(coordinator, conductor, journal, spec))
    coordinator.checks = checks
    stack.push_async_callback(checks.stop)


async def _body(coordinator: Coordinator, conductor: Conductor, journal: Journal, text: str) -> Outcome:
    spec = msgspec.json.decode(text, type=RunSpec)
    coordinator.runs_over(spec)
    began = SystemClock().now()
    try:
        outcome = await conductor.body(journal, spec)
        if spec.build:  # of a run from a folder the cloud knows no gates
            outcome["gates"] = await journal.step("gates", lambda: coordinator.judge(spec, outcome))
    except ReunaError as error:
        await coordinator.ended(spec, began, error.code)
        raise
    await coordinator.ended(spec, began)
    return outcome


def _trace(
    settings: Mapping[str, Any], coordinator: Coordinator, stock: Stock, stack: AsyncExitStack
) -> Callable[[], None]:
    """Have runs traced where the settings say so; what is to be called when metadata were published."""
    traces = coordinator.traces = traces_of(settings, coordinator.sites)
    if traces is None:
        return lambda: None
    stack.push_async_callback(ThreadOffload(), traces.close)
    traces.known(stock)
    looking: set[asyncio.Task[None]] = set()

    def published() -> None:
        task = asyncio.create_task(traces.published(stock, SystemClock().now()))
        looking.add(task)
        task.add_done_callback(looking.discard)

    return published


class Desk:
    """What follows when fogs come or go, or the cloud's certificate is renewed."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        nats: NatsServer,
        bus: NatsBus,
        server: DepotServer,
        admission: Admission,
    ) -> None:
        self._settings = settings
        self._nats = nats
        self._bus = bus
        self._server = server
        self._admission = admission

    async def on_names(self, before: frozenset[str], names: frozenset[str]) -> None:
        """The hub's reload leaves a leaf link open, so the links of who is gone are ended by name."""
        self._server.recheck()
        await self._nats.reload(hub_config(self._settings, names))
        for name in sorted(before - names):
            await self._bus.disconnect(self._admission.identity(name).uri)

    async def on_files(self) -> None:
        await self._nats.reload(hub_config(self._settings, self._admission.names))


async def _take_changes(changes: Changes, admission: Admission) -> None:
    """Take over fogs that were added to or removed from the settings file."""
    while True:
        admission.listed = frozenset((await changes.get())["fogs"])


def settings_of_a_fog(settings: Mapping[str, Any], invite: Invite) -> dict[str, Any]:
    """What a machine that becomes a fog here needs to know."""
    host = host_of(settings)
    return {
        "fleet": settings["fleet"],
        "root_json": (Path(settings["trust"]) / "root.json").read_text(encoding="utf-8"),
        "parent": {
            "name": settings["name"],
            "leaf": f"{host}:{settings['listen.leaf_port']}",
            "freight_host": host,
            "freight_port": settings["listen.freight_port"],
        },
        "enrol": {"parent": address_of(settings), "edges": invite.edges},
    }


def _nats_url(settings: Mapping[str, Any]) -> str:
    return f"tls://{settings['listen.host']}:{settings['listen.nats_port']}"


def _tls(settings: Mapping[str, Any]) -> tuple[Path, Path, Path]:
    return (
        Path(settings["tls.certificate"]),
        Path(settings["tls.key"]),
        Path(settings["tls.authority"]),
    )


async def start_nats(
    settings: Mapping[str, Any], folder: Path, fogs: Collection[str], stack: AsyncExitStack
) -> NatsServer:
    """The hub's nats-server, kept running."""
    binary = find_server(Path(settings["nats_server"]) if settings["nats_server"] else None)
    server = NatsServer(binary, hub_config(settings, fogs), folder / "nats")
    await server.start()
    stack.push_async_callback(server.stop)
    watching = asyncio.create_task(keep_stored(server, SystemClock(), log))
    stack.callback(watching.cancel)
    return server


def hub_config(settings: Mapping[str, Any], fogs: Collection[str]) -> HubConfig:
    """The hub's server: the cloud inside, the fogs' leaf links outside."""
    return HubConfig(
        fleet=settings["fleet"],
        name=settings["name"],
        fogs=tuple(sorted(fogs)),
        host=settings["listen.host"],
        port=settings["listen.nats_port"],
        leaf_port=settings["listen.leaf_port"],
        tls=KeyPair(*_tls(settings)),
    )
