"""The egress as a process of its own: ``python -m reuna.exchange.process FD STARTER SETTINGS``.

Started for an edge's agent or a fog's gateway by `reuna.exchange.starter`, which hands it one end of a
socket pair, its own process id and the place's settings as JSON. It alone opens the node's private
key and the network. It ends with its place.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import secrets
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from reuna import __version__
from reuna.adapters.checked_file import CheckedFile
from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.adapters.files import FileBlobs
from reuna.adapters.https_client import HttpsFreight
from reuna.adapters.logs import say_what_happens
from reuna.adapters.nats_bus import NatsBus
from reuna.adapters.processes import become, end_with_parent, no_core_files, settle
from reuna.adapters.spool import DiskSpool
from reuna.adapters.threads import Threads
from reuna.adapters.tls import client_context, read_in_pieces, reload_context
from reuna.adapters.trust_store import TrustStore
from reuna.core.errors import BusDown, DiskFull, PermissionDenied, ReunaError, StorageError
from reuna.core.figures import Figure
from reuna.core.records import ShownHead
from reuna.exchange.arrivals import ARRIVALS, WRITTEN_S, Arrivals
from reuna.exchange.board import Board, of_arrivals, show
from reuna.exchange.choices import FOLDER
from reuna.exchange.egress import Egress
from reuna.exchange.heads import HeadKeeper
from reuna.exchange.later_bus import LaterBus
from reuna.exchange.ledger_export import keep_exporting
from reuna.exchange.leftovers import MAX_BYTES as INDEX_BYTES
from reuna.exchange.leftovers import Index, Leftovers
from reuna.exchange.link import EgressSettings, Frames, LinkServer
from reuna.exchange.news import listen
from reuna.exchange.releases import ReleaseHolder, drop_old, passed_on
from reuna.exchange.room import tell_durability, when_there_is_room
from reuna.exchange.roster import RosterTeller
from reuna.exchange.second import SecondOpinions
from reuna.exchange.sinks import open_gate
from reuna.exchange.site import Site, open_site
from reuna.exchange.sites_above import SitesAbove
from reuna.exchange.small import keep_small
from reuna.exchange.trust import CodeRole, TrustGuard
from reuna.exchange.weigher import Weigher

if TYPE_CHECKING:
    from reuna.adapters.enrol_client import EstSource

log = logging.getLogger("reuna.egress")
DISK_THREADS = 4  #: for what the rounds and events of this place wait for
FULL = (errno.ENOSPC, errno.EDQUOT)
AWAY_S = 0.5  #: until the next try to reach a parent's server that is away
FINISH_S = 3.0  #: for what is under way when this process is to end
FRESH_S = 3600.0  #: between two looks for newer metadata
REFUSED_S = 5.0  #: until the next try at one that refuses us


async def serve(settings: EgressSettings, sock: socket.socket) -> None:
    """Serve the place at the other end of ``sock`` until it is gone."""
    folder = Path(settings.folder)
    own = Path(settings.certificate), Path(settings.key), Path(settings.authority)
    to_bus, to_freight = client_context(*own, settings.bus), client_context(*own, settings.freight)
    cache = FileBlobs(folder / "blobs")
    outbox = DiskSpool(folder / "outbox")
    arrivals = Arrivals(folder / ARRIVALS)
    store = HttpsFreight(settings.freight_host, settings.freight_port, to_freight, cache, arrivals.came)
    bus = LaterBus(_connect(settings, to_bus, store.is_busy))
    site = open_site(settings, folder, SystemClock())
    flows = site.flows
    guard = _guard(settings, folder / "trust")
    disk = Threads(DISK_THREADS, "disk")
    heads = _heads(settings, site, store, guard)
    egress = Egress(
        settings.name,
        settings.parent_identity,
        bus,
        store,
        cache,
        outbox,
        flows,
        SystemClock(),
        disk,
        partial(arrivals.plan, guard.plan),
        guard.among,
        CodeRole(guard, store.metadata).unsigned,
        open_leftovers(folder),
        partial(passed_on, guard),
        Weigher(lambda: store.rates),
    )
    await listen(bus, settings.name, guard)
    shelf: HttpsFreight | None = None
    roster = await _roster(settings, bus, egress)
    releases: tuple[Coroutine[None, None, None], ...]
    if settings.passes_on:
        releases = (drop_old(guard, cache, ThreadOffload(), arrivals.releases),)
    else:
        shelf, releases = _releases(settings, folder, to_freight, guard, arrivals, egress)
    work = (
        *releases,
        guard.keep_fresh(store.metadata, FRESH_S),
        _write_down(site, arrivals),
        heads.keep(),
        _export(site, folder / "ledger"),
        _renew(settings, own, (to_bus, to_freight)),
    )
    board = _board(settings, site, arrivals, bus)
    beside = [
        *(asyncio.create_task(_once_connected(bus, each)) for each in work),
        *_showing(board, settings),
    ]
    sinks = open_gate(settings, flows, egress.in_time)
    server = LinkServer(
        await Frames.over(sock),
        egress,
        heads,
        sinks,
        SecondOpinions(settings.parent_identity, flows, store, SystemClock(), ThreadOffload()),
        SitesAbove(settings.enrol, own[2], own[0], ThreadOffload()),
        board,
        roster,
        lambda: store.rates,
    )
    serving = asyncio.create_task(_serve_when_ready(server, guard, store if settings.passes_on else None))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    connecting = asyncio.create_task(bus.connected())
    try:
        await asyncio.wait([serving, connecting], return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            connecting.result()
            await asyncio.wait([serving])
    finally:
        for each in (*beside, connecting):
            each.cancel()
        await server.finish(FINISH_S)
        arrivals.write()
        tell_durability(log, {"outbox": outbox})
        await _put_in_order(site, disk)
        await sinks.close()
        await bus.close()
        await store.close()
        if shelf is not None:
            await shelf.close()
    if not serving.cancelled():
        serving.result()


async def _put_in_order(site: Site, disk: Threads) -> None:
    """Write down what waits: nothing leaves any more."""
    await disk(site.flows.close)
    await disk(site.resumer.save)
    await disk.close()


def _tell_what_comes(store: HttpsFreight, server: LinkServer) -> None:
    """The place hears how far it is: its edges wait for it."""
    loop = asyncio.get_running_loop()

    def tell(digest: str, done: int, size: int) -> None:
        loop.call_soon_threadsafe(server.comes, digest, done, size)

    store.on_comes = tell


async def _roster(settings: EgressSettings, bus: LaterBus, egress: Egress) -> RosterTeller | None:
    """What tells the parent who is below; None where nobody is."""
    if not settings.passes_on:
        return None
    roster = RosterTeller(settings.name, secrets.token_hex(4), egress.say, SystemClock())
    await roster.listen(bus)
    return roster


def _board(settings: EgressSettings, site: Site, arrivals: Arrivals, bus: LaterBus) -> Board:
    """What this place shows of itself, where it is asked to."""

    def own() -> list[Figure]:
        left, came = site.news.left.figures(), of_arrivals(arrivals.counts)
        if settings.passes_on:  # its bus is beside it
            return [*left, *came]
        return [*left, *came, Figure("reuna_parent_connected", float(bus.is_connected))]

    return Board("fog" if settings.passes_on else "edge", __version__, own, SystemClock())


def _showing(board: Board, settings: EgressSettings) -> list[asyncio.Task[None]]:
    """What gives the board to whoever scrapes; nothing where nobody may."""
    if settings.metrics < 0:
        return []
    listener = socket.socket(fileno=settings.metrics)
    return [asyncio.create_task(show(board, settings.name, listener, ThreadOffload()))]


def open_leftovers(folder: Path) -> Leftovers:
    """What updates of earlier rounds did not send, in a node's folder."""
    index: CheckedFile[Index] = CheckedFile(folder / "leftovers.state", Index, INDEX_BYTES)
    return Leftovers(FileBlobs(folder / "leftovers"), index)


def _releases(
    settings: EgressSettings,
    folder: Path,
    tls: ssl.SSLContext,
    guard: TrustGuard,
    arrivals: Arrivals,
    egress: Egress,
) -> tuple[HttpsFreight, tuple[Coroutine[None, None, None], ...]]:
    """What takes releases and says which are held, and the freight of its own that it takes them by."""
    files = FileBlobs(folder / FOLDER)
    host, port = settings.freight_host, settings.freight_port
    freight = HttpsFreight(
        host, port, tls, files, lambda _digest, size: arrivals.came("release", size), durable=True
    )
    holder = ReleaseHolder(
        (settings.name, settings.parent),
        secrets.token_hex(4),
        guard,
        freight,
        files,
        folder,
        egress.emit,
        SystemClock(),
        ThreadOffload(),
    )
    return freight, (holder.keep(), holder.tell())


async def _once_connected(bus: LaterBus, work: Coroutine[Any, Any, None]) -> None:
    """What there is nothing to do for before the parent was reached once."""
    try:
        await bus.connected()
    except BaseException:
        work.close()
        raise
    await work


async def _serve_when_ready(server: LinkServer, guard: TrustGuard, store: HttpsFreight | None) -> None:
    """``store``: what it fetches is for others below too."""
    if store is not None:
        _tell_what_comes(store, server)
    await guard.ready()
    settle()
    await server.run()


def _heads(settings: EgressSettings, site: Site, store: HttpsFreight, guard: TrustGuard) -> HeadKeeper:
    """What shows the ledger's heads to the cloud."""

    def prove(head: bytes) -> ShownHead:
        from reuna.exchange.proofs import show  # the rest of the egress needs no X.509

        return show(head, site.key, Path(settings.certificate), Path(settings.key))

    parent, keys = settings.parent_identity, guard.plan_keys
    clock, offload = SystemClock(), ThreadOffload()
    return HeadKeeper(site.news, site.flows, parent, store, prove, keys, clock, offload, settings.heads_s)


def _guard(settings: EgressSettings, folder: Path) -> TrustGuard:
    """What this node trusts; a new one begins with the fleet's root. Raises `KeyProblem`, `Untrusted`."""
    root = Path(settings.root)
    pin = root.read_bytes() if root.is_file() else None
    return TrustGuard.open(TrustStore(folder), settings.fleet, pin, SystemClock())


async def _export(site: Site, ledger: Path) -> None:
    """Pass the ledger on to where the site's policy wants it."""
    clock, owner = SystemClock(), site.news.ledger.state.owner
    await keep_exporting(ledger, owner, lambda: site.targets(clock.now()), clock, ThreadOffload())


async def _write_down(site: Site, arrivals: Arrivals) -> None:
    """What came down; outcomes that no payload came after, and the signature over them."""

    def write() -> None:
        arrivals.write()
        site.flows.flush()
        site.resumer.save_if_due()

    while True:
        await SystemClock().sleep(WRITTEN_S)
        try:
            await when_there_is_room(lambda: ThreadOffload()(write), SystemClock(), log)
        except StorageError as error:
            log.error("%s %s", error.code, error)


async def _connect(settings: EgressSettings, tls: ssl.SSLContext, busy: Callable[[], bool]) -> NatsBus:
    """The parent's server, however long it takes to appear."""
    while True:
        try:
            if settings.passes_on:  # its server is beside it
                return await NatsBus.connect(settings.nats_url, tls, settings.name, own=True)
            return await NatsBus.connect(settings.nats_url, tls, settings.name, busy=busy)
        except BusDown as error:
            log.warning("parent's server is away: %s", error)
            await SystemClock().sleep(AWAY_S)
        except PermissionDenied as error:  # not in the parent's list yet, or not any more
            log.warning("parent's server refuses this node: %s", error)
            await SystemClock().sleep(REFUSED_S)


async def _renew(
    settings: EgressSettings, own: tuple[Path, Path, Path], contexts: Sequence[ssl.SSLContext]
) -> None:
    """Keep this node's certificates fresh, and a fog's list of revoked names. Until cancelled."""
    if not settings.enrol:
        return
    from reuna.exchange import renewal  # the rest of the egress needs no X.509

    clock, offload = SystemClock(), ThreadOffload()

    def source() -> EstSource:
        from reuna.adapters.enrol_client import (
            EstSource,  # an edge asks twice in a certificate's life at most
        )

        return EstSource(settings.enrol, own[2], own[0])

    def again(now: float) -> None:
        renewal.renew_own(own[0], source(), now)
        for context in contexts:
            reload_context(context, *own)

    work = [renewal.keep(own[0], again, clock, offload)]
    if settings.site:
        site = Path(settings.site)
        renew = partial(renewal.renew_site, site, source(), settings.hosts)
        work.append(renewal.keep(site / "authority.crt", lambda _now: renew(), clock, offload))
        revoked = Path(settings.folder) / "revoked.json"
        work.append(renewal.follow_revoked(source(), revoked, clock, offload))
    await asyncio.gather(*work)


async def _alone(settings: EgressSettings, sock: socket.socket) -> None:
    """`serve` in a process that does nothing else."""
    keeping = asyncio.create_task(keep_small(SystemClock()))
    try:
        await serve(settings, sock)
    finally:
        keeping.cancel()


def begin(sock: socket.socket, starter: int, words: str) -> int:
    """Serve the place at the other end of ``sock``; ``words`` are `EgressSettings` as JSON. Its status."""
    end_with_parent()
    if os.getppid() != starter:  # what started us ended before it could take us with it
        return 0
    become("egress")
    no_core_files()
    read_in_pieces()
    settings = msgspec.json.decode(words, type=EgressSettings)
    say_what_happens(settings.name)
    try:
        asyncio.run(_alone(settings, sock))
    except ReunaError as error:
        log.error("%s %s %s", error.code, error.message, error.next_step)
        return error.exit_status
    except OSError as error:
        if error.errno not in FULL:
            raise
        log.error("%s no space left in %s. %s", DiskFull.code, settings.folder, DiskFull.default_next_step)
        return DiskFull.exit_status
    return 0


def main() -> int:
    """Entry of a fresh process."""
    return begin(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), sys.argv[3])


if __name__ == "__main__":
    sys.exit(main())
