"""Reading from an MQTT broker: connecting, subscribing, and batches of what came.

Messages wait in a bounded inbox with the time when they came. Every `TICK_S` they are read and go on as one
batch. When they come faster than they are read on, the oldest are dropped, which is a gap. Whatever breaks
the connection is a gap too; then it connects again.

Nothing is published here. Who may, gives ``after``: it is called with the client when it is connected, and
after each batch.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from reuna.adapters.clock import unless_cancelled
from reuna.adapters.tls import foreign_context
from reuna.core.errors import ExtraMissing, KeyProblem
from reuna.core.mqtt_settings import Broker
from reuna.core.ports import Clock
from reuna.core.source_breaks import Breaks
from reuna.core.sources import MAX_REASON, Batch, Gap, Tag, ns_of

if TYPE_CHECKING:
    from aiomqtt import Client, Message

TICK_S = 0.1  #: time of a batch
MOST_MESSAGES, MOST_BYTES = 20_000, 64 << 20  #: that wait to be read
KEEPALIVE_S, ANSWER_S = 15, 10  #: a broker that says nothing for 1.5 times as long is away
LEAVE_S = 1.0  #: how long taking leave of a broker may take
REFUSED = 128  #: the least code of a subscription that was refused

After: TypeAlias = "Callable[[Client, int], Awaitable[None]]"


class Reader(Protocol):
    """What makes readings of messages: `take` each, and `collected` gives them on. Times in ns."""

    @property
    def topics(self) -> Sequence[str]: ...
    def take(self, topic: str, payload: bytes, retained: bool, now_ns: int) -> None: ...
    def collected(self, now_ns: int) -> list[Batch]: ...
    def broken(self) -> None:
        """Messages may have been lost."""


class MqttSource:
    """The `Source` port on a broker. Raises `ExtraMissing` without aiomqtt, `KeyProblem` for its files."""

    def __init__(
        self,
        name: str,
        tags: Sequence[Tag],
        broker: Broker,
        reader: Reader,
        clock: Clock,
        after: After | None = None,
    ) -> None:
        self.name = name
        self.tags = tuple(tags)
        self._broker = broker
        self._reader = reader
        self._clock = clock
        self._after = after
        self._breaks = Breaks()
        self._inbox = Inbox(self._now_ns)

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """See `Source.batches`; it goes on for ever."""
        failure = _failure(self.name)
        while True:
            client = self._client()
            try:
                async with _open(client, failure):
                    for gap in await self._connected(client):
                        yield Batch({}, self._now_ns(), (gap,))
                    async for batch in self._ticks(client):
                        yield batch
            except (OSError, failure) as error:
                for batch in self._read():
                    yield batch
                self._reader.broken()
                lost = self._breaks.lost(self._said(error), self._now_ns())
                if lost:
                    yield Batch({}, self._now_ns(), (lost,))
            await self._clock.sleep(self._breaks.pause_s())

    async def _connected(self, client: Client) -> list[Gap]:
        """Subscribe; gaps: of the break before, and topics that the broker refuses."""
        topics = self._reader.topics
        answers: Sequence[Any] = await client.subscribe([(topic, self._broker.qos) for topic in topics])
        unless_cancelled()
        now_ns = self._now_ns()
        refused = [
            topic
            for topic, answer in zip(topics, answers, strict=False)
            if int(getattr(answer, "value", answer)) >= REFUSED
        ]
        back = self._breaks.back(now_ns)
        self._breaks.given(now_ns)
        return [
            *([back] if back else []),
            *(Gap(now_ns, now_ns, f"the broker refuses {topic}"[:MAX_REASON]) for topic in refused),
        ]

    async def _ticks(self, client: Client) -> AsyncGenerator[Batch, None]:
        messages = client.messages
        while True:
            if self._after is not None:
                await self._after(client, self._now_ns())
                unless_cancelled()
            self._inbox.again(await anext(messages))
            await self._clock.sleep(TICK_S)
            for batch in self._read():
                yield batch

    def _read(self) -> list[Batch]:
        """What waits in the inbox."""
        dropped, waiting = self._inbox.taken()
        for came_ns, message in waiting:
            payload = message.payload if isinstance(message.payload, bytes) else b""
            self._reader.take(message.topic.value, payload, bool(message.retain), came_ns)
        now_ns = self._now_ns()
        batches = self._reader.collected(now_ns)
        if dropped:
            first = min(dropped[1], now_ns)
            reason = f"{dropped[0]} messages were dropped: they come faster than they are read"
            batches.append(Batch({}, now_ns, (Gap(first, now_ns, reason),)))
        if waiting:
            self._breaks.given(waiting[-1][0])
        return batches

    def _client(self) -> Client:
        from aiomqtt import Client

        broker = self._broker
        return Client(
            broker.host,
            broker.port,
            username=broker.user or None,
            password=_password(self.name, broker) if broker.password_file else None,
            identifier=broker.client_id or None,
            clean_session=not broker.session,
            keepalive=KEEPALIVE_S,
            timeout=ANSWER_S,
            logger=_silent(),
            tls_context=_context(self.name, broker) if broker.tls else None,
            queue_type=cast("type[asyncio.Queue[Message]]", self._keep),
        )

    def _keep(self, maxsize: int) -> Inbox:
        """The inbox of every connection: what waits outlives a break."""
        return self._inbox

    def _said(self, error: Exception) -> str:
        return f"{self._broker.host}:{self._broker.port}: {error}"

    def _now_ns(self) -> int:
        return ns_of(self._clock.now())


class Inbox(asyncio.Queue[Any]):
    """Messages with the time when they came: so many, and so many bytes; the oldest give way."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._bytes = 0
        self._dropped: tuple[int, int] | None = None  #: how many, and when the first of them came
        super().__init__()

    def _init(self, maxsize: int) -> None:
        self._queue: deque[tuple[int, Message]] = deque()

    def _put(self, item: Message) -> None:
        self._queue.append((self._now_ns(), item))
        self._bytes += _size(item)
        while len(self._queue) > MOST_MESSAGES or self._bytes > MOST_BYTES:
            came_ns, _ = self._get()
            number, first = self._dropped or (0, came_ns)
            self._dropped = (number + 1, first)

    def _get(self) -> tuple[int, Message]:
        came = self._queue.popleft()
        self._bytes -= _size(came[1])
        return came

    def again(self, came: Any) -> None:
        """Put back the message that `get` gave, before all others."""
        self._queue.appendleft(came)
        self._bytes += _size(came[1])

    def taken(self) -> tuple[tuple[int, int] | None, list[tuple[int, Message]]]:
        """What was dropped, and all that waits."""
        dropped, self._dropped = self._dropped, None
        waiting = [self._get() for _ in range(len(self._queue))]
        return dropped, waiting


def _size(message: Message) -> int:
    return len(message.payload) if isinstance(message.payload, bytes) else 0


def _failure(name: str) -> type[Exception]:
    try:
        from aiomqtt import MqttError
    except ImportError:
        raise ExtraMissing(
            f"source {name}: aiomqtt is not installed", "Run `pip install 'reuna[mqtt]'`."
        ) from None
    return MqttError


@asynccontextmanager
async def _open(client: Client, failure: type[Exception]) -> AsyncIterator[None]:
    """Connected; a broker that does not take leave in time changes nothing of how it ended."""
    await client.__aenter__()
    try:
        unless_cancelled()
        yield
    finally:
        client.timeout = LEAVE_S
        with suppress(failure):
            await client.__aexit__(None, None, None)


def _silent() -> logging.Logger:
    """What goes wrong is told as a gap, once and in our words."""
    log = logging.getLogger("reuna.mqtt")
    log.setLevel(logging.CRITICAL)
    return log


def _password(name: str, broker: Broker) -> str:
    try:
        lines = Path(broker.password_file).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(name, broker.password_file, error) from error
    return lines[0] if lines else ""


def _context(name: str, broker: Broker) -> ssl.SSLContext:
    try:
        return foreign_context(broker.authority, broker.certificate, broker.key)
    except OSError as error:
        raise _unusable(name, error.filename, error) from error


def _unusable(name: str, file: str, error: Exception) -> KeyProblem:
    what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return KeyProblem(f"source {name}: {file} cannot be used: {what}", "Correct its name in the settings.")
