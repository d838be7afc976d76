"""The `Bus` port over nats-py: words that survive restarts of either end.

    bus = await NatsBus.connect("tls://10.0.0.5:4222", client_context(...), "plant-1")
    await bus.append("event.plant-1", data, msg_id)      # on the server's disk when it returns

The connection is restored for ever; subscriptions and followers come back with it. While it is
away `publish` drops, as its port says, and `append` waits. No more than a window is on its way: so many
bytes that the server has not said it took, so many appends. What the server holds for a receiver that
reads slowly is bounded by its configuration (`reuna.adapters.nats_server`). `follow` keeps the stream and a
durable push consumer with one message in flight, so order is the stream's order; a message
whose handler raised, or whose process died, is delivered again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import ssl
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

from reuna.adapters import thin_lines
from reuna.core.errors import BadMessage, BusDown, PermissionDenied, ReunaError
from reuna.core.ports import Handler, Subscription
from reuna.core.subjects import CONNECTIONS, KICK, MAX_PAYLOAD, STORED, STREAM, inbox

# nats-py loads aiohttp wherever it is installed, for WebSockets that we do not use: 8 MiB and 0.1 s a node.
_unused = "aiohttp" not in sys.modules
if _unused:
    sys.modules["aiohttp"] = None  # type: ignore[assignment]  # as if it were not installed
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.aio.transport import TcpTransport
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError

if _unused:
    del sys.modules["aiohttp"]

log = logging.getLogger("reuna.bus")

CONNECT_S = 5.0
GIVE_UP_S, GIVE_UP_TRIES = 1.0, 4  #: an attempt that is over ends within that, asked so often
PING_S = 30  #: a line that is silently dead is noticed after three of these
LOOK_S = 5.0  #: between two looks whether this machine still has the address of its connection
BUSY_LOOK_S = 0.5  #: between two looks whether the line is still busy,
AFTER_S = 120.0  #: and so long at most words wait for freight
PENDING = 65_536  #: words that wait for their handler; more are dropped
APPEND_S = 30.0
PATIENCE_S = 2.0  # a message not acknowledged for so long is delivered again
WORKING_S = 0.5  # how often a handler at work says so, against PATIENCE_S
REDELIVER_S = 0.1  # pause after a handler raised
_API_S = 2.0  # one question to the stream's keeper
_WINDOW_S = 15.0  # longer than a server waits for a receiver before it cuts the line (`write_deadline`)
_ATTEMPTS_S = (0.5, 1.0, 2.0)  # tries of an append; one sent into a dying hub gets no answer
_RETRY_S = 0.1
_APPENDS = 16  #: of a node on their way at a time; more wait with who says them
_IN_FLIGHT = MAX_PAYLOAD  #: bytes published that the server has not said it took; then we wait for it
_HELD_BYTES = 8 * MAX_PAYLOAD  #: that wait here for a slow handler; what comes then is dropped
_RECONNECT_S = (0.1, 0.3)
_REFUSED_S = 2.0  # between tries at a server that refuses us: not in its list yet, or not any more
_ALREADY_THERE = 10058  # JetStream: stream name already in use with a different configuration
_CONFLICTS = (10013, 10099, 10100, 10148)  # JetStream: another consumer holds these messages
_VIOLATION = re.compile(r'permissions violation for (publish|subscription) (?:to )?"([^"]*)"')
_REFUSALS = ("authorization", "authentication", "certificate", "unknown ca")


@dataclass(frozen=True)
class StreamLimits:
    """Bounds of the stored events. When full, new ones are refused and wait with their sender.

    A message leaves when its follower took it. Within ``duplicate_window_s`` a second append
    of one ``msg_id`` is stored once; later ones are the receiver's to recognise.
    """

    max_bytes: int = 64_000_000
    max_each: int = 16_384  #: events of one node that wait, so that none fills the stream for all
    max_age_s: float = 90 * 86_400.0
    duplicate_window_s: float = 120.0


def _nothing_else() -> bool:
    """Where the bus alone is on the line."""
    return False


class NatsBus:
    """One identity's connection; open it with `connect`."""

    def __init__(
        self,
        url: str,
        tls: ssl.SSLContext,
        name: str,
        inbox_prefix: str,
        append_timeout_s: float | None,
        limits: StreamLimits,
        own: bool,
        busy: Callable[[], bool],
    ) -> None:
        self._busy = busy
        self.name = name
        self.violations = 0  #: how often the server said that we may not do what we did
        self.reconnects = 0
        self._url = url
        self._tls = tls
        self._inbox = inbox_prefix
        self._append_timeout_s = append_timeout_s
        self._limits = limits
        self._own = own
        self._echo: NatsSubscription | None = None  #: where the own server says that nobody listens
        self._asking = asyncio.Lock()
        self._appending = asyncio.Semaphore(_APPENDS)
        self._in_flight = 0  #: bytes published since the server last answered
        self._client = Client()
        self._online = asyncio.Event()
        self._offline = asyncio.Event()
        self._offline.set()
        self._closing = False
        self._refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._denied: dict[str, set[asyncio.Future[None]]] = {}
        self._subscriptions: list[_Subscribed | _Follower] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def connect(
        cls,
        url: str,
        tls: ssl.SSLContext,
        name: str,
        inbox_prefix: str | None = None,
        *,
        timeout_s: float = CONNECT_S,
        append_timeout_s: float | None = APPEND_S,
        limits: StreamLimits | None = None,
        own: bool = False,
        busy: Callable[[], bool] = _nothing_else,
    ) -> NatsBus:
        """Open the connection of node ``name``; its certificate is in ``tls``.

        Raises `BusDown` when the server cannot be reached in ``timeout_s``, `PermissionDenied`
        when it refuses our certificate or we refuse its. ``append_timeout_s`` None waits for ever.
        ``own``: the server is of this node, so that what it passes on to nobody stays here. ``busy``: whether
        something moves that a new connection would hold up on a thin line: it is made after it.
        """
        logging.getLogger("asyncio").addFilter(_worth_telling)  # once, however often it is added
        prefix = inbox_prefix or inbox(name)
        bus = cls(url, tls, name, prefix, append_timeout_s, limits or StreamLimits(), own, busy)
        try:
            await bus._open(timeout_s)
        except BaseException:
            await bus.close()
            raise
        return bus

    @property
    def connected(self) -> bool:
        """Whether the server can be spoken to right now."""
        return self._online.is_set()

    async def online(self) -> None:
        """Wait until the server can be spoken to."""
        await self._online.wait()

    async def offline(self) -> None:
        """Wait until the server is known to be away."""
        await self._offline.wait()

    async def publish(self, subject: str, data: bytes) -> bool:
        """As the port says. Raises `BadMessage` above `MAX_PAYLOAD`."""
        _check_size(subject, data)
        if not self._client.is_connected:
            return False
        try:
            if self._own:
                return await self._passed_on(subject, data)
            await self._client.publish(subject, data)
            await self._within_window(len(data))
        except (NatsError, NatsTimeout) as error:
            log.debug("dropped a message on %s: %r", subject, error)
        return True

    async def _within_window(self, size: int) -> None:
        """Wait for the server once a window is on its way: it answers late while a receiver is slow."""
        self._in_flight += size
        if self._in_flight >= _IN_FLIGHT:
            self._in_flight = 0
            await self._client.flush(timeout=_WINDOW_S)

    async def _passed_on(self, subject: str, data: bytes) -> bool:
        """Publish, and whether somebody listened: if not, the server says so before it answers a ping.

        A message with a reply subject and without a listener gets an answer with status 503
        (https://docs.nats.io/nats-concepts/core-nats/reqreply#no-responders).
        """
        async with self._asking:
            if self._echo is None:
                self._echo = await self._client.subscribe(self._client.new_inbox())
            while self._echo.pending_msgs:  # of a line that broke before its ping was answered
                await self._echo.next_msg()
            await self._client.publish(subject, data, reply=self._echo.subject)
            for _ in range(2):  # nats-py's own ping overtakes what is published and not yet written
                await self._client.flush(timeout=_API_S)
            return not self._echo.pending_msgs

    async def subscribe(self, subject: str, handle: Handler) -> Subscription:
        """As the port says; active at the server when it returns. Raises `PermissionDenied`."""
        subscribed = _Subscribed(self, subject, handle)
        await subscribed.open()
        self._subscriptions.append(subscribed)
        return subscribed

    async def append(self, subject: str, data: bytes, msg_id: str) -> None:
        """As the port says. Raises `PermissionDenied` when this identity may not, `BadMessage`."""
        _check_size(subject, data)
        try:
            async with asyncio.timeout(self._append_timeout_s), self._appending:
                for patience_s in chain(_ATTEMPTS_S, repeat(_ATTEMPTS_S[-1])):
                    if await self._append_once(subject, data, msg_id, patience_s):
                        return
                    await asyncio.sleep(_RETRY_S)  # a hub behind the link does not say it is back
        except TimeoutError:
            raise BusDown(
                f"{subject} was not stored by {self._url} within {self._append_timeout_s} s"
            ) from None

    async def follow(self, subject: str, name: str, handle: Handler) -> Subscription:
        """As the port says; two followers of other names may not share a subject."""
        follower = _Follower(self, subject, name, handle)
        await follower.open()
        self._subscriptions.append(follower)
        return follower

    async def keep_stream(self) -> None:
        """Make the stored stream, or bring its limits up to date; `follow` does so itself."""
        stream = self._jetstream()
        config = _stream_config(self._limits)
        try:
            await stream.add_stream(config)
        except APIError as error:
            if error.err_code != _ALREADY_THERE:
                raise
            await stream.update_stream(config)

    async def close(self) -> None:
        self._closing = True
        self._switch(online=False)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        closing = asyncio.ensure_future(self._client.close())
        await asyncio.wait([closing], timeout=GIVE_UP_S)
        await self._give_up(closing)

    async def disconnect(self, user: str) -> int:
        """End every connection of another user of our server, a hub; how many there were.

        Needs `reuna.core.subjects.keeper_rights`. Raises `BusDown` when the server does not answer.
        """
        found = await self._ask_server(CONNECTIONS, {"auth": True, "user": user})
        server = str(found["server"]["id"])
        connections = found["data"].get("connections") or []
        for connection in connections:
            await self._ask_server(KICK.format(server=server), {"cid": connection["cid"]})
        return len(connections)

    async def _ask_server(self, subject: str, question: dict[str, Any]) -> dict[str, Any]:
        try:
            reply = await self._client.request(subject, json.dumps(question).encode(), timeout=_API_S)
            answer: dict[str, Any] = json.loads(reply.data)
        except (NatsError, ValueError) as error:
            raise BusDown(f"{self._url} does not answer {subject}: {error!r}") from error
        if "error" in answer:
            raise BusDown(f"{self._url} refuses {subject}: {answer['error'].get('description')}")
        return answer

    def _jetstream(self) -> JetStreamContext:
        return self._client.jetstream(timeout=_API_S)

    async def _open(self, timeout_s: float | None) -> None:
        """Connect, for as long as allowed; end early when the other side refused for good."""
        connecting = asyncio.ensure_future(self._dial())
        either: set[asyncio.Future[Any]] = {connecting, self._refused}
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if connecting.done():
            await connecting
            self._watch_line()
            self._switch(online=True)
            return
        await self._give_up(connecting)
        if self._refused.done():
            raise PermissionDenied(f"no connection of {self.name} to {self._url}: {self._refused.result()}")
        raise BusDown(f"{self._url} could not be reached within {timeout_s} s")

    async def _give_up(self, work: asyncio.Future[None]) -> None:
        """End what nats-py is at, within `GIVE_UP_S`.

        A cancellation that comes together with a result is lost in it (`unless_cancelled`): it would go on
        trying for ever, or wait half a minute for the other side to say goodbye.
        """
        for _ in range(GIVE_UP_TRIES):
            work.cancel()
            await asyncio.wait([work], timeout=GIVE_UP_S / GIVE_UP_TRIES)
            if work.done():
                break
            self._forget_attempt()
        else:
            log.warning("%s leaves an attempt to reach %s behind", self.name, self._url)
            return
        await asyncio.gather(work, return_exceptions=True)

    async def _dial(self) -> None:
        await self._client.connect(
            self._url,
            name=self.name,
            tls=self._tls,
            tls_handshake_first=True,
            inbox_prefix=self._inbox,
            max_reconnect_attempts=-1,
            reconnect_time_wait=_spread(),
            connect_timeout=5,
            ping_interval=PING_S,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
        )

    async def _append_once(self, subject: str, data: bytes, msg_id: str, patience_s: float) -> bool:
        """One request; False when it may be tried again."""
        await self._online.wait()
        try:
            reply = await self._ask(subject, data, {"Nats-Msg-Id": msg_id}, patience_s)
        except (NatsTimeout, NoRespondersError):
            return False
        except NatsError as error:
            log.info("append on %s: %r", subject, error)
            return False
        return reply is not None and _is_stored(subject, reply.data)

    async def _ask(self, subject: str, data: bytes, headers: dict[str, str], patience_s: float) -> Msg | None:
        """The server's reply. Ends at once when it says that we may not, with `PermissionDenied`,
        and when the line breaks, with None: a reply to that request can no longer come."""
        denied = self._watch(subject)
        gone = asyncio.ensure_future(self._offline.wait())
        asking = asyncio.ensure_future(
            self._client.request(subject, data, timeout=patience_s, headers=headers)
        )
        any_of: set[asyncio.Future[Any]] = {asking, denied, gone}
        try:
            await asyncio.wait(any_of, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return await asking
            if denied.done():
                raise PermissionDenied(f"{self.name} may not publish to {subject}")
            return None
        finally:
            asking.cancel()
            gone.cancel()
            self._unwatch(subject, denied)

    def _watch(self, subject: str) -> asyncio.Future[None]:
        """Done when the server denies us the subject; its words arrive in lower case."""
        denied: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._denied.setdefault(subject.lower(), set()).add(denied)
        return denied

    def _unwatch(self, subject: str, denied: asyncio.Future[None]) -> None:
        waiting = self._denied[subject.lower()]
        waiting.discard(denied)
        if not waiting:
            del self._denied[subject.lower()]

    async def _on_error(self, error: Exception) -> None:
        text = str(error).lower()
        violation = _VIOLATION.search(text)
        if violation is not None:
            self._violated(violation[1], violation[2])
            return
        if not self._online.is_set():
            self._forget_attempt()
        if any(word in text for word in _REFUSALS) and not self._online.is_set():
            self._client.options["reconnect_time_wait"] = _REFUSED_S
            if not self._refused.done():
                log.warning("%s was refused by %s: %s", self.name, self._url, error)
                self._refused.set_result(str(error))
        else:
            log.debug("%s: %r", self.name, error)

    def _watch_line(self) -> None:
        """A line that is dead is to be found out sooner than by three pings that nobody answers."""
        transport = self._client._transport
        writer = transport._io_writer if isinstance(transport, TcpTransport) else None
        sock = writer.get_extra_info("socket") if writer is not None else None
        if writer is not None and sock is not None:
            thin_lines.watch(sock)
            self._start(self._while_ours(sock, writer))

    async def _while_ours(self, sock: thin_lines.Socket, writer: asyncio.StreamWriter) -> None:
        """End a connection whose address this machine has no more."""
        while not writer.transport.is_closing():
            await asyncio.sleep(LOOK_S)
            if not thin_lines.has_address(sock):
                writer.transport.abort()

    def _forget_attempt(self) -> None:
        """Let go of the socket of an attempt that failed: nats-py makes the next one over it, unclosed."""
        transport = self._client._transport  # it has no word for that
        if isinstance(transport, TcpTransport):
            for writer in (transport._io_writer, transport._bare_io_writer):
                if writer is not None:
                    writer.transport.abort()

    def _violated(self, what: str, subject: str) -> None:
        self.violations += 1
        log.warning("%s may not do this: %s of %s", self.name, what, subject)
        for waiting in self._denied.get(subject, ()):
            if not waiting.done():
                waiting.set_result(None)

    def _switch(self, online: bool) -> None:
        is_on, is_off = (self._online, self._offline) if online else (self._offline, self._online)
        is_on.set()
        is_off.clear()

    async def _on_disconnected(self) -> None:
        """nats-py waits for this before it dials again."""
        self._switch(online=False)
        loop = asyncio.get_running_loop()
        until = loop.time() + AFTER_S
        while self._busy() and not self._closing and loop.time() < until:  # noqa: ASYNC110 - threads say it
            await asyncio.sleep(BUSY_LOOK_S)

    async def _on_reconnected(self) -> None:
        self.reconnects += 1
        self._client.options["reconnect_time_wait"] = _spread()
        self._refused = asyncio.get_running_loop().create_future()
        self._watch_line()
        self._switch(online=True)
        self._start(self._restore())

    async def _on_closed(self) -> None:
        """The client gives up by itself when the server refuses it once; we do not."""
        self._switch(online=False)
        if not self._closing:
            self._start(self._reopen())

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reopen(self) -> None:
        while not self._closing:
            await asyncio.sleep(_spread())
            self._client, self._echo = Client(), None
            self._refused = asyncio.get_running_loop().create_future()
            try:
                await self._open(CONNECT_S)
            except (BusDown, PermissionDenied) as error:
                log.warning("%s %s", error.code, error)
                continue
            self.reconnects += 1
            for subscription in list(self._subscriptions):
                self._start(subscription.reopen())
            return

    async def _restore(self) -> None:
        """After a reconnect: the server may have lost its store, so followers ask for it anew."""
        for subscription in list(self._subscriptions):
            if isinstance(subscription, _Follower):
                await subscription.keep()

    def _forget(self, subscription: _Subscribed | _Follower) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    async def _native(self, subject: str, take: Callable[[Msg], Awaitable[None]]) -> NatsSubscription:
        """A subscription that the server has seen; raises `PermissionDenied` when it refused."""
        denied = self._watch(subject)
        try:
            native = await self._client.subscribe(
                subject, cb=take, pending_msgs_limit=PENDING, pending_bytes_limit=_HELD_BYTES
            )
            await self._client.flush()  # its ping overtakes the queued subscription,
            await self._client.flush()  # so only the second one's answer comes after it
        except (NatsTimeout, NatsError) as error:
            raise BusDown(f"no subscription to {subject} at {self._url}: {error!r}") from error
        finally:
            self._unwatch(subject, denied)
        if denied.done():
            await native.unsubscribe()
            raise PermissionDenied(f"{self.name} may not subscribe to {subject}")
        return native


class _Subscribed:
    """Hands messages to its handler one after another; a handler that raises loses that one."""

    def __init__(self, bus: NatsBus, subject: str, handle: Handler) -> None:
        self._bus = bus
        self._subject = subject
        self._handle = handle
        self._native: NatsSubscription | None = None

    async def open(self) -> None:
        self._native = await self._bus._native(self._subject, self._take)

    async def reopen(self) -> None:
        """On a new client; the server answered a moment ago, so a failure is a refusal."""
        try:
            await self.open()
        except (BusDown, PermissionDenied) as error:
            log.error("%s %s", error.code, error)

    async def stop(self) -> None:
        self._bus._forget(self)
        await _unsubscribe(self._native)

    async def _take(self, message: Msg) -> None:
        try:
            await self._handle(message.subject, message.data)
        except Exception:  # at most once: one bad message must not end the listening
            log.exception("handler of %s raised", self._subject)


class _Follower:
    """A durable push consumer with one message in flight."""

    def __init__(self, bus: NatsBus, subject: str, name: str, handle: Handler) -> None:
        self._bus = bus
        self._subject = subject
        self._name = name
        self._handle = handle
        self._done = 0  # stream sequence up to which this process finished
        self._native: NatsSubscription | None = None

    @property
    def _inbox(self) -> str:
        """The same after a restart, so that the consumer needs no change to find us."""
        return f"{self._bus._inbox}.follow.{self._name}"

    async def open(self) -> None:
        await self._bus._online.wait()
        self._native = await self._bus._native(self._inbox, self._take)
        try:
            await self._create()
        except BaseException:
            await _unsubscribe(self._native)
            raise

    async def reopen(self) -> None:
        """On a new client."""
        try:
            self._native = await self._bus._native(self._inbox, self._take)
        except (BusDown, PermissionDenied) as error:
            log.error("%s %s", error.code, error)
        await self.keep()

    async def keep(self) -> None:
        """Make stream and consumer again unless they are there."""
        try:
            await self._create()
        except (BusDown, PermissionDenied) as error:
            log.warning("follower %s: %s %s", self._name, error.code, error)

    async def _create(self) -> None:
        """Raises `PermissionDenied` when another follower holds the subject, else `BusDown`."""
        try:
            await self._bus.keep_stream()
            await self._bus._jetstream().add_consumer(STREAM, self._config())
        except APIError as error:
            if error.err_code in _CONFLICTS:
                raise PermissionDenied(
                    f"{self._subject} has another follower than {self._name}: {error.description}",
                    "Give each follower subjects of its own, or the same name after a restart.",
                ) from error
            raise BusDown(f"no stream for follower {self._name}: {error.description}") from error
        except NatsError as error:
            raise BusDown(f"no stream for follower {self._name}: {error!r}") from error

    def _config(self) -> ConsumerConfig:
        return ConsumerConfig(
            durable_name=self._name,
            deliver_subject=self._inbox,
            filter_subject=self._subject,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=PATIENCE_S,
            max_ack_pending=1,
        )

    async def stop(self) -> None:
        self._bus._forget(self)
        await _unsubscribe(self._native)

    async def _take(self, message: Msg) -> None:
        """Handle one message; acknowledge it, or ask for it again."""
        sequence = message.metadata.sequence.stream
        if sequence <= self._done:
            await _answer(message.ack())
            return
        work = asyncio.ensure_future(self._handle(message.subject, message.data))
        try:
            while not (await asyncio.wait({work}, timeout=WORKING_S))[0]:
                await _answer(message.in_progress())
        finally:
            work.cancel()
        await self._settle(message, work, sequence)

    async def _settle(self, message: Msg, work: asyncio.Future[None], sequence: int) -> None:
        if work.cancelled():
            return
        error = work.exception()
        if error is None:
            self._done = sequence
            await _answer(message.ack())
            return
        trace = None if isinstance(error, ReunaError) else error
        log.warning("follower %s: %s comes again: %s", self._name, message.subject, error, exc_info=trace)
        await _answer(message.nak(delay=REDELIVER_S))


async def _answer(sending: Awaitable[None]) -> None:
    """An answer that does not arrive is made again when the message comes again."""
    try:
        await sending
    except NatsError as error:
        log.debug("an acknowledgement was not sent: %r", error)


async def _unsubscribe(native: NatsSubscription | None) -> None:
    if native is None:
        return
    try:
        await native.unsubscribe()
    except (NatsError, ValueError) as error:
        log.debug("nothing to unsubscribe: %r", error)


def _worth_telling(record: logging.LogRecord) -> bool:
    """nats-py turns a plain stream into TLS; asyncio then warns at each end of one, and nothing is wrong."""
    return "returning true from eof_received()" not in str(record.msg)


def _spread() -> float:
    """Seconds until the next try, so that a thousand nodes do not come back in one instant."""
    return random.uniform(*_RECONNECT_S)  # noqa: S311  # a spread is no secret


def _check_size(subject: str, data: bytes) -> None:
    if len(data) > MAX_PAYLOAD:
        raise BadMessage(f"{len(data)} bytes on {subject}; a word has at most {MAX_PAYLOAD}")


def _is_stored(subject: str, reply: bytes) -> bool:
    """Whether the stream acknowledged; a full stream or a lost leader may be asked again."""
    answer = json.loads(reply)
    if "error" in answer:
        log.warning("%s was not stored: %s", subject, answer["error"].get("description"))
        return False
    return bool(answer.get("stream") == STREAM)


def _stream_config(limits: StreamLimits) -> StreamConfig:
    """Deleting and purging are switched off: an event goes when its follower took it."""
    return StreamConfig(
        name=STREAM,
        subjects=[STORED],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        max_bytes=limits.max_bytes,
        max_msgs_per_subject=limits.max_each,
        discard_new_per_subject=True,
        max_age=limits.max_age_s,
        duplicate_window=limits.duplicate_window_s,
        deny_delete=True,
        deny_purge=True,
    )
