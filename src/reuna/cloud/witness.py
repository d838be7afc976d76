"""The cloud countersigns heads of ledgers: each place of a ledger once, and never backwards.

Who shows a head proves it with the key of its certificate (`reuna.exchange.proofs`); a fog hands on
heads of its own site alone. A ledger that goes back, or has two records at one place, was rewritten:
it gets no countersignature, and its node an alarm.
"""

from __future__ import annotations

import logging
import operator
import threading
from collections.abc import Callable

from reuna.adapters.certificates import Certificate
from reuna.adapters.head_store import HeadStore, Kept
from reuna.core.errors import Refused, Untrusted
from reuna.core.ports import Clock, Offload
from reuna.core.records import Identity, ShownHead
from reuna.exchange.proofs import prover
from reuna.trust.heads import countersign, open_head, read_head
from reuna.trust.ledger import Head
from reuna.trust.publish import PrivateKey

log = logging.getLogger("reuna.witness")
REWRITTEN = ("replayed", "conflict")  #: reasons of `Untrusted` that mean a rewritten ledger

#: Told once for each rewritten ledger: the node's name, the ledger's name, the place, a sentence.
Alarm = Callable[[str, str, int, str], None]


class CloudWitness:
    """The `Witness` at the end of the line. ``key`` gives the online key that signs now.

    ``revoked`` says of a name whether it is; the fog may not have heard yet.
    """

    def __init__(
        self,
        fleet: str,
        root: Certificate,
        store: HeadStore,
        key: Callable[[], PrivateKey],
        revoked: Callable[[str], bool],
        alarm: Alarm,
        clock: Clock,
        offload: Offload,
        is_fog: Callable[[str, str], bool] = operator.eq,
    ) -> None:
        """``is_fog``: whether a place that a fog shows a head of is itself, or a fog under it."""
        self._fleet = fleet
        self._root = root
        self._store = store
        self._key = key
        self._revoked = revoked
        self._alarm = alarm
        self._clock = clock
        self._offload = offload
        self._is_fog = is_fog
        self._lock = threading.Lock()

    async def countersign(self, peer: str, shown: ShownHead) -> bytes:
        """See `reuna.core.ports.Witness`. ``peer`` is a fog. Raises `Refused`, `DiskFull`, `Corrupted`."""
        return await self._offload(lambda: self._countersign(peer, shown))

    def _countersign(self, peer: str, shown: ShownHead) -> bytes:
        now = self._clock.now()
        identity = prover(shown, self._fleet, self._root, now)
        place = identity.site if identity.role == "edge" else identity.name
        if not self._is_fog(peer, place) or identity.role not in {"fog", "edge"}:
            raise Refused("identity", f"{peer} shows a head of {identity.uri}, which is not of its site")
        if self._revoked(identity.name):
            raise Refused("identity", f"{peer} shows a head of {identity.uri}, which was revoked")
        try:
            head = open_head(shown.head, [shown.key])
        except Untrusted as error:
            raise Refused(error.reason, error.message) from error
        if head.node != identity.name:
            raise Refused("identity", f"{identity.uri} shows a head of the ledger of {head.node!r:.80}")
        with self._lock:
            return self._judge(peer, identity, shown, head, now)

    def _judge(self, peer: str, identity: Identity, shown: ShownHead, head: Head, now: float) -> bytes:
        node = identity.uri
        same = self._store.at(node, head.ledger, head.seq)
        if same is not None and same.head == shown.head:
            return same.countersignature
        newest = self._store.newest(node)
        known = read_head(newest.head) if newest else None
        try:
            if newest is not None and newest.key != shown.key:
                raise Untrusted("conflict", f"{head.node} signs its ledger with another key than before")
            if same is not None and read_head(same.head).digest != head.digest:
                raise Untrusted("conflict", f"{head.node} shows two different records {head.seq}")
            signed = countersign(shown.head, [shown.key], self._key(), known, int(now * 1000))
        except Untrusted as error:
            if error.reason in REWRITTEN:
                what = f"ledger rewritten at record {head.seq}: {error.message} (shown by {peer})"
                self._alarm(head.node, head.ledger, head.seq, what)
            raise Refused(error.reason, error.message) from error
        if same is None:
            self._store.keep(Kept(node, head.ledger, shown.key, head.seq, now, shown.head, signed))
        return signed
