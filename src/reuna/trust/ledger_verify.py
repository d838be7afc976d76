"""Judges a ledger: does every record follow on the one before, and do the heads agree?

`follow` takes one record at a time and is what a node itself uses when it opens its ledger;
`verify` walks over all of them, with heads that others have kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from reuna.core.errors import Untrusted
from reuna.core.foreign import UNREADABLE
from reuna.trust.heads import Keys, head_statement, open_countersignature, open_head, read_head
from reuna.trust.ledger import (
    FIRST,
    HASH,
    HEAD_EVERY,
    Head,
    Owner,
    Record,
    State,
    advance,
    is_whole,
    read_record,
)

#: What can be wrong with a ledger, and what a person reads.
FAULTS: dict[str, str] = {
    "empty": "there is no record",
    "changed": "its bytes are not those that its hash was made of, or it is not whole",
    "unreadable": "it is not a record in a form known here",
    "begin": "a ledger has to say once, in its first record, whose it is",
    "missing": "the records that belong here are gone or stand elsewhere",
    "repeated": "its number belongs further up: it was put in, or stands twice",
    "link": "it names another record before it than the one that is there",
    "head": "its signature is not good, or not about this ledger",
    "rewritten": "a signed head names another record than the one that is there",
    "unsigned": f"more than {HEAD_EVERY} records without the node's signature",
    "cut": "the ledger ends here, and a head names a later record",
    "foreign": "the heads given are all of another ledger",
    "beside": "the countersignature that lies beside the ledger is not of its node",
}

NO_KEYS = Keys()  #: the node's key is then the one that the ledger names


class Fault(msgspec.Struct, frozen=True):
    """Where a ledger is wrong: record ``index`` (to ``until``, when it cannot be told closer)."""

    index: int
    what: str
    until: int
    more: str = ""

    @property
    def message(self) -> str:
        """One sentence for a person."""
        place = (
            f"record {self.index}" if self.until == self.index else f"records {self.index} to {self.until}"
        )
        return f"{place}: {FAULTS[self.what]}" + (f" ({self.more})" if self.more else "")


class Step(msgspec.Struct, frozen=True):
    """One good record, and the state after it."""

    state: State
    record: Record


class Verdict(msgspec.Struct, frozen=True):
    """What is known of a ledger. The three places are the last record each covers, -1 for none.

    ``keys_given``: else the node's key is the one that the ledger itself names.
    """

    records: int  #: good ones, from the first
    fault: Fault | None = None
    owner: Owner | None = None
    digest: str = ""  #: of the last good record
    keys_given: bool = False
    signed: int = -1  #: by a head of the node, in the ledger
    countersigned: int = -1  #: by the cloud, in the ledger, with a cloud key given
    said_countersigned: int = -1  #: the same by the ledger's own account, whoever made the signature
    kept_elsewhere: int = -1  #: by a head from outside the ledger

    @property
    def good(self) -> bool:
        """Whether nothing was found wrong."""
        return self.fault is None


def follow(state: State | None, raw: bytes, keys: frozenset[bytes]) -> Step | Fault:
    """Judge the next record; ``state`` is None before the first, ``keys`` may sign heads.

    Without keys a head is held against the key in the first record.
    """
    index = 0 if state is None else state.seq
    if not is_whole(raw):
        return _fault(index, "changed")
    try:
        record = read_record(raw)
    except msgspec.DecodeError as error:
        return _fault(index, "unreadable", str(error))
    if record.seq != index:
        return _fault(index, "missing" if record.seq > index else "repeated", f"it is number {record.seq}")
    if record.previous != (FIRST if state is None else state.digest):
        return _fault(index, "link")
    if state is None:
        return _first(record, raw[:HASH])
    wrong = _wrong(state, record, keys or frozenset({state.owner.key}))
    return wrong or Step(advance(state, record, raw[:HASH]), record)


def verify(
    records: Iterable[bytes], keys: Keys = NO_KEYS, heads: Iterable[Head] = (), beside: Iterable[bytes] = ()
) -> Verdict:
    """Judge a whole ledger; ``heads`` are those that others have kept (`heads.known_heads`).

    ``beside`` are countersignatures that lie with the ledger: they tell when it was cut or rewritten
    by somebody who left them there, and prove nothing else.
    Stops at the first fault. What lies behind the last head that is kept elsewhere could have been
    cut off without a trace.
    """
    walk = _Walk(keys, tuple(heads), tuple(beside))
    for raw in records:
        fault = walk.take(raw)
        if fault is not None:
            return walk.verdict(fault)
    return walk.verdict(walk.end())


class _Walk:
    """What `verify` remembers on its way."""

    def __init__(self, keys: Keys, heads: Sequence[Head], beside: Sequence[bytes]) -> None:
        self._keys = keys
        self._heads = heads
        self._beside = beside
        self._state: State | None = None
        self._known: dict[int, bytes] = {}  #: place -> digest, of heads kept elsewhere
        self._signed: dict[int, bytes] = {}  #: the same of heads in the ledger
        self._elsewhere: frozenset[int] = frozenset()
        self._last_known = self._last_elsewhere = self._countersigned = self._said = -1

    def take(self, raw: bytes) -> Fault | None:
        step = follow(self._state, raw, self._keys.node)
        if isinstance(step, Fault):
            return step
        record = step.record
        fault = self._begin(step.state.owner) if self._state is None else None
        if record.entry.kind == "head":
            self._signed[record.seq - 1] = record.previous
        elif record.entry.kind == "countersigned":
            fault = self._countersignature(step.state.owner, record)
        fault = fault or self._compare(record.seq, step.state.digest)
        if fault is None:
            self._state = step.state
        return fault

    def end(self) -> Fault | None:
        if self._state is None:
            return _fault(0, "empty")
        latest = max(self._known, default=-1)
        return _fault(self._state.seq, "cut", f"number {latest}") if latest >= self._state.seq else None

    def verdict(self, fault: Fault | None) -> Verdict:
        if self._state is None:
            return Verdict(0, fault, keys_given=bool(self._keys.node))
        return Verdict(
            self._state.seq,
            fault,
            self._state.owner,
            self._state.digest.hex(),
            bool(self._keys.node),
            self._state.head_seq,
            self._countersigned,
            self._said,
            self._last_elsewhere,
        )

    def _begin(self, owner: Owner) -> Fault | None:
        own = [head for head in self._heads if head.ledger == owner.ledger]
        if self._heads and not own:
            return _fault(0, "foreign")
        self._elsewhere = frozenset(head.seq for head in own)
        try:
            own += self._left_beside(owner)
        except Untrusted as error:
            return _fault(0, "beside", str(error))
        for head in own:
            if self._known.setdefault(head.seq, head.digest) != head.digest:
                return _fault(head.seq, "rewritten", "two heads kept elsewhere contradict each other")
        return None

    def _left_beside(self, owner: Owner) -> list[Head]:
        """Raises `Untrusted`. A countersignature by a cloud key not known here still holds a head."""
        node = self._keys.node or frozenset({owner.key})
        found = [open_head(head_statement(each), node) for each in self._beside]
        return [head for head in found if head.ledger == owner.ledger]

    def _compare(self, seq: int, digest: bytes) -> Fault | None:
        if seq not in self._known:
            return None
        if self._known[seq] != digest:
            kept = "kept elsewhere" if seq in self._elsewhere else "that lies beside it"
            return Fault(self._last_known + 1, "rewritten", seq, f"by a head {kept}")
        self._last_known = seq
        if seq in self._elsewhere:
            self._last_elsewhere = seq
        return None

    def _countersignature(self, owner: Owner, record: Record) -> Fault | None:
        statement = record.entry.statement
        try:
            if self._keys.cloud:
                node = self._keys.node or frozenset({owner.key})
                head = open_countersignature(statement, Keys(node, self._keys.cloud))
            else:
                head = read_head(statement)
        except Untrusted as error:
            return _fault(record.seq, "head", str(error))
        if head.ledger != owner.ledger or self._signed.get(head.seq) != head.digest:
            return _fault(record.seq, "head", "it countersigns a head that is not in this ledger")
        self._said = max(self._said, head.seq)
        if self._keys.cloud:
            self._countersigned = max(self._countersigned, head.seq)
        return None


def _first(record: Record, digest: bytes) -> Step | Fault:
    if record.entry.kind != "begin":
        return _fault(0, "begin")
    try:
        owner = msgspec.msgpack.decode(record.entry.statement, type=Owner)
    except UNREADABLE as error:
        return _fault(0, "begin", str(error))
    at = record.entry.time_ms
    return Step(State(owner, 1, digest, at, head_ms=at, since_head=1, unsaid=True), record)


def _wrong(state: State, record: Record, keys: frozenset[bytes]) -> Fault | None:
    if record.entry.kind == "begin":
        return _fault(record.seq, "begin")
    if record.entry.kind != "head":
        return _fault(record.seq, "unsigned") if state.since_head >= HEAD_EVERY else None
    try:
        head = open_head(record.entry.statement, keys)
    except Untrusted as error:
        return _fault(record.seq, "head", str(error))
    if (head.ledger, head.seq) != (state.owner.ledger, record.seq - 1):
        return _fault(record.seq, "head", "it is about another ledger or place")
    if head.digest != record.previous:
        return Fault(state.head_seq + 1, "rewritten", record.seq - 1)
    return None


def _fault(index: int, what: str, more: str = "") -> Fault:
    return Fault(index, what, index, more)
