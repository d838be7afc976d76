"""The `Bus` port in one process: what `reuna.adapters.nats_bus` promises, without a server.

    broker = MemoryBroker("cloud", rights={"cloud": parent_rights("cloud")})
    bus = broker.connect("cloud")

The broker is the server: streams, followers' places and known message ids live in it and
survive `MemoryBus.close` and `MemoryBroker.stop`. Deliveries run in tasks of whatever event
loop runs, in order, and wait on nothing but that loop's clock, so a virtual one will do.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from reuna.core.errors import BadMessage, BusDown, PermissionDenied
from reuna.core.ports import Handler, Subscription
from reuna.core.subjects import MAX_PAYLOAD, STORED, Rights, covers, matches

log = logging.getLogger("reuna.bus")

APPEND_S = 30.0
DUPLICATE_WINDOW_S = 120.0
REDELIVER_S = 0.1
_ROUTES_KEPT = 100_000
_ALL = Rights((">",), (">",))


@dataclass
class _Place:
    """A durable follower's place: what it still has to take, oldest first."""

    subject: str
    waiting: deque[tuple[str, bytes]] = field(default_factory=deque)
    follower: _Follower | None = None


class MemoryBroker:
    """What a server and its disk are. ``rights`` by name of the client; None lets all do all."""

    def __init__(
        self,
        name: str = "memory",
        rights: Mapping[str, Rights] | None = None,
        duplicate_window_s: float = DUPLICATE_WINDOW_S,
    ) -> None:
        self.name = name
        self.stored = 0  #: messages stored so far
        self._rights = rights
        self._window_s = duplicate_window_s
        self._up = asyncio.Event()
        self._up.set()
        self._exact: dict[str, dict[int, _Listener]] = {}  #: those of one subject, by subject
        self._wide: dict[int, _Listener] = {}  #: those of a pattern
        self._routes: dict[str, tuple[_Listener, ...]] = {}
        self._numbers = itertools.count()
        self._places: dict[str, _Place] = {}
        self._unclaimed: deque[tuple[str, bytes]] = deque()
        self._known: dict[str, float] = {}

    def connect(self, name: str, append_timeout_s: float | None = APPEND_S) -> MemoryBus:
        """A connection of node ``name``. Raises `PermissionDenied` for a name without rights."""
        rights = _ALL if self._rights is None else self._rights.get(name)
        if rights is None:
            raise PermissionDenied(f"{self.name} knows no {name}")
        return MemoryBus(self, name, rights, append_timeout_s)

    def stop(self) -> None:
        """Go away: publishing is lost, appending waits, followers pause. What is stored stays."""
        self._up.clear()

    def start(self) -> None:
        """Come back after `stop`."""
        self._up.set()
        for place in self._places.values():
            if place.follower is not None:
                place.follower.wake()

    @property
    def up(self) -> bool:
        """Whether it can be reached."""
        return self._up.is_set()

    async def reachable(self) -> None:
        """Wait until it is up."""
        await self._up.wait()

    def route(self, subject: str, data: bytes) -> None:
        """Hand a message to all who listen now."""
        routes = self._routes.get(subject)
        if routes is None:
            routes = self._find(subject)
        for listener in routes:
            listener.put(subject, data)

    def _find(self, subject: str) -> tuple[_Listener, ...]:
        near = itertools.chain(self._exact.get(subject, {}).items(), self._wide.items())
        found = tuple(each for _, each in sorted(near) if matches(each.subject, subject))
        if len(self._routes) >= _ROUTES_KEPT:
            self._routes.clear()
        self._routes[subject] = found
        return found

    def listen(self, listener: _Listener) -> int:
        """Add a listener; returns the number to `forget` it by."""
        number = next(self._numbers)
        self._among(listener)[number] = listener
        self._routes.clear()
        return number

    def forget(self, listener: _Listener, number: int) -> None:
        """Remove a listener."""
        if self._among(listener).pop(number, None) is not None:
            self._routes.clear()

    def _among(self, listener: _Listener) -> dict[int, _Listener]:
        """Where a listener is kept: by its one subject, or among those of a pattern."""
        if "*" in listener.subject or ">" in listener.subject:
            return self._wide
        return self._exact.setdefault(listener.subject, {})

    def store(self, subject: str, data: bytes, msg_id: str) -> bool:
        """Keep a message until its follower took it; False for an id seen within the window."""
        now = asyncio.get_running_loop().time()
        self._forget_ids(now)
        if msg_id in self._known:
            return False
        self._known[msg_id] = now
        self.stored += 1
        for place in self._places.values():
            if matches(place.subject, subject):
                place.waiting.append((subject, data))
                if place.follower is not None:
                    place.follower.wake()
                return True
        self._unclaimed.append((subject, data))
        return True

    def _forget_ids(self, now: float) -> None:
        while self._known:
            oldest = next(iter(self._known))
            if now - self._known[oldest] < self._window_s:
                return
            del self._known[oldest]

    def place(self, name: str, subject: str) -> _Place:
        """The place of a durable follower. Raises `PermissionDenied` when it would share one."""
        known = self._places.get(name)
        if known is not None and known.subject == subject:
            return known
        for other, place in self._places.items():
            if covers(place.subject, subject) or covers(subject, place.subject):
                raise PermissionDenied(f"{subject} has another follower than {name}: {other}")
        place = self._places[name] = _Place(subject)
        rest = deque[tuple[str, bytes]]()
        for message in self._unclaimed:
            (place.waiting if matches(subject, message[0]) else rest).append(message)
        self._unclaimed = rest
        return place


class MemoryBus:
    """One client's connection to a `MemoryBroker`."""

    def __init__(
        self, broker: MemoryBroker, name: str, rights: Rights, append_timeout_s: float | None
    ) -> None:
        self.name = name
        self.violations = 0  #: how often this client did what its rights forbid
        self._broker = broker
        self._rights = rights
        self._append_timeout_s = append_timeout_s
        self._allowed: set[str] = set()
        self._open: list[_Listener | _Follower] = []
        self._closed = False

    async def publish(self, subject: str, data: bytes) -> bool:
        if not (self._may_publish(subject, data) and self._broker.up):
            return False
        self._broker.route(subject, data)
        return True

    async def subscribe(self, subject: str, handle: Handler) -> Subscription:
        if not any(covers(each, subject) for each in self._rights.subscribe):
            self.violations += 1
            raise PermissionDenied(f"{self.name} may not subscribe to {subject}")
        listener = _Listener(self._broker, subject, handle)
        self._open.append(listener)
        return listener

    async def append(self, subject: str, data: bytes, msg_id: str) -> None:
        if not self._may_publish(subject, data):
            raise PermissionDenied(f"{self.name} may not publish to {subject}")
        if not matches(STORED, subject):
            raise BusDown(f"{self._broker.name} stores nothing on {subject}")
        await self._reachable(subject)
        if self._broker.store(subject, data, msg_id):
            self._broker.route(subject, data)

    async def _reachable(self, subject: str) -> None:
        if self._broker.up:
            return
        try:
            async with asyncio.timeout(self._append_timeout_s):
                await self._broker.reachable()
        except TimeoutError:
            raise BusDown(f"{subject} was not stored by {self._broker.name} in time") from None

    async def follow(self, subject: str, name: str, handle: Handler) -> Subscription:
        if not any(covers(each, subject) for each in self._rights.subscribe):
            self.violations += 1
            raise PermissionDenied(f"{self.name} may not follow {subject}")
        follower = _Follower(self._broker, self._broker.place(name, subject), handle)
        self._open.append(follower)
        return follower

    async def close(self) -> None:
        self._closed = True
        for each in self._open:
            await each.stop()
        self._open.clear()

    def drop(self) -> None:
        """The process behind this connection was killed: nothing more is delivered to it."""
        self._closed = True
        for each in self._open:
            each.drop()
        self._open.clear()

    def _may_publish(self, subject: str, data: bytes) -> bool:
        if self._closed:
            raise BusDown(f"the connection of {self.name} is closed")
        if len(data) > MAX_PAYLOAD:
            raise BadMessage(f"{len(data)} bytes on {subject}; a word has at most {MAX_PAYLOAD}")
        if subject in self._allowed:
            return True
        if any(matches(each, subject) for each in self._rights.publish):
            self._allowed.add(subject)
            return True
        self.violations += 1
        log.warning("%s may not do this: publish of %s", self.name, subject)
        return False


class _Listener:
    """Hands messages to its handler one after another; its task lives only while there are any."""

    def __init__(self, broker: MemoryBroker, subject: str, handle: Handler) -> None:
        self.subject = subject
        self._broker = broker
        self._handle = handle
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._number = broker.listen(self)
        self._context = contextvars.copy_context()  # deliveries belong to whoever listens

    def put(self, subject: str, data: bytes) -> None:
        """Queue a message."""
        self._waiting.append((subject, data))
        if self._task is None:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._drain(), context=self._context)

    async def _drain(self) -> None:
        while self._waiting:
            subject, data = self._waiting.popleft()
            try:
                await self._handle(subject, data)
            except Exception:  # at most once: one bad message must not end the listening
                log.exception("handler of %s raised", self.subject)
        self._task = None

    def drop(self) -> None:
        """The listener is gone without a word."""
        self._broker.forget(self, self._number)
        self._waiting.clear()

    async def stop(self) -> None:
        self.drop()
        await _cancel(self._task)
        self._task = None


class _Follower:
    """Takes a place's messages in order; each leaves the place when its handler returned."""

    def __init__(self, broker: MemoryBroker, place: _Place, handle: Handler) -> None:
        self._broker = broker
        self._place = place
        self._handle = handle
        self._task: asyncio.Task[None] | None = None
        place.follower = self
        self._context = contextvars.copy_context()
        self.wake()

    def wake(self) -> None:
        """There may be something to take."""
        if self._task is None and self._place.waiting and self._broker.up:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._drain(), context=self._context)

    async def _drain(self) -> None:
        waiting = self._place.waiting
        while waiting and self._broker.up and self._place.follower is self:
            message = waiting[0]
            try:
                await self._handle(*message)
            except Exception:  # at least once: whatever it raised, it comes again
                log.warning("%s comes again", message[0], exc_info=True)
                await asyncio.sleep(REDELIVER_S)
                continue
            if waiting and waiting[0] is message:
                waiting.popleft()
        self._task = None

    def drop(self) -> None:
        """The follower is gone without a word; its place stays."""
        if self._place.follower is self:
            self._place.follower = None

    async def stop(self) -> None:
        self.drop()
        await _cancel(self._task)
        self._task = None


async def _cancel(task: asyncio.Task[None] | None) -> None:
    """End a delivery; a handler may close its own bus, and then ends by itself."""
    if task is None or task is asyncio.current_task():
        return
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
