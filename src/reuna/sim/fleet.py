"""A whole fleet in one process: the real edge, fog and cloud code over the fakes of this package.

Every node has a disk that survives a crash, and processes that do not: the place's own and, below
the cloud, its egress. Each can be killed alone (`reuna.sim.lives`). What is not planted does not go
wrong, and the same seed gives the same history.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from reuna.cloud.check import Checks
from reuna.cloud.plan import Planner
from reuna.cloud.train import Conductor, Outcome
from reuna.core.answers import fitted, numbers
from reuna.core.bins import Counted
from reuna.core.contract import Line
from reuna.core.data import Dataset
from reuna.core.errors import LearnerError, ReunaError, Unreachable
from reuna.core.fingerprint import Window
from reuna.core.ports import Blob, Bus, Clock, Depot, Handler, Journal, Learner, Link, Subscription
from reuna.core.readiness import Needs
from reuna.core.records import Event, Hello, Metrics, Plan, RunSpec, Setting, Terms
from reuna.core.tensors import finite, pack, unpack
from reuna.core.tree import Above, tree_under
from reuna.edge.ready import Looked
from reuna.edge.train import Fitted, Trainer
from reuna.exchange.egress import Egress
from reuna.exchange.intake import Intake
from reuna.exchange.leftovers import Leftovers
from reuna.exchange.meter import CountedFlows
from reuna.exchange.presence import Presence
from reuna.fog.train import Combiner
from reuna.sim.bus import MemoryBroker, MemoryBus
from reuna.sim.clock import InPlace
from reuna.sim.freight import MemoryFreight, Weather
from reuna.sim.lives import Incarnation, Killed, SimLink
from reuna.sim.storage import MemoryBlob, MemoryBlobs, MemoryIndex, MemorySpool
from reuna.trust.requests import vouched, without_roster
from reuna.wire import VERSION, decode, digest_bytes, unpacked

HELLO_S = 5.0
BUNDLE = b"in-process"  #: the code of a simulated run, which is there already


def unsealed(plan: bytes) -> bytes:
    """A plan where every line is honest about its sender: without a seal, however it came."""
    return unpacked(plan)


class Faults:
    """What goes wrong. This one is fair weather; `reuna.sim.faults` plants faults from a seed."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def point(self, node: str, what: str) -> None:
        """Called before and after each effect of a node; may kill it by raising `Killed`."""

    def weather(self, node: str) -> Weather:
        """What the line to the node's parent does to freight."""
        return Weather()

    def copies(self, node: str) -> list[float]:
        """Delays after which a word to or from the node arrives, s; none when it is lost."""
        return [0.0]

    def update(self, node: str, body: bytes) -> bytes:
        """What a lying node sends in place of its update."""
        return body


class FairWeather(Faults):
    """Nothing is killed and no word is lost, so ports need no guard: for speed."""


def guard(port: Any, life: Incarnation, faults: Faults, effects: tuple[str, ...]) -> Any:
    """The port as one process sees it."""
    return port if isinstance(faults, FairWeather) else Guard(port, life, faults, effects)


def line(bus: Bus, node: str, faults: Faults) -> Bus:
    """The bus as a node's line lets it be heard."""
    return bus if isinstance(faults, FairWeather) else LossyBus(bus, node, faults)


class Guard:
    """A port as one process sees it: refuses a dead process, and is where kills happen."""

    def __init__(self, port: Any, life: Incarnation, faults: Faults, effects: tuple[str, ...]) -> None:
        self._port = port
        self._life = life
        self._faults = faults
        self._effects = effects

    def __getattr__(self, name: str) -> Any:
        if not self._life.alive:
            raise Killed
        found = getattr(self._port, name)
        if name not in self._effects:
            return found
        if asyncio.iscoroutinefunction(found):
            return self._around_async(name, found)
        return self._around(name, found)

    def _around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self._faults.point(self._life.node, f"before {name}")
            self._check()
            result = call(*args, **kwargs)
            self._faults.point(self._life.node, f"after {name}")
            self._check()
            return result

        return guarded

    def _around_async(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            self._faults.point(self._life.node, f"before {name}")
            self._check()
            result = await call(*args, **kwargs)
            self._faults.point(self._life.node, f"after {name}")
            self._check()
            return result

        return guarded

    def _check(self) -> None:
        if not self._life.alive:
            raise Killed


class LossyBus:
    """A bus whose words may be lost, doubled or late; what is appended is not."""

    def __init__(self, bus: Bus, node: str, faults: Faults) -> None:
        self._bus = bus
        self._node = node
        self._faults = faults

    async def publish(self, subject: str, data: bytes) -> bool:
        for delay in self._faults.copies(self._node):
            if delay <= 0:
                await self._bus.publish(subject, data)
            else:
                asyncio.get_running_loop().create_task(self._later(delay, subject, data))
        return True

    async def _later(self, delay: float, subject: str, data: bytes) -> None:
        await asyncio.sleep(delay)
        await self._bus.publish(subject, data)

    async def subscribe(self, subject: str, handle: Handler) -> Subscription:
        return await self._bus.subscribe(subject, handle)

    async def append(self, subject: str, data: bytes, msg_id: str) -> None:
        await self._bus.append(subject, data, msg_id)

    async def follow(self, subject: str, name: str, handle: Handler) -> Subscription:
        return await self._bus.follow(subject, name, handle)

    async def close(self) -> None:
        await self._bus.close()


Tell = Callable[[ReunaError], None]


class InlineWorkshop:
    """The `Workshop` port with the learner in the same process.

    It is held to its port as in a worker. ``tell`` hears of each failure, which names ``node``;
    ``takes_s``: seconds of the loop's time that a training takes beside what it really does.
    """

    level = 0  #: nothing holds its code back
    lines: tuple[Line, ...] = ()  #: its data are no tables
    bins: tuple[Counted, ...] = ()
    window: Window | None = None  #: and no files

    def __init__(
        self,
        learner: Learner,
        data: Any,
        node: str = "this node",
        tell: Tell = lambda _error: None,
        takes_s: float = 0.0,
    ) -> None:
        self._takes_s = takes_s
        self._learner = learner
        self._data = data
        self._node = node
        self._tell = tell

    async def open(self, run: str, bundle: Blob, settings: Mapping[str, Setting], terms: Terms) -> None:
        return

    def hold(self, bundle: Blob, why: str) -> None:
        """There are no officers here."""

    async def look(
        self, bundle: Blob | None, settings: Mapping[str, Setting], needs: Needs, terms: Terms
    ) -> Looked:
        """Code and data are loaded already; of memory nothing is known."""
        train = self._data.train if isinstance(self._data, Dataset) else None
        return Looked(samples=None if train is None else len(train))

    async def survey(self, terms: Terms) -> Window | None:
        return self.window

    async def fit(self, model: Blob, settings: Mapping[str, Setting], seed: int) -> Fitted:
        if self._takes_s:
            await asyncio.sleep(self._takes_s)
        tensors = unpack(model.read(0, model.size))
        with blame(f"{self._node}, training", self._tell):
            trained, weight, metrics = self._learner.fit(tensors, self._data, dict(settings), seed)
            told = fitted(tensors, trained, weight, metrics)
            wrong = [name for name, tensor in sorted(trained.items()) if not finite(tensor)]
            if wrong:
                raise LearnerError(f"fit returned values that are not finite in {wrong[0]!r}")
        return Fitted(MemoryBlob(pack(trained), ""), weight, told)

    async def evaluate(self, model: Blob, settings: Mapping[str, Setting]) -> Metrics:
        tensors = unpack(model.read(0, model.size))
        with blame(f"{self._node}, evaluating", self._tell):
            return numbers(self._learner.evaluate(tensors, self._data, dict(settings)))


@contextmanager
def blame(where: str, tell: Tell = lambda _error: None) -> Iterator[None]:
    """Whatever a learner raises becomes an error of ours that says where; ``tell`` hears of it."""
    try:
        yield
    except ReunaError as error:
        error.message = f"{where}: {error.message}"
        tell(error)
        raise
    except Exception as error:  # a learner may raise anything
        wrapped = LearnerError(f"{where}: {type(error).__name__}: {error}")
        tell(wrapped)
        raise wrapped from error


@dataclass
class Disk:
    """What a node keeps when its process dies."""

    blobs: MemoryBlobs = field(default_factory=MemoryBlobs)
    spool: MemorySpool = field(default_factory=MemorySpool)
    outbox: MemorySpool = field(default_factory=MemorySpool)
    leftovers: MemoryBlobs = field(default_factory=MemoryBlobs)
    unsent: MemoryIndex = field(default_factory=MemoryIndex)

    @property
    def full(self) -> bool:
        return self.spool.disk.capacity is not None

    def fill(self) -> None:
        """Not one byte more, until `clear`."""
        for part in (self.blobs, self.spool, self.outbox, self.leftovers):
            part.disk.fill()

    def clear(self) -> None:
        """Room again."""
        for part in (self.blobs, self.spool, self.outbox, self.leftovers):
            part.disk.capacity = None

    def crash(self, power: bool) -> None:
        for part in (self.blobs, self.spool, self.outbox, self.leftovers):
            part.crash(power)


@dataclass(frozen=True)
class SimEdge:
    """An edge's learner and data; ``rounds`` in which it trains, all if None: it is silent in others.

    ``takes_s``: virtual seconds that a training takes.
    """

    learner: Learner
    data: Any
    rounds: frozenset[int] | None = None
    takes_s: float = 0.0

    def hears(self, plan: bytes) -> bool:
        """Whether it answers to a plan."""
        if self.rounds is None:
            return True
        asked = decode(Plan, plan)
        return asked.task != "train" or asked.round in self.rounds


JournalFor = Callable[[], Journal]
BLOB_EFFECTS = ("put",)
SPOOL_EFFECTS = ("begin", "commit", "drop")
FREIGHT_EFFECTS = ("send", "send_made", "fetch")


class SimFleet:
    """One cloud, its fogs and their edges. ``fogs`` maps fog -> edge -> learner and data.

    ``above``: the fog over each fog that does not stand directly under the cloud.
    """

    def __init__(
        self,
        fogs: Mapping[str, Mapping[str, SimEdge]],
        clock: Clock,
        journal: JournalFor,
        faults: Faults | None = None,
        announce_s: float = 1.0,
        watch: Callable[[str, Mapping[str, Setting]], None] | None = None,
        above: Above | None = None,
    ) -> None:
        self.fogs = fogs
        self.above = above or {}
        self._watch = watch
        self.faults = faults or Faults()
        self.disks: dict[str, Disk] = {}
        self.lives: dict[str, Incarnation] = {}  #: of the places
        self.egresses: dict[str, Incarnation] = {}  #: of the egress beside each place below the cloud
        self._links: dict[str, SimLink] = {}
        self.depots: dict[str, Depot] = {}
        self.meters: dict[str, CountedFlows] = {}
        self.trained: list[tuple[str, tuple[str, int, int]]] = []
        self.refused: Counter[str] = Counter()
        self.timeline: dict[tuple[str, int], dict[str, Setting]] = {}
        self._clock = clock
        self._journal = journal
        self._announce_s = announce_s
        self.hub = MemoryBroker("hub")
        self._sites = {fog: MemoryBroker(fog) for fog in fogs}
        self._spec: RunSpec | None = None
        self.outcome: asyncio.Future[Outcome] | None = None
        self.running = False
        self.steps = True  #: whether models go down as their differences where that is smaller
        self.checks: Checks | None = None  #: of the cloud's present life
        for node in ("cloud", *fogs, *(edge for edges in fogs.values() for edge in edges)):
            self.disks[node] = Disk()
            self.meters[node] = CountedFlows(node)

    @property
    def nodes(self) -> list[str]:
        """Every node's name."""
        return list(self.disks)

    def parent(self, node: str) -> str:
        """The node above."""
        return next((fog for fog, edges in self.fogs.items() if node in edges), self.above.get(node, "cloud"))

    # --- a run -------------------------------------------------------------------------------

    async def run(self, spec: RunSpec, model: bytes, bundle: bytes) -> Outcome:
        """Carry out a run to its end, however often nodes are killed and started on the way."""
        for data in (model, bundle):
            self.disks["cloud"].blobs.put(data)
        self._spec = spec
        self.outcome = asyncio.get_running_loop().create_future()
        self.running = True
        for node in self.nodes:
            self.start(node)
        try:
            return await self.outcome
        finally:
            self.running = False
            for node in self.nodes:
                self.kill(node)

    def start(self, node: str) -> None:
        """Begin a life of a node's place, and of its egress."""
        self.kill_egress(node)
        life = Incarnation(node)
        self.lives[node] = life
        if node == "cloud":
            life.start(self._cloud(life))
        elif node in self.fogs:
            life.start(self._fog(life))
        else:
            life.start(self._edge(life))

    def kill(self, node: str, power: bool = False) -> None:
        """End a node's processes at once; with ``power`` what was not forced to disk is lost too."""
        self.kill_place(node)
        self.kill_egress(node)
        self.disks[node].crash(power)

    def kill_place(self, node: str) -> None:
        """End a place alone. Its egress ends when it sees that, so somebody must end it soon."""
        life = self.lives.pop(node, None)
        if life is None:
            return
        life.kill()
        self.depots.pop(node, None)
        self.disks[node].spool.crash(power=False)
        link = self._links.pop(node, None)
        if link is not None:
            link.end()

    def kill_egress(self, node: str) -> None:
        """End an egress alone; the place's open calls are made again at the next one."""
        life = self.egresses.pop(node, None)
        if life is None:
            return
        life.kill()
        self.disks[node].outbox.crash(power=False)
        link = self._links.get(node)
        if link is not None:
            link.lose()

    def start_egress(self, node: str) -> None:
        """Begin another life of the egress beside a place that lives."""
        life = Incarnation(node)
        self.egresses[node] = life
        life.start(self._links[node].serve(self._egress(life), life))

    # --- the places, as their main files put them together -------------------------------------

    async def _cloud(self, life: Incarnation) -> None:
        assert self._spec is not None and self.outcome is not None
        disk, faults = self.disks["cloud"], self.faults
        bus = line(self._connect(life, self.hub), "cloud", faults)
        blobs = guard(disk.blobs, life, faults, BLOB_EFFECTS)
        spool = guard(disk.spool, life, faults, SPOOL_EFFECTS)
        intake = Intake("cloud", blobs, spool, None, self._announce_s)
        planner = Planner(bus, intake, unsealed)
        conductor = Conductor(
            "cloud", planner, intake, blobs, self._clock, InPlace(), self._report, self.steps
        )
        self.checks = Checks("cloud", planner, intake, conductor.turn, InPlace())
        self.depots["cloud"] = intake
        await bus.subscribe("hello.>", lambda _s, data: planner.on_hello(decode(Hello, data)))
        journal = guard(self._journal(), life, faults, ())
        try:
            outcome = await conductor.body(journal, self._spec)
        except Exception as error:  # noqa: BLE001  # the run's end is told to whoever waits for it
            if life.alive and not self.outcome.done():
                self.outcome.set_exception(error)
            return
        self.note_refusals()
        if life.alive and not self.outcome.done():
            self.outcome.set_result(outcome)

    def fail(self, error: ReunaError) -> None:
        """End the run: here a learner that failed fails again however often it is asked."""
        if self.outcome is not None and not self.outcome.done():
            self.outcome.set_exception(error)

    async def _report(self, spec: RunSpec, what: str, fields: dict[str, Setting]) -> None:
        self.timeline[what, int(fields.get("round", 0))] = fields
        if self._watch is not None:
            self._watch(what, fields)

    async def _fog(self, life: Incarnation) -> None:
        name, disk = life.node, self.disks[life.node]
        bus = line(self._connect(life, self._sites[name]), name, self.faults)
        link = self._link(life)
        spool = guard(disk.spool, life, self.faults, SPOOL_EFFECTS)
        intake = Intake(name, disk.blobs, spool, link.fetch, self._announce_s)
        children = tree_under(name, self.fogs, self.above)[name]
        combiner = Combiner(name, children, link, bus, intake, InPlace(), self._clock)
        self.depots[name] = intake
        presence = self._presence(link, name, lambda: (combiner.works_on, intake.moving.held))
        await link.listen(presence.answering(combiner.on_plan))
        await bus.subscribe("hello.>", lambda _s, data: combiner.on_hello(decode(Hello, data)))

        async def pass_up(_subject: str, data: bytes) -> None:
            await link.emit(decode(Event, data))

        await bus.follow("event.>", "up", pass_up)
        await presence.keep()

    async def _edge(self, life: Incarnation) -> None:
        name = life.node
        link = self._link(life)
        edge = self.fogs[self.parent(name)][name]
        workshop = InlineWorkshop(edge.learner, edge.data, name, self.fail, edge.takes_s)
        trainer = Trainer(name, name, link, workshop, self._clock)
        trainer.trained = _Noted(name, self.trained)

        async def hear(plan: bytes, signed: bytes, terms: Terms | None) -> None:
            if edge.hears(plan):
                await trainer.on_plan(plan, signed, terms)

        presence = self._presence(link, name, lambda: (trainer.works_on, False))
        await link.listen(presence.answering(hear))
        await presence.keep()

    def _connect(self, life: Incarnation, broker: MemoryBroker) -> MemoryBus:
        """A connection that is lost when the process is killed."""
        connection = broker.connect(life.node)
        life.connections.append(connection)
        return connection

    def _presence(self, link: Link, name: str, about: Callable[[], tuple[str, bool]]) -> Presence:
        """``about``: the plan it works on, and whether it holds the round open."""

        def say(every_s: float) -> Awaitable[None]:
            works_on, held = about()
            return link.hello(
                Hello(name, "sim", "0", protocol=VERSION, every_s=every_s, works_on=works_on, held=held)
            )

        return Presence(say, HELLO_S)

    def _link(self, life: Incarnation) -> Link:
        """What a place reaches its egress by; where nothing is killed, the egress itself."""
        if isinstance(self.faults, FairWeather):
            return self._egress(life)
        link = SimLink(life)
        self._links[life.node] = link
        self.start_egress(life.node)
        return link

    def _egress(self, life: Incarnation) -> Egress:
        name, disk, faults = life.node, self.disks[life.node], self.faults
        parent = self.parent(name)
        bus = self._connect(life, self._sites.get(parent, self.hub))
        freight = MemoryFreight(lambda: self._depot(parent), name, disk.blobs, faults.weather(name))
        return Egress(
            name,
            parent,
            guard(line(bus, name, faults), life, faults, ()),
            guard(freight, life, faults, FREIGHT_EFFECTS),
            guard(disk.blobs, life, faults, BLOB_EFFECTS),
            guard(disk.outbox, life, faults, SPOOL_EFFECTS),
            self.meters[name],
            self._clock,
            InPlace(),
            unsealed,
            without_roster,
            vouched,
            Leftovers(guard(disk.leftovers, life, faults, BLOB_EFFECTS), disk.unsent),
        )

    def _depot(self, node: str) -> Depot:
        if node not in self.depots:
            raise Unreachable(f"{node} is down")
        return self.depots[node]

    def note_refusals(self) -> None:
        """Count what the depots refused."""
        for depot in self.depots.values():
            if isinstance(depot, Intake):
                for peer, reasons in depot.refused.items():
                    self.refused.update({f"{peer} {reason}": n for reason, n in reasons.items()})


class _Noted(list[tuple[str, int, int]]):
    """Notes every training anywhere in the fleet, across lives."""

    def __init__(self, node: str, all_of_them: list[tuple[str, tuple[str, int, int]]]) -> None:
        super().__init__()
        self._node = node
        self._all = all_of_them

    def append(self, key: tuple[str, int, int]) -> None:
        self._all.append((self._node, key))
        super().append(key)


def make_spec(
    fogs: Mapping[str, Mapping[str, SimEdge]],
    learner: Learner,
    rounds: int,
    above: Above | None = None,
    **changes: Any,
) -> tuple[RunSpec, bytes, bytes]:
    """A run over a simulated fleet: its spec, initial model and (empty) bundle."""
    seed = int(changes.get("seed", 1))
    with blame("making the first model"):
        model, bundle = pack(learner.init(seed)), BUNDLE
    params = sum(tensor.size for tensor in unpack(model).values())
    spec: dict[str, Any] = {
        "run": "r-sim",
        "project": "sim",
        "task": "fault-classification",
        "metric": "all",
        "rounds": rounds,
        "strategy": "fedavg",
        "fogs": {fog: tuple(edges) for fog, edges in fogs.items()},
        "model": digest_bytes(model),
        "model_size": len(model),
        "params": params,
        "bundle": digest_bytes(bundle),
        "bundle_size": len(bundle),
        "local": False,
        "evaluate": False,
    }
    if above:
        spec["above"] = dict(above)
    return RunSpec(**{**spec, **changes}), model, bundle


def random_of(seed: int, what: str) -> random.Random:
    """An own generator for each use, so that one fault more does not change the others."""
    return random.Random(f"{seed}/{what}")
