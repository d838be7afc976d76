"""The source `opcua`: tags of an OPC UA server by subscription, again after every break.

What somebody has to correct (a certificate that is not trusted, a policy that is not offered, a wrong
password, a clock far away) is raised while nothing was ever read of the source; a source that was read
before waits for it to be corrected, as for a server that is away, with growing pauses. Between two
connections is a gap; what the server kept of it comes as historical batches beside what is live.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from reuna.adapters.clock import unless_cancelled
from reuna.core.errors import ExtraMissing, ReunaError
from reuna.core.opcua_settings import OpcUaSettings
from reuna.core.opcua_values import Heard, Latest, columns, follows, overflowed
from reuna.core.ports import Clock, Offload
from reuna.core.sources import MAX_REASON, Batch, Gap, Tag, ns_of

if TYPE_CHECKING:
    from types import ModuleType

    from reuna.adapters.opcua.session import Message, Session

FIRST_PAUSE_S, LAST_PAUSE_S = 0.25, 5.0  #: between two attempts to connect; each twice the one before
STEADY_S = 10.0  #: a connection that lasted so long begins the pauses anew
AGAIN_S = 60.0  #: how often tags that the server refused are tried again
OVERLAP = 2  #: publishing intervals by which the history that is read overlaps what was heard

log = logging.getLogger(__name__)


class OpcUaSource:
    """The `Source` port on an OPC UA server. ``after_ns``: the newest reading that was kept before, if any.

    Raises `ExtraMissing` without asyncua; `Unreachable`, `KeyProblem` and `NotUsable` as above.
    """

    def __init__(
        self, settings: OpcUaSettings, clock: Clock, offload: Offload, after_ns: int | None = None
    ) -> None:
        self.name = settings.name
        self.tags = tuple(Tag(tag.name, tag.unit) for tag in settings.tags)
        self._settings = settings
        self._clock = clock
        self._offload = offload
        self._heard_ns = after_ns  #: up to here all was heard, by the server's clock; None: never
        self._told_ns = after_ns  #: up to here a gap was told
        self._filled_ns = after_ns  #: from here on history is to be read at the next connection
        self._offset_ns = 0  #: how far the server's clock is ahead
        self._latest = Latest()

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """See `Source.batches`; it goes on for ever."""
        library = await self._offload(_library)
        pause_s, before, strict = 0.0, "", self._heard_ns is None
        while True:
            began_s = self._clock.now()
            try:
                async with library.opened(self._settings, self._clock, self._offload, strict) as session:
                    self._offset_ns = session.offset_ns
                    async with aclosing(self._connected(session)) as heard:
                        async for batch in heard:
                            before, strict = "", False
                            yield batch
            except library.Lost as lost:
                reason = str(lost)
            except ReunaError as error:
                if strict:
                    raise
                reason = str(error)
            unless_cancelled()  # the library may lose it while it closes
            if reason != before:
                log.warning("source %s: %s", self.name, reason)
                yield Batch({}, ns_of(self._clock.now()), (self._silence(reason),))
            before = reason
            pause_s = 0.0 if self._clock.now() - began_s > STEADY_S else pause_s
            await self._clock.sleep(pause_s)
            pause_s = min(max(FIRST_PAUSE_S, 2 * pause_s), LAST_PAUSE_S)

    async def _connected(self, session: Session) -> AsyncGenerator[Batch, None]:
        """Everything of one connection. Raises `Lost` at its end."""
        refused = await session.start()
        now_ns = self._server_ns()
        if self._filled_ns is None:
            self._filled_ns = self._heard_ns
        gaps = [] if self._told_ns is None else [self._silence("nothing was read until now")]
        self._heard_ns = self._told_ns = now_ns
        gaps += self._refused(refused, now_ns)
        if gaps:
            yield Batch({}, ns_of(self._clock.now()), tuple(gaps))
        self._latest = Latest()
        filling = asyncio.create_task(self._fill(session, now_ns))
        try:
            async with aclosing(self._live(session, refused)) as heard:
                async for batch in heard:
                    yield batch
        finally:
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)

    async def _live(
        self, session: Session, refused: Mapping[str, Sequence[int]]
    ) -> AsyncGenerator[Batch, None]:
        """What the server sends, and what it kept of the gap before."""
        number, since_ns, next_s = 0, self._server_ns(), self._clock.now() + AGAIN_S
        while True:
            message = await session.next()
            gaps = [] if message.historical else list(self._holes(message, number))
            if not message.historical:
                number = message.number or number
                self._heard_ns = self._told_ns = max(self._heard_ns or 0, message.sent_ns)
            if refused and self._clock.now() >= next_s:
                refused = await session.join([place for places in refused.values() for place in places])
                gaps += self._refused(refused, since_ns)
                since_ns, next_s = self._server_ns(), self._clock.now() + AGAIN_S
            if not message.historical:
                self._repeat(message)
            found = columns(self._settings.tags, message.heard)
            if found or gaps:
                yield Batch(found, ns_of(self._clock.now()), tuple(gaps), message.historical)

    def _repeat(self, message: Message) -> None:
        """Values that did not change are given again; the message says that they did not."""
        self._latest.note(message.heard)
        if self._settings.unchanged_s:
            again = Heard()
            self._latest.repeat(again, message.sent_ns, ns_of(self._settings.unchanged_s))
            self._latest.note(again)
            message.heard.extend(again)

    async def _fill(self, session: Session, until_ns: int) -> None:
        """Read what the server kept of the gap, as far back as the settings want.

        When the line breaks before all was read, the next connection begins anew.
        """
        if self._filled_ns is None or not self._settings.backfill_s:
            self._filled_ns = None
            return
        around_ns = ns_of(OVERLAP * self._settings.publish_s)
        first_ns = max(self._filled_ns - around_ns, until_ns - ns_of(self._settings.backfill_s))
        if await session.fill(first_ns, until_ns + around_ns):
            self._filled_ns = None

    def _holes(self, message: Message, number: int) -> Iterator[Gap]:
        """Readings that the server threw away, and notifications that never came."""
        lost = overflowed(message.heard)
        if lost:
            last_ns = max(time_ns for _, time_ns in lost)
            first_ns = min(self._latest.time_ns(tag) or time_ns for tag, time_ns in lost)
            names = tuple(sorted({self.tags[tag].name for tag, _ in lost}))
            yield Gap(min(first_ns, last_ns), last_ns, "the server's queue was full", names)
        if message.number and number and not follows(number, message.number):
            first_ns = self._heard_ns or message.sent_ns
            yield Gap(min(first_ns, message.sent_ns), message.sent_ns, "notifications of the server are lost")

    def _refused(self, refused: Mapping[str, Sequence[int]], since_ns: int) -> list[Gap]:
        """Gaps of the tags that the server does not give, one for each reason."""
        now_ns = self._server_ns()
        return [
            Gap(
                min(since_ns, now_ns),
                now_ns,
                reason[:MAX_REASON],
                tuple(self.tags[each].name for each in places),
            )
            for reason, places in refused.items()
        ]

    def _silence(self, reason: str) -> Gap:
        """Nothing came since the last that was told."""
        now_ns = self._server_ns()
        first_ns = now_ns if self._told_ns is None else min(self._told_ns, now_ns)
        self._told_ns = now_ns
        return Gap(first_ns, now_ns, reason[:MAX_REASON])

    def _server_ns(self) -> int:
        return ns_of(self._clock.now()) + self._offset_ns


def _library() -> ModuleType:
    """What speaks the protocol; loaded when a source is read."""
    try:
        from reuna.adapters.opcua import connection
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "asyncua":
            raise
        raise ExtraMissing(
            "OPC UA needs asyncua, which is not installed", "Run `pip install 'reuna[opcua]'`."
        ) from None
    return connection
