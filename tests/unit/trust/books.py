"""A small ledger in memory, with the keys of its node and of the cloud at hand."""

from __future__ import annotations

from reuna.trust import ledger
from reuna.trust.heads import Keys, Signer, add_head, countersign, open_head
from reuna.trust.ledger import Entry, Head, Owner, State
from tests.unit.trust.house import key

NOW_MS = 1_795_000_000_000
NODE = key("node")
CLOUD = key("cloud")
SIGNER = Signer("mill-3", "edge-1", NODE)
KEYS = Keys(
    frozenset({NODE.public_key().public_bytes_raw()}), frozenset({CLOUD.public_key().public_bytes_raw()})
)
OWNER = Owner("0123456789abcdef", "mill-3", "edge-1", SIGNER.public)


def intent(number: int = 0, **more: object) -> Entry:
    """The request to send an update, made ``number`` seconds after the start."""
    fields: dict = {
        "time_ms": NOW_MS + 1000 * number,
        "kind": "intent",
        "flow": "model_update",
        "to": "fog-a",
        "payload_bytes": 100 + number,
        "payload": f"{number:064x}",
        "run": "r-1",
        "round": number,
        "plan": "ab" * 32,
        "policy_serial": 17,
        "policy": "cd" * 32,
        "rule": "updates",
        "decision": "allow",
        "samples": 2000,
        "cohort": 5,
    }
    return Entry(**{**fields, **more})


def outcome(number: int, of: int, reason: str = "") -> Entry:
    return Entry(time_ms=NOW_MS + 1000 * number, kind="outcome", intent=of, reason=reason)


class Book:
    """Grows record by record; ``heads`` are the statements that the node signed."""

    def __init__(self, owner: Owner = OWNER) -> None:
        self.state: State
        self.state, raw = ledger.begin(owner, NOW_MS)
        self.records = [raw]
        self.heads: list[bytes] = []

    def add(self, entry: Entry) -> int:
        if ledger.head_needed(self.state):
            self.sign()
        append = ledger.add_own if entry.kind in ledger.OWN else ledger.append
        self.state, raw = append(self.state, entry)
        self.records.append(raw)
        return self.state.seq - 1

    def sign(self) -> bytes:
        self.state, raw = add_head(self.state, SIGNER, self.state.time_ms)
        self.records.append(raw)
        self.heads.append(ledger.read_record(raw).entry.statement)
        return self.heads[-1]

    def countersign(self) -> bytes:
        statement = countersign(self.heads[-1], KEYS.node, CLOUD, None, self.state.time_ms)
        self.add(Entry(time_ms=self.state.time_ms, kind="countersigned", statement=statement))
        return statement

    def last(self) -> Head:
        """A head over every record, as somebody else would keep it."""
        _, raw = add_head(self.state, SIGNER, self.state.time_ms)
        return open_head(ledger.read_record(raw).entry.statement, KEYS.node)


def book(count: int, signed: bool = True) -> Book:
    """A ledger of some ``count`` intents and outcomes, a countersigned head in the middle."""
    made = Book()
    for number in range(count):
        made.add(outcome(number, made.add(intent(number))))
        if signed and number == count // 2:
            made.sign()
            made.countersign()
    return made


def file_of(records: list[bytes]) -> bytes:
    return b"".join(ledger.framed(raw) for raw in records)
