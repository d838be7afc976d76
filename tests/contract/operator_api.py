"""A real API over mutual TLS, with the coordinator's own actions behind it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from reuna.adapters.audit import AuditTrail
from reuna.adapters.certificates import CertificateAuthority, flaw
from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.adapters.events import EventLog
from reuna.adapters.files import FileBlobs
from reuna.adapters.journal_dbos import DbosHost
from reuna.adapters.operator_api import serve_api
from reuna.adapters.people import PeopleStore
from reuna.adapters.register import Register
from reuna.adapters.tls import KeyPair, server_context
from reuna.adapters.tuf_repository import TufRepository
from reuna.cloud.actions import Coordinator
from reuna.cloud.builds import Builds
from reuna.cloud.check import Checks
from reuna.cloud.coordinator import _sign_ins
from reuna.cloud.holdings import Holdings
from reuna.cloud.plan import Planner
from reuna.cloud.reception import Reception
from reuna.cloud.settings import CLOUD
from reuna.cloud.sign import Signing
from reuna.cloud.stock import Stock
from reuna.cloud.turns import Turns
from reuna.core.errors import RunNotFound
from reuna.core.records import Event
from reuna.core.watched import WHAT, Watched, as_fields
from reuna.exchange.admission import Admission
from reuna.exchange.intake import Intake
from reuna.exchange.roster import Known
from reuna.fleet.ports import free_ports
from reuna.fleet.trust import make_trust
from reuna.sim.bus import MemoryBroker
from reuna.sim.clock import InPlace
from reuna.sim.fleet import unsealed
from reuna.sim.storage import MemoryBlobs, MemorySpool
from tests.contract.provider import CLIENT, SECRET, IdentityProvider


@dataclass
class Journal:
    """Runs that were submitted; the real one is DBOS."""

    runs_: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)

    def register(self, kind: str, body: object) -> None:
        """Nothing is carried out here."""

    async def submit(self, kind: str, run: str, spec: str) -> None:
        self.runs_.setdefault(run, spec)
        self.kinds[run] = kind

    async def runs(self, limit: int, kind: str = "train") -> list[tuple[str, str, float, str]]:
        own = [(run, spec) for run, spec in self.runs_.items() if self.kinds.get(run, "train") == kind]
        return [(run, self.states.get(run, "running"), 1.0, spec) for run, spec in own if spec][:limit]

    async def status(self, run: str) -> dict[str, Any]:
        if run not in self.runs_:
            raise RunNotFound(f"the cloud knows no run {run!r}")
        return {"state": self.states.get(run, "running")}

    async def cancel(self, run: str) -> None:
        await self.status(run)
        self.states[run] = "cancelled"

    async def resume(self, run: str) -> None:
        await self.status(run)
        self.states[run] = "running"

    async def spec(self, run: str) -> str:
        if not self.runs_.get(run):
            raise RunNotFound(f"the cloud knows no run {run!r}")
        return self.runs_[run]


@dataclass
class Served:
    port: int
    people_port: int
    people: PeopleStore
    operator: KeyPair
    gateway: KeyPair
    reception: Reception
    journal: Journal
    coordinator: Coordinator
    loop: asyncio.AbstractEventLoop

    def look(self) -> None:
        """Judge what nodes have said, and look once at what begins runs by itself."""

        async def work() -> None:
            await self.coordinator.monitor.heard()
            await self.coordinator.triggers.look()

        asyncio.run_coroutine_threadsafe(work(), self.loop).result(20)


def provider_settings(folder: Path, provider: IdentityProvider, believed: bool) -> dict[str, Any]:
    """What cloud.toml says of it."""
    folder.mkdir(exist_ok=True)
    (folder / "secret").mkdir()
    (folder / "secret" / "oidc").write_text(SECRET + "\n")
    return {
        "oidc.issuer": provider.issuer,
        "oidc.client_id": CLIENT,
        "oidc.secret_file": str(folder / "secret" / "oidc"),
        "oidc.authority": str(provider.authority) if believed else "",
        "oidc.roles": {"ml-team": ["engineer", "viewer"], "plant-it": ["admin"]},
    }


@contextmanager
def served(
    folder: Path,
    four_eyes: tuple[str, ...] = (),
    provider: IdentityProvider | None = None,
    believed: bool = True,
) -> Iterator[Served]:
    """Until the end of the block, in a thread of its own.

    ``believed``: whether the settings name the authority of the identity provider.
    """
    settings = {} if provider is None else provider_settings(folder, provider, believed)
    with served_with(folder, {**settings, "four_eyes": four_eyes}) as running:
        yield running


@contextmanager
def served_with(folder: Path, given: dict[str, Any]) -> Iterator[Served]:
    """The same with any settings of the cloud."""
    settings = {option.name: option.default for option in CLOUD} | given
    fleet = CertificateAuthority.create(folder / "ca", "demo")
    own = fleet.issue("cloud", "cloud", hosts=["127.0.0.1"])
    blobs, events = FileBlobs(folder / "blobs"), EventLog(folder / "events.sqlite")
    blobs.put(b"a model")
    events.record(Event("cloud", "b", 1, 1.0, "round", "r-1", 1, {"loss": 0.5}))
    register = Register(folder / "register.sqlite")
    admission = Admission("demo", "fog", "", register, ["fog-1"], SystemClock())
    make_trust(folder / "trust", "demo", SystemClock().now())
    stock = Stock(TufRepository(folder / "trust" / "public"), folder / "trust" / "targets", ThreadOffload())
    holdings = Holdings(stock, events, register, ThreadOffload())
    journal, builds = Journal({"r-1": ""}), Builds(folder / "builds", SystemClock())
    host = cast("DbosHost", journal)
    coordinator = Coordinator("cloud", blobs, events, host, admission, holdings, builds)
    coordinator.presence._at["fog-1"] = 1.0
    intake = Intake("cloud", MemoryBlobs(), MemorySpool())
    planner = Planner(MemoryBroker().connect("cloud"), intake, unsealed)
    coordinator.checks = Checks("cloud", planner, intake, Turns(), InPlace())
    signing = Signing(folder / "trust", SystemClock())
    coordinator.rolling_out(signing, stock, SystemClock(), ThreadOffload())
    coordinator.watching(folder / "alarms.json", (), SystemClock()).close()
    said = Watched(
        rows=600, blocks=9, level=4.5, alarm=True, moved={"oil": 3.25}, p99_ms=8.5, project="pumps"
    )
    events.record(Event("e-1", "b", 2, 1.0, WHAT, fields=as_fields(said)), last=True)
    coordinator.presence.below["fog-1"] = Known(("e-1", "press-1", "press-2"))
    port, people_port = free_ports(2)
    store = PeopleStore(folder / "people.sqlite")
    reception = Reception(
        store, AuditTrail(folder / "audit.jsonl"), SystemClock(), register, settings["four_eyes"]
    )
    coordinator.triggering(folder / "triggers.json", SystemClock(), reception)
    sign_ins = _sign_ins(settings, reception, SystemClock())
    people_tls = server_context(own.certificate, own.key, own.authority, client=False, flaw=flaw)
    context = server_context(own.certificate, own.key, own.authority, flaw=flaw)
    loop = asyncio.new_event_loop()
    api = loop.run_until_complete(
        serve_api(coordinator, reception, sign_ins, "127.0.0.1", {port: context, people_port: people_tls})
    )
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield Served(
            port,
            people_port,
            store,
            fleet.issue("operator", "operator"),
            fleet.issue("fog", "north"),
            reception,
            journal,
            coordinator,
            loop,
        )
    finally:
        asyncio.run_coroutine_threadsafe(api.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        events.close()
        store.close()
        register.close()
