"""A node's signed heads go up, and what the cloud says of them comes down.

Whenever something left since the last time, the node signs its ledger and sends the head. The
cloud's countersignature is asked for until it is there, and written into the ledger. A fog asks for
those of its edges as well and keeps them for them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from reuna.adapters.ledger_file import LedgerFile
from reuna.adapters.seen_heads import SeenHeads, file_of
from reuna.core.errors import ReunaError, Untrusted
from reuna.core.ports import Clock, Offload
from reuna.core.records import HEAD, Event, Setting
from reuna.exchange.flows import SiteFlows
from reuna.trust.heads import MAX_STATEMENT, read_head

log = logging.getLogger("reuna.ledger")
Ask = Callable[[str, int], Awaitable[bytes | None]]  #: a file of the parent's, of at most so many bytes


class HeadKeeper:
    """Keeps one node's ledger signed and countersigned."""

    def __init__(
        self,
        name: str,
        ledger: LedgerFile,
        flows: SiteFlows,
        seen: SeenHeads,
        ask: Ask,
        keys: Callable[[], frozenset[bytes]],
        clock: Clock,
        offload: Offload,
    ) -> None:
        """``keys``: those with which the cloud may countersign today."""
        self._name = name
        self._ledger = ledger
        self._flows = flows
        self._seen = seen
        self._ask = ask
        self._keys = keys
        self._clock = clock
        self._offload = offload
        self._left = 0
        self._wanted: dict[str, int] = {}  #: node -> record whose countersignature is waited for

    def passes(self, event: Event) -> None:
        """A head goes up from here: the node's own, or one of an edge below."""
        try:
            self._wanted[event.node] = read_head(bytes.fromhex(str(event.fields.get("statement")))).seq
        except (ValueError, Untrusted) as error:
            log.warning("no head of %s: %s", event.node, error)

    async def keep(self, emit: Callable[[Event], Awaitable[None]], every_s: float) -> None:
        """Until cancelled."""
        while True:
            await self._clock.sleep(every_s)
            try:
                await self._offload(self._flows.flush)
                if self._flows.left > self._left:
                    self._left = self._flows.left
                    await emit(await self._offload(self._head))
                for node in list(self._wanted):
                    await self._fetch(node)
            except ReunaError as error:
                log.warning("no head of the ledger was sent: %s %s", error.code, error)

    def _head(self) -> Event:
        statement = self._ledger.sign()
        assert statement is not None  # something left, so there is something to sign
        head = read_head(statement)
        fields: dict[str, Setting] = {"statement": statement.hex(), "key": self._ledger.key.hex()}
        boot, now = f"ledger-{head.ledger[:16]}", self._clock.now()
        return Event(self._name, boot, head.seq, now, HEAD, fields=fields)

    async def _fetch(self, node: str) -> None:
        statement = await self._ask(file_of(node), MAX_STATEMENT)
        if statement is None or read_head(statement).seq < self._wanted[node]:
            return
        if node == self._name:
            await self._offload(lambda: self._ledger.countersigned(statement, self._keys()))
        else:
            await self._offload(lambda: self._seen.keep(node, statement))
        del self._wanted[node]
