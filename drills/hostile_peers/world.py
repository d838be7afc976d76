"""A fleet of real processes with honest rounds on it, and the keys that attackers hold.

    cloud ─┬─ fog-1 ─┬─ edge-1
           │         └─ edge-2     a node in hostile hands is stopped while its key is used
           └─ fog-2 ─── edge-3

The sites of edge-1 and edge-2 ask for two in a cohort. The online keys were changed once, so that
an old one can be stolen, and the metadata has a past and a future.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import shutil
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from benchmarks.round import job_for
from drills.hostile_peers.attack import Attack, Outcome
from drills.hostile_peers.lines import Freight
from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.nats_bus import NatsBus
from reuna.adapters.tls import client_context
from reuna.adapters.trust_keys import read_key
from reuna.adapters.tuf_repository import TufRepository
from reuna.core.records import Plan, RunSpec
from reuna.fleet.client import Operator
from reuna.fleet.layout import Fleet, make_fleet
from reuna.fleet.officer import amend, key_file
from reuna.fleet.ports import HOST
from reuna.fleet.session import follow, prepare, ready
from reuna.fleet.supervise import Supervisor
from reuna.fleet.trust import Ceremony, add, rotate
from reuna.trust.plans import PlanSigner, opened, sign_plan
from reuna.trust.publish import key_of, public_of
from reuna.wire import decode, unpacked

PLACES = {"fog-1": ("edge-1", "edge-2"), "fog-2": ("edge-3",)}
PARAMS = 2_000
SOON_S = 30.0
STEP_S = 0.05
SPOILT_S = 6.0  #: deadline of a round whose guards are off: an attack may have spoilt its sum
PLACE = "drills.hostile_peers.place"


@dataclass(frozen=True)
class Round:
    """The honest round that an attack goes on beside. ``signed``: its plan as it came to edge-2."""

    run: str
    plan: Plan
    plan_bytes: bytes
    signed: bytes


class World:
    """The fleet. ``control`` is a file that names the guards switched off, None for the real places."""

    def __init__(self, folder: Path, control: Path | None) -> None:
        self.folder = folder
        self.control = control
        self.fleet = _fleet(folder)
        self.trust = Trust(self.fleet.folder / "trust", folder / "thief")
        self.strangers = folder / "strangers"  #: an authority of the attackers' own
        CertificateAuthority.create(self.strangers, self.fleet.name)
        self.supervisor = Supervisor(self.fleet)
        self.operator = Operator.of(self.fleet)
        self.heard: list[bytes] = []  #: signed plans for edge-2, oldest first
        self._numbers = itertools.count(1)
        self._buses: list[NatsBus] = []
        self._marks: dict[Path, int] = {}
        self.attack: Attack | None = None

    async def __aenter__(self) -> World:
        with self._planted():
            await self.supervisor.start()
            job = job_for(self.folder, PARAMS, 3, 1, 2, 32, 14)
            self._job = job
            self.spec, parts = await asyncio.to_thread(prepare, job, self.fleet, "r-0")
            await ready(self.fleet, self.operator, self.supervisor)
        for part in parts:
            await asyncio.to_thread(self.operator.put_blob, part)
        listening = await self.bus("edge", "edge-2")
        await listening.subscribe("plan.edge-2", self._hear)
        return self

    async def __aexit__(self, *_: object) -> None:
        for bus in self._buses:
            await bus.close()
        for name in self.supervisor.pids:
            self._signal(name, signal.SIGCONT)
        await self.supervisor.stop()

    @contextlib.contextmanager
    def _planted(self) -> Iterator[None]:
        """Places started inside are those whose guards can be switched off."""
        if self.control is None:
            yield
            return
        real, control = asyncio.create_subprocess_exec, str(self.control)
        self.control.write_text("")

        def planted(program: str, *args: Any, **kwargs: Any) -> Any:
            if args[:3] == ("-P", "-m", "reuna.fleet.place"):
                args = ("-m", PLACE, control, *args[2:])
            return real(program, *args, **kwargs)

        with mock.patch.object(asyncio, "create_subprocess_exec", planted):
            yield

    async def _hear(self, _subject: str, signed: bytes) -> None:
        self.heard.append(unpacked(signed))

    # --- honest rounds ---------------------------------------------------------------------------

    async def run(self, rounds: int = 1) -> str:
        """An undisturbed run; the digest of its model."""
        spec = self._spec(rounds=rounds, settings={**self.spec.settings, "rounds": rounds})
        return await self._carry_out(spec)

    async def calm(self, attack: Attack) -> str:
        """The model of a round like the one beside the attack, without it."""
        if not attack.closes:
            return await self.run()
        with self.paused(*attack.paused):
            return await self._carry_out(self._spec(deadline_s=attack.deadline_s, quorum=attack.quorum))

    async def _carry_out(self, spec: RunSpec) -> str:
        await asyncio.to_thread(self.operator.submit, spec)
        return await self.end_of(spec.run)

    async def end_of(self, run: str) -> str:
        """The digest of a run's model once it has ended."""
        async with asyncio.timeout(4 * SOON_S):
            outcome = await follow(self.operator, run, lambda _event: None)
        return str(outcome["model"])

    def _spec(self, **changes: Any) -> RunSpec:
        run = f"r-{next(self._numbers)}"
        base = {"run": run, "rounds": 1, "evaluate": False, "local": False, "deadline_s": 60.0}
        return msgspec.structs.replace(self.spec, **{**base, **changes})

    async def disturbed(self, attack: Attack) -> Outcome:
        """Carry out an attack beside an honest round."""
        deadline_s = attack.deadline_s if self.control is None else min(attack.deadline_s, SPOILT_S)
        self.attack, spec = attack, self._spec(deadline_s=deadline_s, quorum=attack.quorum)
        with self.paused(*attack.paused):
            await asyncio.to_thread(self.operator.submit, spec)
            beside = await self._round(spec.run)
            if attack.closes:
                await self.end_of(spec.run)
            self.mark()
            got = await attack.do(self, beside)
            line = await self.seen(attack) if not got else ""
        return Outcome(not got, line, await self.end_of(spec.run))

    async def _round(self, run: str) -> Round:
        """The first plan of a run, once edge-2 was told it."""

        def found() -> Round | None:
            for signed in reversed(self.heard):
                plan_bytes = opened(signed)
                plan = decode(Plan, plan_bytes)
                if plan.run == run:
                    return Round(run, plan, plan_bytes, signed)
            return None

        round_ = await self.wait(found)
        assert round_ is not None, f"no plan of {run} was heard"
        return round_

    @contextlib.contextmanager
    def paused(self, *names: str) -> Iterator[None]:
        """These nodes do nothing for a while."""
        for name in names:
            self._signal(name, signal.SIGSTOP)
        try:
            yield
        finally:
            for name in names:
                self._signal(name, signal.SIGCONT)

    def _signal(self, name: str, what: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.supervisor.pids[name], what)

    async def restart_egress(self, name: str) -> None:
        """A new egress looks for newer metadata at once."""
        processes = dict(self.supervisor.processes())
        os.kill(processes[f"{name}/egress"], signal.SIGKILL)

    # --- what attackers hold ---------------------------------------------------------------------

    def tls(self, role: str, name: str) -> ssl.SSLContext:
        """The certificate of a node in hostile hands."""
        section = "site" if role == "gateway" else "tls"
        files = (f"{section}.certificate", f"{section}.key", "tls.authority")
        certificate, key, authority = (Path(self.fleet.setting(file, name)) for file in files)
        return client_context(certificate, key, authority)

    async def bus(self, role: str, name: str, place: str = "fog-1") -> NatsBus:
        """A connection to a place's NATS under a stolen key."""
        url = f"tls://{HOST}:{self.fleet.setting('listen.nats_port', place)}"
        bus = await NatsBus.connect(url, self.tls(role, name), name, append_timeout_s=5.0)
        self._buses.append(bus)
        return bus

    def freight(self, role: str, name: str, place: str = "fog-1") -> Freight:
        """HTTPS to a place under a stolen key."""
        return self.freight_with(self.tls(role, name), place)

    def freight_with(self, tls: ssl.SSLContext, place: str) -> Freight:
        """HTTPS to a place under any certificate."""
        return Freight(self.fleet.setting("listen.freight_port", place), tls)

    # --- looking ---------------------------------------------------------------------------------

    def path(self, text: str) -> Path:
        """A file below the fleet's folder."""
        return self.fleet.folder / text

    def mark(self) -> None:
        """What logs say from now on is about the attack that begins."""
        logs = [log for place in self.fleet.places for log in _logs(place.folder)]
        self._marks = {log: log.stat().st_size for log in logs}

    def said(self, log: str, pattern: str) -> str:
        """The first line since the mark that has the pattern, else empty."""
        path = self.path(log)
        if not path.exists():
            return ""
        with path.open("rb") as file:
            file.seek(self._marks.get(path, 0))
            lines = file.read().decode(errors="replace").splitlines()
        return next((line for line in lines if re.search(pattern, line)), "")

    async def wait(self, found: Callable[[], Any], seconds: float = SOON_S) -> Any:
        """What ``found`` gives as soon as that is true, or at the end of the time."""
        end = time.monotonic() + seconds
        while not (value := found()) and time.monotonic() < end:
            await asyncio.sleep(STEP_S)
        return value

    async def seen(self, attack: Attack) -> str:
        """The line that the operator reads about an attack."""
        return str(await self.wait(lambda: self.said(*attack.seen), SOON_S / 3))

    async def settled(self, success: Callable[[], Any]) -> bool:
        """Whether the attack that is on had success, once it had or was refused."""
        assert self.attack is not None
        where = self.attack.seen
        await self.wait(lambda: success() or self.said(*where))
        return bool(success())

    def events(self, run: str) -> list[dict[str, Any]]:
        """The run's timeline as its operator sees it."""
        return self.operator.timeline(run, 0)

    # --- guards ----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def without(self, guards: tuple[str, ...]) -> AsyncIterator[None]:
        """Some guards are switched off."""
        assert self.control is not None
        from drills.hostile_peers.guards import SERVER

        changes = [SERVER[name] for name in guards if name in SERVER]
        self.control.write_text(" ".join(guards))
        kept = await self._change_server(changes)
        try:
            yield
        finally:
            self.control.write_text("")
            if changes:
                await self._change_server([lambda _text, _world: kept])

    async def _change_server(self, changes: list[Callable[[str, World], str]]) -> str:
        """Change fog-1's nats-server while it runs; the configuration it had."""
        file, log = self.path("fog-1/state/nats/nats.conf"), "fog-1/state/nats/nats.log"
        before = text = file.read_text()
        for change in changes:
            text = change(text, self)
        if changes:
            assert text != before, "the guard is not in the configuration"
            file.write_text(text)
            self.mark()
            os.kill(dict(self.supervisor.processes())["fog-1/nats"], signal.SIGHUP)
            assert await self.wait(lambda: self.said(log, "Reloaded server configuration"))
        return before


class Trust:
    """The fleet's metadata, with what thieves have of it: an old key, old files, files to come."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder = folder
        self.now = time.time()
        scratch.mkdir()
        self.old_key = read_key(folder / "online" / "plans-1.key", None)
        rotate(self._ceremony(folder), "online", None)
        thing = scratch / "thing"
        thing.write_bytes(b"a pump's model")
        names = scratch / "names"
        names.write_text('{"edge-1": "acme", "edge-2": "acme", "edge-3": "borg"}')
        add(self._ceremony(folder), names, "roster", "fleet")
        self.past = self._files(folder)
        add(self._ceremony(folder), thing, "release", "pump")
        self.online = self._ceremony(folder).online_keys()
        self._scratch = scratch

    def present(self) -> dict[str, bytes]:
        """What the fleet serves now; code of honest rounds is signed as they come."""
        return self._files(self.folder)

    def future(self) -> dict[str, bytes]:
        """What it would serve after one release more."""
        folder = self._scratch / "future"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        add(self._ceremony(folder), self._scratch / "thing", "release", "valve")
        return self._files(folder)

    def _ceremony(self, folder: Path) -> Ceremony:
        return Ceremony(folder, self.now, _unlocked)

    @staticmethod
    def _files(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (folder / "public").glob("*.json")}

    @property
    def repository(self) -> TufRepository:
        return TufRepository(self.folder / "public")

    @property
    def signer(self) -> PlanSigner:
        """The cloud's own key for plans, in the hands of a hostile coordinator."""
        return self.repository.plan_signer(self.online)

    def sign(self, plan: bytes, fleet: str = "") -> bytes:
        """A plan with the cloud's own signature."""
        signer = self.signer
        return sign_plan(plan, PlanSigner(fleet or signer.fleet, signer.key, signer.private), time.time())

    def sign_with_old_key(self, plan: bytes) -> bytes:
        """A plan with the signature of a key that was replaced."""
        public = key_of(public_of(self.old_key)).keyid
        return sign_plan(plan, PlanSigner(self.signer.fleet, public, self.old_key), time.time())


def _logs(place: Path) -> list[Path]:
    """Of a place, its egress and its server; the worker's folders come and go."""
    folders = (place, place / "state", place / "state" / "nats")
    return [log for folder in folders for log in folder.glob("*.log")]


def _unlocked(path: Path) -> bytes:
    return b""


def _fleet(folder: Path) -> Fleet:
    (folder / "data").mkdir(parents=True)
    sites = {fog: dict.fromkeys(edges, folder / "data") for fog, edges in PLACES.items()}
    fleet = make_fleet(folder / "fleet", "hostile", sites, announce_s=0.3)
    key = read_key(key_file(fleet.folder), None)
    for edge in PLACES["fog-1"]:
        file = fleet.folder / edge / "policy.toml"
        amend(file, key, 'protection = "clear"\n', 'protection = "clear"\nmin_cohort = 2\n')
    return fleet


assert sys.platform.startswith("linux"), "the drill stops and starts processes as Linux does"
