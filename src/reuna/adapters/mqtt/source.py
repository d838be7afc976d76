"""Reading from an MQTT broker: connecting, subscribing, and batches of what came.

Messages wait in a bounded inbox with the time when they came. Every `TICK_S` they are read and go on as one
batch. When they come faster than they are read on, the oldest are dropped, which is a gap. Whatever breaks
the connection is a gap too; then it connects again.

Nothing is published here. Who may, gives ``after``: it is called with the client when it is connected, and
after each batch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from reuna.adapters.clock import unless_cancelled
from reuna.adapters.mqtt.client import client_of, connected, failure_of
from reuna.core.mqtt_settings import Broker
from reuna.core.ports import Clock
from reuna.core.source_breaks import Breaks
from reuna.core.sources import MAX_REASON, Batch, Gap, Tag, ns_of

if TYPE_CHECKING:
    from aiomqtt import Client, Message

TICK_S = 0.1  #: time of a batch
MOST_MESSAGES, MOST_BYTES = 20_000, 64 << 20  #: that wait to be read
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
        failure = failure_of(f"source {self.name}")
        while True:
            client = self._client()
            try:
                async with connected(client, failure):
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
        inbox = cast("type[asyncio.Queue[Message]]", self._keep)
        return client_of(f"source {self.name}", self._broker, queue_type=inbox)

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
