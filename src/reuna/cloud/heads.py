"""The cloud countersigns the heads of its nodes' ledgers, and notices one that was rewritten.

The first head of a node brings its key; from then on only that key counts. A head that goes back,
or says another thing of the same place, is not countersigned: somebody changed a ledger.
"""

from __future__ import annotations

from collections.abc import Callable

from reuna.adapters.seen_heads import SeenHeads, file_of
from reuna.core.errors import BadMessage, Untrusted
from reuna.core.ports import Clock
from reuna.core.records import Event
from reuna.trust.heads import countersign, open_head, read_head
from reuna.trust.publish import PrivateKey

KEY = 32  #: bytes of an Ed25519 public key


class Heads:
    """What the cloud has seen of ledgers. ``key``: the key of today that it countersigns with."""

    def __init__(self, seen: SeenHeads, key: Callable[[], PrivateKey], clock: Clock) -> None:
        self._seen = seen
        self._key = key
        self._clock = clock

    def take(self, event: Event) -> None:
        """Countersign the head that a node sent. The same one may come again.

        Raises `BadMessage` for what is no head of that node, `Untrusted` (signature, conflict,
        replayed) when its ledger is not the one seen before, `DiskFull`.
        """
        statement, key = _bytes(event, "statement"), _bytes(event, "key")
        if len(key) != KEY:
            raise BadMessage(f"the head of {event.node!r:.80} has a key of {len(key)} bytes")
        head = open_head(statement, [key])
        if head.node != event.node:
            raise BadMessage(f"{event.node!r:.80} sent a head of {head.node!r:.80}")
        if self._seen.key(event.node, key) != key:
            raise Untrusted("conflict", f"{event.node} signs its ledger with another key than before")
        newest = self._seen.file(file_of(event.node))
        known = read_head(newest) if newest is not None else None
        if known is not None and head.seq <= known.seq and self._seen.noted(event.node, statement):
            return
        now_ms = int(self._clock.now() * 1000)
        self._seen.note(event.node, countersign(statement, [key], self._key(), known, now_ms))


def _bytes(event: Event, name: str) -> bytes:
    try:
        return bytes.fromhex(str(event.fields.get(name, "")))
    except ValueError as error:
        raise BadMessage(f"the head of {event.node!r:.80} has no {name}") from error
