"""What an operator can ask of the cloud, and what it knows of its fleet (the `Actions` of the API)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.alarm_channels import Channel
from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.adapters.events import EventLog
from reuna.adapters.journal_dbos import DbosHost
from reuna.cloud import release
from reuna.cloud.builds import Builds
from reuna.cloud.check import Checks
from reuna.cloud.hearing import OWN_WORDS
from reuna.cloud.holdings import Holdings
from reuna.cloud.monitor import Monitor
from reuna.cloud.presence import Presence
from reuna.cloud.reception import Reception
from reuna.cloud.rollouts import KIND, Rollouts, Seen, edge_sites
from reuna.cloud.sign import Signing
from reuna.cloud.stock import Stock
from reuna.cloud.surroundings import Surroundings
from reuna.cloud.traces import Traces
from reuna.cloud.train import Outcome
from reuna.cloud.trigger import Triggers
from reuna.core.errors import (
    BlobNotFound,
    Corrupted,
    PlanError,
    ReunaError,
    RunNotFound,
    RunProblem,
    Untrusted,
)
from reuna.core.foreign import UNREADABLE
from reuna.core.ports import Blob, Blobs, Clock, Offload
from reuna.core.records import Event, RunSpec, Setting
from reuna.core.tree import top_of
from reuna.core.trigger import Trigger
from reuna.exchange.admission import Admission
from reuna.exchange.room import SERVER_AWAY, when_there_is_room
from reuna.loop.plan import Built, check_built, check_retry, check_spec, retry
from reuna.trust.enrolment import fogs_over, shape
from reuna.wire import digest_bytes
from reuna.wire.build import PLAN
from reuna.wire.build import decode as decode_build

log = logging.getLogger("reuna.cloud")
NEWEST = 50  #: runs that are listed


class Coordinator:
    """What an operator can ask of the cloud (the `Actions` of the API)."""

    triggers: Triggers  #: set by `triggering`, before anything is heard
    rollouts: Rollouts  #: set by `rolling_out`
    monitor: Monitor  #: set by `watching`
    traces: Traces | None = None  #: where runs are traced
    offload: Offload = ThreadOffload()  #: for what is done in each round

    def __init__(
        self,
        name: str,
        blobs: Blobs,
        events: EventLog,
        host: DbosHost,
        admission: Admission,
        holdings: Holdings,
        builds: Builds,
    ) -> None:
        self.builds = builds
        self._name = name
        self.holdings = holdings
        self._admission = admission
        self._blobs = blobs
        self._events = events
        self.host = host
        self.presence = Presence(events, SystemClock())
        self.sites: dict[str, str] = {}  #: edge -> the fog under which a run has it
        self.placed: dict[str, str] = {}  #: fog -> the fog under which a run has it
        self.checks: Checks | None = None  #: once the cloud can ask its fogs
        self._gates: dict[str, dict[str, Any]] = {}  #: run that is done -> what its gates said

    def put_blob(self, data: bytes, digest: str) -> None:
        """Keep a bundle or an initial model. Raises `Corrupted` when the digest differs."""
        if digest_bytes(data) != digest:
            raise Corrupted(f"the blob sent has another digest than {digest[:12]}")
        self._blobs.put(data)

    def get_blob(self, digest: str) -> bytes:
        """A model. Raises `BlobNotFound`."""
        blob = self._blob(digest)
        return blob.read(0, blob.size)

    def _blob(self, digest: str) -> Blob:
        blob = self._blobs.get(digest)
        if blob is None:
            raise BlobNotFound(f"no blob {digest[:12]} in the cloud's store")
        return blob

    async def submit(self, spec: RunSpec) -> None:
        """Begin a run that a person asks for, or go on with the run of that name.

        Raises `PlanError`, `BlobNotFound`, `RunProblem` when it is not what its build or the run before
        says, `RunNotFound` for a run before that there is not.
        """
        if spec.why:
            raise PlanError(
                f"run {spec.run} says that the cloud begins it: {spec.why!r:.80}", "Leave why out."
            )
        await self._submit(spec)

    async def begin(self, why: str, what: RunSpec) -> None:
        """Begin a run by the cloud itself, once for each name: what any trigger calls. ``why`` stays with it.

        Raises `RunProblem` while an earlier one that was begun for the same reason goes on; as `submit`.
        """
        for run, state, _, text in await self.host.runs(NEWEST):
            of_why = msgspec.json.decode(text, type=RunSpec).why == why
            if of_why and state == "running" and run != what.run:
                raise RunProblem(f"run {run}, of {why}, goes on", "The next time it is begun again.")
        await self._submit(msgspec.structs.replace(what, why=why))

    async def _submit(self, spec: RunSpec) -> None:
        check_spec(spec)
        _check_name(spec.run)
        for digest in (spec.model, spec.bundle):
            await ThreadOffload()(partial(self._blob, digest))
        if spec.build:
            await ThreadOffload()(lambda: self._check_built(spec))
        if spec.retries:
            check_retry(spec, await self.asked(spec.retries))
        await self.host.submit("train", spec.run, msgspec.json.encode(spec).decode())

    async def check(self, spec: RunSpec) -> None:
        """Begin a check before a run. Raises `PlanError`, `SettingsError`, `BlobNotFound`, `TooMany`."""
        assert self.checks is not None
        await ThreadOffload()(partial(self._blob, spec.bundle))
        self.checks.begin(spec)

    def checked(self, run: str) -> dict[str, Any]:
        """Where a check is, and what the nodes say. Raises `RunNotFound`."""
        assert self.checks is not None
        return self.checks.status(run)

    def _check_built(self, spec: RunSpec) -> None:
        build = decode_build(self.builds.get(spec.build))
        try:
            plan = msgspec.json.decode(build.parts[PLAN], type=Built)
        except UNREADABLE as error:
            raise Untrusted("malformed", f"{PLAN} in the build cannot be read: {error}") from error
        check_built(spec, build.manifest.code, plan)

    async def asked(self, run: str) -> RunSpec:
        """What a run was begun with. Raises `RunNotFound`."""
        _check_name(run)
        return msgspec.json.decode(await self.host.spec(run), type=RunSpec)

    async def resume(self, run: str) -> None:
        """Let a run that was stopped or failed go on at its last finished round; one that runs, runs.

        Raises `RunNotFound`, `RunProblem` for one that is done.
        """
        if (await self.status(run))["state"] == "done":
            raise RunProblem(f"run {run} is done", f"Train it again under a new name: `reuna retry {run}`.")
        await self.host.resume(run)

    async def again(self, run: str, name: str) -> RunSpec:
        """Another try of a run that has ended, to `submit`. Raises `RunNotFound`, `RunProblem`."""
        if (await self.status(run))["state"] == "running":
            raise RunProblem(f"run {run} goes on", f"Wait for its end, or stop it first: `reuna stop {run}`.")
        return retry(await self.asked(run), name)

    async def status(self, run: str) -> dict[str, Any]:
        """Where a run is: its state, and the outcome or the error when it ended. Raises `RunNotFound`."""
        _check_name(run)
        return await self.host.status(run)

    async def runs(self) -> list[dict[str, Any]]:
        """The newest runs: name, project, task, rounds asked for, edges, state, and when they began."""
        found = []
        for run, state, began, text in await self.host.runs(NEWEST):
            spec = msgspec.json.decode(text, type=RunSpec)
            edges = sum(len(names) for names in spec.fogs.values())
            about = {"project": spec.project, "task": spec.task, "rounds": spec.rounds, "edges": edges}
            told = {"why": spec.why} if spec.why else {}
            gates = await self._judged(spec) if state == "done" and spec.build else {}
            found.append({"run": run, "state": state, "began": began, **about, **told, **gates})
        return found

    async def _judged(self, spec: RunSpec) -> dict[str, Any]:
        """What the gates of its build said of a run that is done, without every verdict."""
        if spec.run not in self._gates:
            outcome = (await self.host.status(spec.run))["result"]
            told = outcome.get("gates", {})
            self._gates[spec.run] = {
                name: told[name] for name in ("decision", "worst", "why", "left") if name in told
            }
        gates = self._gates[spec.run]
        return {"gates": gates} if gates else {}

    async def stop(self, run: str) -> None:
        """End a run until it is resumed; one that has ended stays as it is. Raises `RunNotFound`."""
        if (await self.status(run))["state"] == "running":
            await self.host.cancel(run)
            if self.traces:
                await self.ended(await self.asked(run), SystemClock().now(), "stopped")

    def triggering(self, file: Path, clock: Clock, reception: Reception) -> None:
        """Take up what begins runs by itself and is kept in a file; it looks once somebody keeps it."""
        self.triggers = Triggers(file, clock, Surroundings(self, reception, ThreadOffload()))

    def watching(self, file: Path, channels: Sequence[Channel], clock: Clock) -> Coroutine[None, None, None]:
        """Take up the alarms that are kept in a file; what then sends word of them, until cancelled."""
        fleet = self._admission.fleet
        self.monitor = Monitor(fleet, file, self._events, self.fogs, channels, clock, ThreadOffload())
        return self.monitor.tell()

    async def put_trigger(self, trigger: Trigger) -> None:
        """Begin a run again by itself. Raises `RunNotFound`, `PlanError`."""
        await self.triggers.put(trigger)

    def drop_trigger(self, name: str) -> None:
        """No more. Raises `RunNotFound`."""
        self.triggers.drop(name)

    def triggered(self) -> list[dict[str, Any]]:
        """What begins runs by itself, and how each stands."""
        return self.triggers.listed()

    def rolling_out(self, signing: Signing, stock: Stock, clock: Clock, offload: Offload) -> None:
        """Let rollouts begin, and those that are under way go on; before the host starts."""
        world = Seen(lambda: edge_sites(self.fogs()), stock.listed, self._events)
        turn = self.holdings.turn
        self.rollouts = Rollouts(self._name, self.host, self._events, signing, world, turn, clock, offload)
        self.host.register(KIND, self.rollouts.body)

    def fogs(self) -> dict[str, tuple[str, ...]]:
        """The fleet of now: fog -> its edges."""
        fogs: Mapping[str, Sequence[str]] = self.fleet()["fogs"]
        return {fog: tuple(edges) for fog, edges in fogs.items()}

    def over(self) -> dict[str, str]:
        """The fleet of now: fog -> the fog over it, of those that stand under one."""
        over: dict[str, str] = self.fleet()["above"]
        return over

    def timeline(self, run: str, after: int) -> list[dict[str, Any]]:
        """What happened in a run, from the ``after``-th event on."""
        return [msgspec.to_builtins(event) for event in self._events.read(run, after)]

    def may_tell(self, fog: str, event: Event, fogs: Collection[str]) -> bool:
        """Whether a fog may tell of an event. What the cloud says of a run, nobody else may say."""
        return event.what not in OWN_WORDS and self.is_of(fog, event.node, fogs)

    def is_of(self, fog: str, node: str, fogs: Collection[str]) -> bool:
        """Whether a fog may speak of a node: itself, or one that no run has under another fog.

        ``fogs``: those directly under the cloud, one of which it is.
        """
        return bool(self._own(fog, (node,), fogs))

    def _own(self, fog: str, nodes: Iterable[str], fogs: Collection[str]) -> list[str]:
        """Of those nodes the ones that a fog, or the one over it at the top, may speak of."""
        top = fog if fog in fogs else top_of(fog, {}, self.presence.above)
        others = {self._name, *fogs} - {top}
        return [each for each in nodes if each not in others and self._may_stand_under(each, top)]

    def _may_stand_under(self, node: str, top: str) -> bool:
        known = node in self.sites or node in self.placed
        return not known or top_of(node, self.sites, self.placed) == top

    def is_fog(self, fog: str, node: str) -> bool:
        """Whether a node that a fog directly under the cloud speaks of is itself, or a fog under it."""
        if node == fog:
            return True
        told = self.presence.above
        over = told if node in told else fogs_over(self._admission.register.nodes(), self.presence.told())
        return node in over and top_of(node, {}, over) == fog

    def runs_over(self, spec: RunSpec) -> None:
        """A run has its nodes where it says."""
        self.sites.update({edge: fog for fog, edges in spec.fogs.items() for edge in edges})
        self.placed = {fog: over for fog, over in self.placed.items() if fog not in spec.fogs} | spec.above

    def nodes(self) -> dict[str, float]:
        """Nodes heard of and when, seconds since the epoch."""
        return self.presence.nodes(lambda fog, edges: self._own(fog, edges, self._admission.names))

    def fleet(self) -> dict[str, Any]:
        """The fleet's name, its fogs, the edges of each and which fog stands under which, as they are now."""
        known, names, above = self._admission.register.nodes(), self._admission.names, self.presence.above
        told = {
            fog: self._own(fog, below, names)
            for fog, below in self.presence.told().items()
            if top_of(fog, {}, above) in names
        }
        fogs = shape(known, told, SystemClock().now())
        over = {fog: above for fog, above in fogs_over(known, told).items() if fog in fogs}
        return {"fleet": self._admission.fleet, "fogs": fogs, "above": over}

    async def releases(self, after: int, wait_s: float) -> dict[str, Any]:
        """What nodes may take and which hold it, see `Holdings.answer`; the fleet beside it."""
        found = await self.holdings.answer(after, wait_s)
        return {**await ThreadOffload()(self.fleet), **found}

    async def judge(self, spec: RunSpec, outcome: Outcome) -> dict[str, Any]:
        """What the gates of a run's build say of what its nodes measured, see `reuna.cloud.release`."""

        def work() -> dict[str, Any]:
            enrolled = {node.name: node.site for node in self._admission.register.nodes()}
            return release.judged(spec, outcome, self.timeline(spec.run, 0), enrolled, self.builds)

        found = await when_there_is_room(
            partial(ThreadOffload(), work), SystemClock(), log, waits=SERVER_AWAY
        )
        if found:
            await self.report(spec, "gates", {"decision": found["decision"]})
        return found

    async def report(self, spec: RunSpec, what: str, fields: dict[str, Setting]) -> None:
        """Note something in the run's timeline, once however often a step is carried out again."""
        round_number = int(fields.get("round", 0))
        sequence = (round_number << 32) + int(fields.get("attempt", 0))
        at = SystemClock().now()
        event = Event(self._name, f"{spec.run}/{what}", sequence, at, what, spec.run, round_number, fields)
        record = partial(self.offload, lambda: self._events.record(event))
        if await when_there_is_room(record, SystemClock(), log, waits=SERVER_AWAY) and self.traces:
            self.traces.heard(event)

    async def ended(self, spec: RunSpec, began_s: float, why: str = "") -> None:
        """A run has ended: without a result where ``why`` is said. ``began_s``: when it began or went on."""
        if self.traces is None:
            return
        try:
            events = await ThreadOffload()(lambda: self._events.read(spec.run))
        except ReunaError as error:  # no run fails for its trace
            log.warning("the trace of %s has no begin: %s %s", spec.run, error.code, error)
            events = []
        own = [each.at for each in events if each.node == self._name]
        self.traces.ended(spec, min([began_s, *own]), SystemClock().now(), why)


def _check_name(run: str) -> None:
    """A rollout is in the journal too, and none of the runs that can be stopped. Raises `RunNotFound`."""
    if ":" in run:
        raise RunNotFound(f"the cloud knows no run {run!r:.120}")
