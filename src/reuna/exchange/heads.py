"""The way of a ledger's head: signed at its node, countersigned by the cloud, kept beside the ledger.

A head is shown when the ledger has news and then falls silent, and every so often while it goes on.
What only says that a head was shown, or that the node is there, is no news: else each head would ask
for the next. While the line is down the newest head waits; those between need not be shown.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from reuna.adapters.ledger_file import LedgerFile
from reuna.core.errors import Refused, ReunaError, Unreachable, Untrusted
from reuna.core.ports import Clock, Offload
from reuna.core.records import ShownHead
from reuna.exchange.board import LeftCounts
from reuna.exchange.flows import FlowControl, Passage
from reuna.exchange.intents import Leaving
from reuna.exchange.link import Heads
from reuna.trust.heads import read_head
from reuna.trust.ledger import Entry
from reuna.trust.requests import Request
from reuna.wire import digest_bytes, encode

log = logging.getLogger("reuna.ledger")
QUIET_S = 3.0  #: without news for so long a ledger has fallen silent,
GAPS = 2.0  #: or twice what is between news that come again and again, as in the rounds of a run
APART_S = 10.0  #: two heads of a busy ledger are at least so far apart
EVERY_S = 60.0  #: between two heads of a ledger that does not fall silent
EVERY_RECORDS = 4096  #: or after so many news
STILL_S = 1800.0  #: between two heads of a ledger without news
FIRST_RETRY_S, LAST_RETRY_S = 5.0, 300.0
LOOK_S = 1.0
NO_NEWS = ("presence", "head")  #: flows that say nothing about the site's data


class News:
    """Where `SiteFlows` writes: the ledger, a count of what is news in it, and counts of what left."""

    def __init__(self, ledger: LedgerFile, clock: Clock) -> None:
        self.ledger = ledger
        self.count = 0
        self.left = LeftCounts()
        self.last = clock.now()
        self.gap = 0.0  #: seconds between news that come again and again: the smaller of the last two gaps
        self._apart = 0.0  #: the last of them
        self._clock = clock

    def append_all(self, entries: Sequence[Entry]) -> list[int]:
        """See `LedgerFile.append_all`."""
        numbers = self.ledger.append_all(entries)
        self.left.take(numbers, entries)
        found = sum(_is_news(entry) for entry in entries)
        if found:
            self._took(found, self._clock.now())
        return numbers

    def _took(self, found: int, now: float) -> None:
        """So many news at once; what comes within a moment is not apart."""
        apart, self.last = now - self.last, now
        self.count += found
        if apart >= LOOK_S:
            self.gap, self._apart = min(apart, self._apart), apart


class Pace(msgspec.Struct, frozen=True):
    """When a head was shown last (s), how much news there was then, how often it is shown at least."""

    at: float
    news: int = 0
    every: float = EVERY_S

    def is_due(self, now: float, news: int, last: float, gap: float = 0.0) -> bool:
        """Whether the next is due; the newest of ``news`` came at ``last``, after others by ``gap`` s."""
        if news == self.news:
            return now - self.at >= STILL_S
        quiet = now - last >= min(max(QUIET_S, GAPS * gap), self.every)
        long = now - self.at >= self.every
        much = news - self.news >= EVERY_RECORDS
        return long or (now - self.at >= min(APART_S, self.every) and (quiet or much))


class Countersigner(Protocol):
    """The line to the parent."""

    async def countersign(self, data: bytes) -> bytes:
        """The countersignature of an encoded `ShownHead`. Raises `Refused`, `Unreachable`."""


class SiteWitness:
    """The `Witness` of a fog: takes from each of its edges heads of that edge alone.

    ``may_tell``: whether a child speaks of a node, as a fog under this one does of those under it.
    """

    def __init__(self, egress: Heads, may_tell: Callable[[str, str], bool] = operator.eq) -> None:
        self._egress = egress
        self._may_tell = may_tell

    async def countersign(self, peer: str, shown: ShownHead) -> bytes:
        """See `reuna.core.ports.Witness`. The cloud judges the signatures."""
        try:
            head = read_head(shown.head)
        except Untrusted as error:
            raise Refused(error.reason, error.message) from error
        if not self._may_tell(peer, head.node):
            raise Refused("identity", f"{peer} shows a head of the ledger of {head.node!r:.80}")
        return await self._egress.countersign(shown)


class HeadKeeper:
    """Shows the heads of this node's ledger, and hands on those of the nodes below it."""

    def __init__(
        self,
        news: News,
        flows: FlowControl,
        parent: str,
        store: Countersigner,
        prove: Callable[[bytes], ShownHead],
        cloud_keys: Callable[[], frozenset[bytes]],
        clock: Clock,
        offload: Offload,
        every_s: float = EVERY_S,
    ) -> None:
        self._news = news
        self._flows = flows
        self._parent = parent
        self._store = store
        self._prove = prove
        self._cloud_keys = cloud_keys
        self._clock = clock
        self._offload = offload
        self._every = every_s
        self._pace = Pace(clock.now(), 0, every_s)

    async def keep(self) -> None:
        """Show heads as they fall due. Runs until cancelled."""
        while True:
            await self._clock.sleep(min(LOOK_S, self._every))
            news = self._news
            if self._pace.is_due(self._clock.now(), news.count, news.last, news.gap):
                self._pace = Pace(self._clock.now(), news.count, self._every)
                try:
                    await self._show()
                except (ReunaError, OSError) as error:
                    log.warning("the ledger's head is not countersigned: %s", error)

    async def countersign(self, shown: ShownHead) -> bytes:
        """Hand on a head from below. Raises `Refused`, `Unreachable`, `DiskFull`, `Corrupted`."""
        data = encode(shown)
        return await self._ask(data, await self._leave(data))

    async def _show(self) -> None:
        ledger = self._news.ledger
        head = await self._offload(ledger.sign)
        if head is None:
            return
        data = encode(await self._offload(lambda: self._prove(head)))
        passage, wait = await self._leave(data), FIRST_RETRY_S
        while True:
            try:
                signed = await self._ask(data, passage)
            except Unreachable as away:
                log.info("the ledger's head waits: %s", away)
                await self._clock.sleep(wait)
                wait = min(2 * wait, LAST_RETRY_S)
            else:
                break
        await self._offload(lambda: ledger.countersigned(signed, self._cloud_keys()))

    async def _leave(self, data: bytes) -> Passage:
        """Raises `Refused` when the site's policy has no rule for it."""
        leaving = Leaving(Request("head", self._parent, len(data), self._clock.now()), digest_bytes(data))
        return await self._offload(lambda: self._flows.leave(leaving))

    async def _ask(self, data: bytes, passage: Passage) -> bytes:
        try:
            signed = await self._store.countersign(data)
        except Refused as refusal:
            self._flows.arrived(passage, f"refused: {refusal.reason}")
            raise
        self._flows.arrived(passage, "countersigned")
        return signed


def _is_news(entry: Entry) -> bool:
    return entry.kind != "outcome" and entry.flow not in NO_NEWS
