"""The fog node's long-running process: serves its edges, and speaks to the cloud through its egress.

    edges ──TLS── gateway ──socket pair── egress ──TLS── cloud, or the fog over this one
            └─── nats-server: account SITE │ account OUT ──leaf link── its hub

The gateway and the edges use account SITE, and so do the leaf links of fogs under this one, which
looks like a hub to them. The own leaf link binds account OUT, to which the fog's egress alone may
publish.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from reuna import __version__
from reuna.adapters.certificates import flaw, hosts_in, read_chain
from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.adapters.exposition import listening
from reuna.adapters.files import FileBlobs
from reuna.adapters.https_server import DepotServer, serve_depot
from reuna.adapters.nats_bus import NatsBus
from reuna.adapters.nats_server import LeafConfig, NatsServer, find_server
from reuna.adapters.register import Alarm, Register
from reuna.adapters.spool import DiskSpool
from reuna.adapters.threads import Threads
from reuna.adapters.tls import KeyPair, client_context, server_context
from reuna.adapters.trust_store import TrustStore
from reuna.core.errors import BadMessage, SettingsError, Unreachable
from reuna.core.figures import Figure
from reuna.core.mqtt_listener import MqttListener
from reuna.core.ports import Clock
from reuna.core.records import Event, Hello, Identity
from reuna.exchange.admission import Admission, alarm_fields, node_fields
from reuna.exchange.board import keep_telling
from reuna.exchange.child import EgressProcess
from reuna.exchange.door import Door
from reuna.exchange.heads import SiteWitness
from reuna.exchange.intake import Intake
from reuna.exchange.kept import Companions
from reuna.exchange.link import EgressSettings
from reuna.exchange.news import NewsDesk, Published
from reuna.exchange.parent import address_of, host_of
from reuna.exchange.predict import Confines
from reuna.exchange.presence import Presence
from reuna.exchange.room import tell_durability
from reuna.exchange.roster import BelowKeeper, Rosters
from reuna.exchange.rounds import Rounds
from reuna.exchange.sandbox_settings import sandbox_limits
from reuna.exchange.stored import keep_stored
from reuna.exchange.weigher import Weigher
from reuna.fog.answer import FogAnswers, Place
from reuna.fog.figures import collect
from reuna.fog.machines import machines_of
from reuna.fog.stock import Stock
from reuna.fog.train import Combiner
from reuna.trust.enrolment import Invite, Node
from reuna.wire import OLDEST, VERSION, decode

log = logging.getLogger("reuna.fog")
CERTIFY_S = 15.0  #: for the way up and back of a request for a site under this one
ROUND_THREADS = 2  #: for closing a round, and for one that was cancelled
REPORT_S = 5.0  #: how often the cloud is told of new nodes

Changes = asyncio.Queue[dict[str, Any]]


async def run(settings: dict[str, Any], changes: Changes) -> None:
    """Serve until cancelled. ``settings`` as `reuna.fog.settings.FOG` parses them.

    Of each of ``changes`` the list of edges is taken over, and so is the register, by itself; nobody
    who stays is disconnected.
    """
    async with AsyncExitStack() as stack:
        await _run(settings, changes, stack)


async def _run(settings: dict[str, Any], changes: Changes, stack: AsyncExitStack) -> None:
    folder = Path(settings["folder"]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    name, boot, clock = settings["name"], secrets.token_hex(4), SystemClock()
    listener = await listening(settings["metrics.listen"], clock)
    door = Door(settings, "edge", folder, partial(settings_of_a_child, settings))
    stack.callback(door.register.close)
    machines = machines_of(settings)
    nats = await start_nats(settings, folder, door.admission.names, stack, machines, door.admission.fogs)
    serving, dialling = _site_server_context(settings), client_context(*_site(settings), ("gateway", name))
    bus = await NatsBus.connect(nats_url(settings), dialling, name)
    stack.push_async_callback(bus.close)
    egress = EgressProcess(egress_settings(settings, folder), listener)
    door.ask_above = partial(_ask_above, egress, asyncio.get_running_loop())
    blobs, spool = FileBlobs(folder / "blobs"), DiskSpool(folder / "spool")
    known = TrustStore(folder / "trust")  # the egress writes it, the edges read it
    stock = Stock(known, egress.fetch, blobs, ThreadOffload())
    intake = Intake(
        name, blobs, spool, egress.fetch, settings["announce_s"], metadata=known.file, released=stock.get
    )
    rounds = Rounds(name, boot, egress.emit if settings["traces.on"] else None, clock)
    combiner = _combiner(name, door, egress, bus, intake, rounds, stack)
    presence = _presence(egress, combiner, intake, boot, settings["hello_s"])
    await egress.listen(presence.answering(combiner.on_plan))
    await stack.enter_async_context(Companions([egress]))
    adviser = _adviser(settings, folder, known, stock, egress)
    server = await serve_depot(
        intake,
        settings["listen.host"],
        settings["listen.freight_port"],
        serving,
        admit=door.admission.admit,
        witness=SiteWitness(egress, partial(_may_tell, door.admission, combiner)),
        adviser=adviser,
    )
    stack.push_async_callback(server.stop)
    _keep_answering(adviser, stack)
    stack.callback(tell_durability, log, {"spool": spool})
    stack.push_async_callback(combiner.stop)
    if listener is not None:

        def figures() -> Awaitable[list[Figure]]:
            return collect(combiner, intake, door.admission.names, folder / "spool")

        showing = asyncio.create_task(keep_telling("gateway", figures, egress.tell, clock))
        stack.callback(showing.cancel)
    trust = folder / "trust"
    published = Published(trust / "files" / "timestamp.json", trust / "state")
    news = NewsDesk(bus, published.version, lambda: door.admission.names, clock)
    telling = asyncio.create_task(news.keep())
    stack.callback(telling.cancel)
    below = BelowKeeper(combiner.present, egress.below, settings["hello_s"])
    watch = Watch(presence, below, Rosters(bus, clock, {}))
    await _listen(bus, door.admission, combiner, news, watch, egress)
    desk = Desk(settings, nats, bus, server, combiner, below, door.admission, machines)
    await door.keep(_site(settings), [serving, dialling], desk.on_names, desk.on_files, stack)
    stack.callback(asyncio.create_task(_take_changes(changes, door.admission)).cancel)
    stack.callback(asyncio.create_task(_report(door.register, egress, name, boot, clock)).cancel)
    starting = asyncio.create_task(egress.emit(Event(name, boot, 0, clock.now(), "started")))
    stack.callback(starting.cancel)
    stack.callback(asyncio.create_task(below.keep()).cancel)
    log.info("ready")
    await presence.keep()


def _combiner(
    name: str,
    door: Door,
    egress: EgressProcess,
    bus: NatsBus,
    intake: Intake,
    rounds: Rounds,
    stack: AsyncExitStack,
) -> Combiner:
    egress.on_comes = intake.comes
    weigher = Weigher(lambda: egress.rates)
    offload = Threads(ROUND_THREADS, "round")
    stack.push_async_callback(offload.close)
    return Combiner(name, door.admission.names, egress, bus, intake, offload, SystemClock(), rounds, weigher)


def _presence(
    egress: EgressProcess, combiner: Combiner, intake: Intake, boot: str, every_s: float
) -> Presence:
    """Says who is there, what this fog works on, and at once when it holds its round open."""

    def hello(next_s: float) -> Hello:
        return Hello(
            combiner.name,
            boot,
            __version__,
            combiner.present(),
            VERSION,
            OLDEST,
            next_s,
            combiner.works_on,
            intake.moving.held,
            combiner.below(),
        )

    presence = Presence(lambda next_s: egress.hello(hello(next_s)), every_s)
    intake.moving.on_held = presence.changed
    return presence


def _keep_answering(adviser: FogAnswers | None, stack: AsyncExitStack) -> None:
    """Until the stack ends."""
    if adviser is not None:
        answering = asyncio.create_task(adviser.keep())
        answering.add_done_callback(_said)
        stack.push_async_callback(_ended, answering)


def _said(task: asyncio.Task[None]) -> None:
    """What ended by a fault of ours is in the log, whole."""
    if not task.cancelled() and task.exception() is not None:
        log.error("no window is answered any more", exc_info=task.exception())


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _adviser(
    settings: dict[str, Any], folder: Path, known: TrustStore, stock: Stock, egress: EgressProcess
) -> FogAnswers | None:
    """What answers windows of the edges; None where nobody gave it tables to scale by."""
    if not settings["inference.data"]:
        return None
    confines = Confines(sandbox_limits(settings), settings["sandbox.min_level"])
    place = Place(settings["name"], folder, Path(settings["inference.data"]).absolute(), confines)
    return FogAnswers(place, known, stock.get, egress, SystemClock(), ThreadOffload())


class Desk:
    """What follows when edges come or go, or the gateway's certificate is renewed."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        nats: NatsServer,
        bus: NatsBus,
        server: DepotServer,
        combiner: Combiner,
        below: BelowKeeper,
        admission: Admission,
        machines: MqttListener | None = None,
    ) -> None:
        self._machines = machines
        self._settings = settings
        self._nats = nats
        self._bus = bus
        self._admission = admission
        self._fogs = admission.fogs
        self._server = server
        self._combiner = combiner
        self._below = below

    async def on_names(self, _before: frozenset[str], names: frozenset[str]) -> None:
        """The server's reload cuts the edges that are gone and touches nobody else.

        It leaves leaf links open, so those of fogs that are gone are ended by name.
        """
        self._server.recheck()
        self._combiner.children = names
        self._below.changed()
        before = self._fogs
        await self._reload(names)
        for name in sorted(before - self._fogs):
            fleet, own = self._settings["fleet"], self._settings["name"]
            await self._bus.disconnect(Identity(fleet, "fog", name, own).uri)

    async def on_files(self) -> None:
        await self._reload(self._combiner.children)

    async def _reload(self, names: frozenset[str]) -> None:
        self._fogs = frozenset(filter(self._admission.is_fog, names))
        await self._nats.reload(leaf_config(self._settings, names, self._machines, self._fogs))


async def _take_changes(changes: Changes, admission: Admission) -> None:
    """Take over edges and fogs that were added to or removed from the settings file."""
    while True:
        listed = await changes.get()
        admission.listed = frozenset(listed["edges"])
        admission.listed_fogs = frozenset(listed["fogs"])


async def _report(register: Register, egress: EgressProcess, name: str, boot: str, clock: Clock) -> None:
    """Tell the cloud of this site's nodes and alarms, also of those taken in while it was away."""
    told: set[Node | Alarm] = set()
    while True:
        items: list[Node | Alarm] = [*register.nodes(), *register.alarms()]  # a name before its alarm
        for item in items:
            if item in told:
                continue
            fields = node_fields(item) if isinstance(item, Node) else alarm_fields(item)
            what = "node" if isinstance(item, Node) else "alarm"
            event = Event(name, f"{boot}/nodes", len(told), clock.now(), what, fields=fields)
            if not await egress.emit(event):
                break  # no policy yet, or one that keeps this here: perhaps another one comes
            told.add(item)
        await clock.sleep(REPORT_S)


class Watch(NamedTuple):
    """Who is told when somebody comes or goes, and what fogs under this one told of who is below them."""

    presence: Presence
    below: BelowKeeper
    rosters: Rosters


async def _listen(
    bus: NatsBus,
    admission: Admission,
    combiner: Combiner,
    news: NewsDesk,
    watch: Watch,
    egress: EgressProcess,
) -> None:
    """Hear what the children say."""
    await bus.subscribe("hello.>", partial(_hello, admission, combiner, news, watch))
    await bus.subscribe("roster.>", partial(_roster, admission, combiner, watch))
    may_tell = partial(_may_tell, admission, combiner)
    await bus.follow("event.>", "up", partial(_pass_event, egress, may_tell))


async def _roster(admission: Admission, combiner: Combiner, watch: Watch, subject: str, data: bytes) -> None:
    """Note who came to a fog under this one and who went; nobody else than it may publish on its subject."""
    fog = subject.removeprefix("roster.")
    if fog not in admission.names or not admission.is_fog(fog):
        log.warning("refused a roster of %s, which is no fog under this one", fog)
        return
    try:
        heard = await watch.rosters.on_roster(fog, data)
    except BadMessage as error:
        log.warning("refused a roster on %s: %s", subject, error)
        return
    if heard.joined or heard.gone:
        combiner.told_of(fog, watch.rosters.held[fog].names)
        watch.presence.changed()


async def _hello(
    admission: Admission, combiner: Combiner, news: NewsDesk, watch: Watch, subject: str, data: bytes
) -> None:
    if not admission.listens(subject):
        return
    try:
        hello = decode(Hello, data)
    except BadMessage as error:
        log.warning("refused a hello: %s", error)
        return
    if admission.hear(subject, hello):
        fogs, was_there = combiner.below(), combiner.is_present(hello.node)
        is_fog = admission.is_fog(hello.node)  # an edge has nobody under it
        if is_fog:
            await watch.rosters.on_hello(hello)
            names = tuple(sorted(watch.rosters.held[hello.node].names))
            hello = msgspec.structs.replace(hello, children=names)
        await combiner.on_hello(hello, is_fog)
        if not was_there and combiner.is_present(hello.node):
            watch.below.changed()
        if combiner.below() != fogs:
            watch.presence.changed()
        await news.on_hello(hello)


def _may_tell(admission: Admission, combiner: Combiner, child: str, node: str) -> bool:
    """An edge speaks of itself alone, a fog of those under it too."""
    return child == node or (admission.is_fog(child) and combiner.may_tell(child, node))


async def _pass_event(
    egress: EgressProcess, may_tell: Callable[[str, str], bool], subject: str, data: bytes
) -> None:
    """Re-encode a child's event upwards. Done (and so forgotten here) when the parent holds it."""
    try:
        event = decode(Event, data)
    except BadMessage as error:
        log.warning("refused an event on %s: %s", subject, error)
        return
    if not may_tell(subject.removeprefix("event."), event.node):
        log.warning("refused an event of %s on %s", event.node, subject)
        return
    await egress.emit(event)


def _site_server_context(settings: dict[str, Any]) -> Any:
    return server_context(*_site(settings), flaw=flaw)


def _site(settings: Mapping[str, Any]) -> tuple[Path, Path, Path]:
    return (
        Path(settings["site.certificate"]),
        Path(settings["site.key"]),
        Path(settings["tls.authority"]),
    )


def nats_url(settings: dict[str, Any]) -> str:
    """The site's server, for the gateway itself."""
    return f"tls://{settings['listen.host']}:{settings['listen.nats_port']}"


def _ask_above(
    egress: EgressProcess, loop: asyncio.AbstractEventLoop, name: str, under: str, request: bytes
) -> Sequence[bytes]:
    """From a thread: have the site of a fog under this one certified. Raises `NotAdmitted`, `Unreachable`."""
    asked = asyncio.run_coroutine_threadsafe(egress.certify(name, under, request), loop)
    try:
        return asked.result(CERTIFY_S)
    except TimeoutError:
        asked.cancel()
        raise Unreachable(f"the parent does not say whether {name} may have a site") from None


def settings_of_a_child(settings: dict[str, Any], invite: Invite) -> dict[str, Any]:
    """What a machine that becomes an edge or a fog here needs to know."""
    if invite.role != "fog":
        return settings_of_an_edge(settings)
    leaf = f"{host_of(settings)}:{settings['listen.leaf_port']}"
    return _settings_below(settings, {"role": "fog", "leaf": leaf}, {"edges": invite.edges})


def settings_of_an_edge(settings: dict[str, Any]) -> dict[str, Any]:
    """What a machine that becomes an edge here needs to know."""
    return _settings_below(
        settings, {"nats": f"tls://{host_of(settings)}:{settings['listen.nats_port']}"}, {}
    )


def _settings_below(
    settings: dict[str, Any], parent: dict[str, Any], enrol: dict[str, Any]
) -> dict[str, Any]:
    """What every child needs to know; ``parent`` and ``enrol`` are what is its own of these."""
    return {
        "fleet": settings["fleet"],
        "root_json": Path(settings["root"]).read_text(encoding="utf-8"),
        "parent": {
            "name": settings["name"],
            **parent,
            "freight_host": host_of(settings),
            "freight_port": settings["listen.freight_port"],
        },
        "enrol": {"parent": address_of(settings), **enrol},
    }


async def start_nats(
    settings: dict[str, Any],
    folder: Path,
    names: Collection[str],
    stack: AsyncExitStack,
    machines: MqttListener | None = None,
    fogs: Collection[str] = (),
) -> NatsServer:
    """The site's nats-server, kept running. ``fogs``: those of its children that are fogs."""
    binary = find_server(Path(settings["nats_server"]) if settings["nats_server"] else None)
    server = NatsServer(binary, leaf_config(settings, names, machines, fogs), folder / "nats")
    await server.start()
    stack.push_async_callback(server.stop)
    watching = asyncio.create_task(keep_stored(server, SystemClock(), log))
    stack.callback(watching.cancel)
    return server


def leaf_config(
    settings: Mapping[str, Any],
    names: Collection[str],
    machines: MqttListener | None,
    fogs: Collection[str] = (),
) -> LeafConfig:
    """The site's server: account SITE for the children, OUT for the link to the hub, and one for machines.

    Raises `SettingsError` for fogs under this one where nothing listens for them.
    """
    if fogs and not settings["listen.leaf_port"]:
        raise SettingsError(
            f"fog {min(fogs)} is to stand under {settings['name']}, whose listen.leaf_port is 0",
            "Set it to a free port, then restart.",
        )
    return LeafConfig(
        fleet=settings["fleet"],
        name=settings["name"],
        edges=tuple(sorted(set(names).difference(fogs))),
        host=settings["listen.host"],
        port=settings["listen.nats_port"],
        tls=KeyPair(*_site(settings)),
        hub=settings["parent.leaf"],
        machines=machines,
        fogs=tuple(sorted(fogs)),
        leaf_port=settings["listen.leaf_port"],
        over=over_of(settings),
        uplink=KeyPair(
            Path(settings["tls.certificate"]), Path(settings["tls.key"]), Path(settings["tls.authority"])
        ),
    )


def over_of(settings: Mapping[str, Any]) -> str:
    """The fog that this one stands under; '' for the cloud."""
    over: str = settings["parent.name"] if settings["parent.role"] == "fog" else ""
    return over


def parent_of(settings: Mapping[str, Any]) -> Identity:
    """What the certificate of the parent's servers says."""
    fleet, name = settings["fleet"], settings["parent.name"]
    return Identity(fleet, "gateway", name, name) if over_of(settings) else Identity(fleet, "cloud", name)


def egress_settings(settings: dict[str, Any], folder: Path) -> EgressSettings:
    """The egress's part of the fog's settings."""
    parent = parent_of(settings)
    return EgressSettings(
        name=settings["name"],
        parent=settings["parent.name"],
        parent_identity=parent.uri,
        nats_url=nats_url(settings),
        freight_host=settings["parent.freight_host"],
        freight_port=settings["parent.freight_port"],
        certificate=settings["tls.certificate"],
        key=settings["tls.key"],
        authority=settings["tls.authority"],
        folder=str(folder),
        fleet=settings["fleet"],
        root=settings["root"],
        policy=settings["policy"],
        bus=("gateway", settings["name"]),
        freight=(parent.role, parent.name),
        enrol=settings["enrol.parent"],
        site=settings["enrol.authority"],
        heads_s=settings["heads_s"],
        hosts=hosts_in(read_chain(Path(settings["site.certificate"]).read_bytes())[0]),
    )
