"""The ledger of one node: what was asked to leave, what was decided, what left.

Each record names the SHA-256 of the record before it, and every so often one holds a head: the
node's signature over all before. So nothing before a head can be changed, and nothing before a
head that somebody else keeps can be cut off (`reuna.trust.heads`).

    record  = SHA-256 of body, body
    body    = msgpack [format, seq, SHA-256 of the body before, entry]
    entry   = msgpack map, fields in the order below, without those that have their default
    file    = records, each behind its length as 4 bytes, big-endian

>>> state, first = begin(Owner("l-1", "mill-3", "edge-1", bytes(32)), 0)
>>> state, second = append(state, Entry(time_ms=5, kind="intent", flow="metric", payload_bytes=7))
>>> spent(read_record(raw).entry for raw in (first, second)).payload_bytes
{'1970-01-01': {'metric': 7}}

No signature is made or judged here, so that what only writes entries loads no cryptography.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import msgspec

from reuna.core.errors import LedgerProblem

FORMAT: Final = 1  #: of a record; raised when an older reader could misread it
HASH = 32
FIRST = bytes(HASH)  #: what the first record names as the one before it
MAX_RECORD = 16 * 1024  #: bytes with its hash; ours have some 300 to 600
MAX_REASON = 300  #: characters; what is longer is cut
HEAD_EVERY = 64  #: at most so many records lie between two heads; judged by `verify`
HEAD_MS = 60_000  #: a head is due after this long, when there is something to sign
SECTOR = 512  #: bytes that a disk writes whole

EntryKind = Literal[
    "begin",  # the first record: whose ledger it is
    "intent",  # a payload is about to be sent
    "outcome",  # what became of an intent
    "refused",  # the policy let a payload not leave
    "policy",  # another policy is in force, or none
    "code",  # code was approved, refused or run
    "head",  # the node signs all records before
    "countersigned",  # the cloud has seen a head
    "recovered",  # a record that was cut by a crash was dropped at start; nobody was told it was kept
]
OWN = ("begin", "head", "countersigned", "recovered")  #: kinds that only the ledger itself writes
STATEMENTS = ("head", "countersigned")
Name = Annotated[str, msgspec.Meta(max_length=120)]
Hash = Annotated[bytes, msgspec.Meta(min_length=HASH, max_length=HASH)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Millis = Annotated[int, msgspec.Meta(ge=0, lt=253_402_300_800_000)]  #: before the year 10000
Text = Annotated[str, msgspec.Meta(max_length=200)]
Digest = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{64})?\Z")]
Amount = Annotated[float, msgspec.Meta(ge=0, lt=1e300)]


class Owner(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Whose ledger it is: its own random name, site, node, and the node's public key (32 bytes)."""

    ledger: Name
    site: Name
    node: Name
    key: Hash


class Head(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Place and digest (SHA-256, 32 bytes) of a record of one ledger, at a time (ms since the epoch)."""

    ledger: Name
    site: Name
    node: Name
    seq: Count
    digest: Hash
    time_ms: Millis


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one record says. Digests are SHA-256, 64 hexadecimal characters, or empty."""

    time_ms: Millis  #: when, milliseconds since the epoch, by the node's clock
    kind: EntryKind
    flow: Text = ""  #: model_update, metric, statistic, prediction, log, presence, …
    to: Text = ""  #: who was to get it
    payload_bytes: Count = 0
    payload: Digest = ""  #: SHA-256 over those of the blocks (`reuna.wire.digest`), or over those of messages
    run: Text = ""
    round: Count = 0
    plan: Digest = ""  #: of the plan it answers
    code: Digest = ""  #: of the bundle that made it
    policy_serial: Count = 0
    policy: Digest = ""
    rule: Text = ""  #: the rule that allowed or refused it
    epsilon: Amount = 0.0  #: of the privacy budget, spent by this
    epsilon_left: Amount | None = None  #: after this
    unit: Text = ""  #: what epsilon protects: record, asset-day, …
    samples: Count = 0  #: local records behind it
    cohort: Count = 0  #: nodes whose sum hides it
    organisations: Count | None = None  #: of those nodes, where a roster is known
    values: Count = 0  #: numbers in it, where a policy bounds them
    level: Count | None = None  #: of the sandbox that the code ran in
    decision: Literal["", "allow", "deny", "wait"] = ""
    #: why; of an outcome what became of the payload, beginning with "refused" when it was
    reason: Annotated[str, msgspec.Meta(max_length=MAX_REASON)] = ""
    intent: Count | None = None  #: number of the intent that an outcome belongs to
    statement: Annotated[bytes, msgspec.Meta(max_length=4096)] = b""  #: owner, head or countersignature
    #: an intent with messages allows so many, of ``payload_bytes`` together; its outcome says how many left
    messages: Count = 0
    params: Count | None = None  #: numbers of an update or a sum
    norm: Amount | None = None  #: its length (L2), of a sum that of the mean
    steps: Count = 0  #: of training, as its plan asks for
    schema: Digest = ""  #: of the names and shapes of its tensors
    metrics: tuple[Text, ...] = ()  #: names of what it reports


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An entry in its place. ``previous``: SHA-256 of the body before, 32 bytes."""

    format: Literal[1]
    seq: Count
    previous: Hash
    entry: Entry


class State(msgspec.Struct, frozen=True):
    """Where a ledger ends: all that is needed to append."""

    owner: Owner
    seq: int  #: number of the next record
    digest: bytes  #: of the last record
    time_ms: int  #: of the last record
    head_seq: int = -1  #: the last record that a head in the ledger names
    head_ms: int = 0  #: when it was signed
    since_head: int = 0  #: records after the last head
    unsaid: bool = False  #: whether one of them is more than a statement about the ledger


class Spent(msgspec.Struct, frozen=True):
    """What intents have used up, by UTC day where a policy counts by day.

    ``newest`` is the round last counted of each run.
    """

    payload_bytes: dict[str, dict[str, int]]  #: day -> flow -> bytes
    rounds: dict[str, int]  #: day -> rounds with a model update
    epsilon: dict[str, float]  #: unit -> sum over all days
    newest: dict[str, int]


class Split(msgspec.Struct, frozen=True):
    """Whole records of a file, and the bytes from the first that is not."""

    records: list[bytes]
    rest: bytes


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Record)


# --- writing ---------------------------------------------------------------------------------------


def begin(owner: Owner, now_ms: int) -> tuple[State, bytes]:
    """A new ledger and its first record."""
    entry = Entry(time_ms=now_ms, kind="begin", statement=_ENCODER.encode(owner))
    raw = _raw(Record(FORMAT, 0, FIRST, entry))
    return State(owner, 1, raw[:HASH], now_ms, head_ms=now_ms, since_head=1, unsaid=True), raw


def append(state: State, entry: Entry) -> tuple[State, bytes]:
    """The state after ``entry``, and its record. A long reason is cut.

    Raises `LedgerProblem` for an entry that could not be read again or is not the caller's to write.
    """
    if entry.kind in OWN:
        raise LedgerProblem(f"an entry of kind {entry.kind} is written by the ledger itself")
    if entry.intent is not None and not 0 <= entry.intent < state.seq:
        raise LedgerProblem(f"an outcome of intent {entry.intent}, which is not there")
    if len(entry.reason) > MAX_REASON:
        entry = msgspec.structs.replace(entry, reason=entry.reason[: MAX_REASON - 1] + "…")
    return add_own(state, entry)


def add_own(state: State, entry: Entry) -> tuple[State, bytes]:
    """`append` for the kinds that the ledger itself writes. Raises `LedgerProblem`."""
    record = Record(FORMAT, state.seq, state.digest, entry)
    raw = _raw(record)
    return advance(state, record, raw[:HASH]), raw


def head_needed(state: State) -> bool:
    """Whether the next record has to be a head."""
    return state.since_head >= HEAD_EVERY


def head_due(state: State, now_ms: int) -> bool:
    """Whether there is something to sign, and it waited long enough."""
    return state.unsaid and now_ms - state.head_ms >= HEAD_MS


def advance(state: State, record: Record, digest: bytes) -> State:
    """The state after a record that follows on it."""
    entry, seq, at = record.entry, record.seq + 1, record.entry.time_ms
    if entry.kind == "head":
        return State(state.owner, seq, digest, at, record.seq - 1, at)
    unsaid = state.unsaid or entry.kind not in STATEMENTS
    return State(state.owner, seq, digest, at, state.head_seq, state.head_ms, state.since_head + 1, unsaid)


def framed(raw: bytes) -> bytes:
    """A record as it stands in a file."""
    return len(raw).to_bytes(4, "big") + raw


def _raw(record: Record) -> bytes:
    try:
        body = _ENCODER.encode(record)
        known = _DECODER.decode(body) == record
    except (msgspec.MsgspecError, UnicodeError, OverflowError, TypeError) as error:
        raise LedgerProblem(f"an entry that could not be read again: {error}") from error
    if not known or len(body) + HASH > MAX_RECORD:
        raise LedgerProblem(f"an entry of {len(body)} bytes that could not be read again")
    return hashlib.sha256(body).digest() + body


# --- reading ---------------------------------------------------------------------------------------


def is_whole(raw: bytes) -> bool:
    """Whether a record's hash is that of its body."""
    return HASH < len(raw) <= MAX_RECORD and hashlib.sha256(memoryview(raw)[HASH:]).digest() == raw[:HASH]


def read_record(raw: bytes) -> Record:
    """The record in whole bytes. There is one way to write a record; others are not read.

    Raises `msgspec.DecodeError`.
    """
    try:
        record = _DECODER.decode(memoryview(raw)[HASH:])
    except (RecursionError, UnicodeDecodeError) as error:
        raise msgspec.DecodeError(str(error)) from error
    if _ENCODER.encode(record) != raw[HASH:]:
        raise msgspec.DecodeError("not in the one form that a record has")
    return record


def split(data: bytes) -> Split:
    """The whole records at the beginning of a file's bytes."""
    records: list[bytes] = []
    at = 0
    while raw := _whole_at(data, at):
        records.append(raw)
        at += 4 + len(raw)
    return Split(records, data[at:])


def is_torn(rest: bytes, at: int) -> bool:
    """Whether ``rest``, which begins at byte ``at`` of the newest file, is what a crash left.

    A crash leaves a part of a record, or a part followed by zeros from some sector on. Anything
    else is damage: a record that is whole but for its length, or with a whole record behind it.
    """
    if is_whole(rest[4:]) or any(_whole_at(rest, place) for place in range(1, len(rest))):
        return False
    size = int.from_bytes(rest[:4], "big")
    is_part = len(rest) < 4 or len(rest) - 4 < size <= MAX_RECORD
    return is_part or not rest.strip(b"\0") or _ends_in_zero_sectors(rest, at)


def _whole_at(data: bytes, at: int) -> bytes:
    size = int.from_bytes(data[at : at + 4], "big")
    raw = data[at + 4 : at + 4 + size] if HASH < size <= MAX_RECORD else b""
    return raw if len(raw) == size and is_whole(raw) else b""


def _ends_in_zero_sectors(rest: bytes, at: int) -> bool:
    end = at + len(rest)
    zeros = at + len(rest.rstrip(b"\0"))  # where they begin, in the file
    return -(-zeros // SECTOR) * SECTOR < end


# --- what was spent --------------------------------------------------------------------------------


def day_of(time_ms: int) -> str:
    """The UTC day, as in 2026-11-23."""
    return datetime.fromtimestamp(time_ms // 1000, UTC).date().isoformat()


def settled(entries: Iterable[tuple[int, Entry]]) -> list[Entry]:
    """Entries by their numbers, each allowance with what left under it.

    One without an outcome counts in full; one under which nothing left is an outcome.
    """
    found: dict[int, Entry] = {}
    for number, entry in entries:
        found[number] = entry
        intent = found.get(-1 if entry.intent is None else entry.intent)
        if entry.intent is not None and intent is not None and intent.messages:
            exact = {"payload_bytes": entry.payload_bytes, "messages": entry.messages}
            found[entry.intent] = msgspec.structs.replace(intent, **exact) if entry.messages else entry
    return list(found.values())


def spent(entries: Iterable[Entry]) -> Spent:
    """What all entries together used up; an intent without an outcome counts as sent."""
    total = Spent({}, {}, {}, {})
    for entry in entries:
        count(total, entry)
    return total


def count(total: Spent, entry: Entry) -> None:
    """Add what one entry more used up to ``total``, in place."""
    if entry.kind != "intent":
        return
    day = day_of(entry.time_ms)
    today = total.payload_bytes.setdefault(day, {})
    today[entry.flow] = today.get(entry.flow, 0) + entry.payload_bytes
    if entry.epsilon:
        total.epsilon[entry.unit] = total.epsilon.get(entry.unit, 0.0) + entry.epsilon
    if entry.flow == "model_update" and total.newest.get(entry.run) != entry.round:
        total.rounds[day] = total.rounds.get(day, 0) + 1
        total.newest[entry.run] = entry.round
