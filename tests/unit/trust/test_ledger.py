"""Records follow on each other, and what was wrong is named with its place."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from reuna.core.errors import LedgerProblem, Untrusted
from reuna.trust import heads, ledger, ledger_verify
from reuna.trust.heads import Keys, Signer, known_heads
from reuna.trust.ledger import Entry, Owner, framed, is_torn, split
from reuna.trust.ledger_verify import FAULTS, Verdict, verify
from tests.unit.trust.books import CLOUD, KEYS, NOW_MS, OWNER, Book, book, file_of, intent, outcome
from tests.unit.trust.house import key


def found(verdict: Verdict) -> tuple[str, int]:
    assert verdict.fault is not None
    assert FAULTS[verdict.fault.what] in verdict.fault.message
    return verdict.fault.what, verdict.fault.index


def body_of(raw: bytes, **changes: Any) -> bytes:
    """The record with another entry and a hash that fits: what a forger without a key can do."""
    record = ledger.read_record(raw)
    entry = msgspec.structs.replace(record.entry, **changes)
    body = msgspec.msgpack.encode(msgspec.structs.replace(record, entry=entry))
    return hashlib.sha256(body).digest() + body


def rechained(records: list[bytes], start: int) -> list[bytes]:
    """All records from ``start`` linked and numbered again."""
    done = records[:start]
    for raw in records[start:]:
        record = ledger.read_record(raw)
        record = msgspec.structs.replace(record, seq=len(done), previous=done[-1][:32])
        body = msgspec.msgpack.encode(record)
        done.append(hashlib.sha256(body).digest() + body)
    return done


# --- writing ---------------------------------------------------------------------------------------


def test_equal_entries_give_equal_bytes() -> None:
    assert book(5).records == book(5).records


def test_a_record_comes_back_as_it_was_written() -> None:
    made = Book()
    made.add(intent(1, epsilon=0.25, epsilon_left=3.75, unit="asset-day", level=3))
    record = ledger.read_record(made.records[1])
    assert record.entry == intent(1, epsilon=0.25, epsilon_left=3.75, unit="asset-day", level=3)
    assert (record.seq, record.previous) == (1, made.records[0][:32])


@pytest.mark.parametrize(
    "wrong",
    [
        {"payload": "xyz"},
        {"payload": "ab" * 32 + "\n"},
        {"to": "x" * 201},
        {"payload_bytes": -1},
        {"epsilon": float("nan")},
        {"epsilon": float("inf")},
        {"epsilon": -0.1},
        {"time_ms": -1},
        {"time_ms": 10**15},
        {"rule": "\ud800"},
        {"round": 2**70},
        {"statement": bytes(5000)},
        {"intent": 1},
        {"intent": -1},
    ],
)
def test_an_entry_that_could_not_be_read_again_is_not_written(wrong: dict[str, Any]) -> None:
    with pytest.raises(LedgerProblem):
        ledger.append(Book().state, intent(1, **wrong))


@pytest.mark.parametrize("kind", ledger.OWN)
def test_nobody_writes_what_only_the_ledger_says(kind: Any) -> None:
    with pytest.raises(LedgerProblem, match="by the ledger itself"):
        ledger.append(Book().state, Entry(time_ms=NOW_MS, kind=kind))


def test_a_long_reason_is_cut_and_does_not_stop_the_ledger() -> None:
    made = Book()
    made.add(Entry(time_ms=NOW_MS, kind="refused", reason="no " * 1000))
    assert len(ledger.read_record(made.records[1]).entry.reason) == ledger.MAX_REASON


def test_a_head_is_needed_after_so_many_records_and_due_after_so_long() -> None:
    made = Book()
    assert not ledger.head_due(made.state, NOW_MS + ledger.HEAD_MS - 1)
    assert ledger.head_due(made.state, NOW_MS + ledger.HEAD_MS)
    while not ledger.head_needed(made.state):
        made.add(intent())
    assert made.state.seq == ledger.HEAD_EVERY
    made.sign()
    made.countersign()
    assert not ledger.head_due(made.state, NOW_MS + 100 * ledger.HEAD_MS)  # nothing but statements to sign


# --- judging ---------------------------------------------------------------------------------------


def test_a_good_ledger_says_what_is_covered() -> None:
    made = book(40)
    verdict = verify(made.records, KEYS, [made.last()])
    assert verdict.good
    assert verdict.records == len(made.records)
    assert verdict.owner == OWNER
    assert verdict.keys_given
    assert verdict.signed == verdict.countersigned == 42
    assert verdict.kept_elsewhere == len(made.records) - 1


def test_without_keys_the_node_is_who_the_ledger_says() -> None:
    verdict = verify(book(40).records)
    assert verdict.good
    assert not verdict.keys_given
    assert verdict.countersigned == -1  # there, but nobody can tell whose it is


def test_an_empty_ledger_is_no_ledger() -> None:
    assert found(verify([])) == ("empty", 0)


@pytest.mark.parametrize("at", [0, 1, 7, 20])
def test_a_flipped_byte_is_named_by_its_record(at: int) -> None:
    for place in (0, 33, -1):
        records = book(12).records
        changed = bytearray(records[at])
        changed[place] ^= 1
        records[at] = bytes(changed)
        assert found(verify(records, KEYS)) == ("changed", at)


def test_a_changed_record_with_a_new_hash_breaks_the_link_behind_it() -> None:
    records = book(12).records
    records[5] = body_of(records[5], payload_bytes=1)
    assert found(verify(records, KEYS)) == ("link", 6)


def test_a_history_written_anew_without_the_key_contradicts_the_next_head() -> None:
    made = book(40)
    made.sign()
    records = made.records
    records[50] = body_of(records[50], payload_bytes=1)
    verdict = verify(rechained(records, 50), KEYS)
    assert found(verdict) == ("rewritten", 43)
    assert verdict.fault is not None
    assert verdict.fault.index <= 50 <= verdict.fault.until


def test_a_history_written_anew_with_the_key_contradicts_a_head_kept_elsewhere() -> None:
    honest, other = book(10), Book()
    for raw in honest.records[1:5]:
        other.add(ledger.read_record(raw).entry)
    for number in range(30):
        other.add(intent(number, payload_bytes=1))
    assert verify(other.records, KEYS).good
    verdict = verify(other.records, KEYS, [honest.last()])
    assert found(verdict) == ("rewritten", 0)


def test_records_taken_out_moved_put_in_or_doubled_are_named() -> None:
    good = book(12).records
    assert found(verify([*good[:5], *good[6:]], KEYS)) == ("missing", 5)
    assert found(verify([*good[:5], good[9], *good[6:9], good[5], *good[10:]], KEYS)) == ("missing", 5)
    assert found(verify([*good[:6], *good[5:]], KEYS)) == ("repeated", 6)
    assert found(verify([*good[:9], good[2], *good[9:]], KEYS)) == ("repeated", 9)
    assert found(verify(good[1:], KEYS)) == ("missing", 0)


def test_a_cut_end_is_seen_by_a_head_kept_elsewhere_and_only_so() -> None:
    made = book(12)
    last = made.last()
    for left in range(1, len(made.records)):
        assert found(verify(made.records[:left], KEYS, [last])) == ("cut", left)
    assert verify(made.records[:7], KEYS).good


def test_a_ledger_in_place_of_another_is_noticed() -> None:
    other = Book(msgspec.structs.replace(OWNER, ledger="fedcba9876543210"))
    assert found(verify(other.records, KEYS, [book(3).last()])) == ("foreign", 0)


def test_heads_kept_elsewhere_that_contradict_each_other_prove_a_fork() -> None:
    one, two = Book(), Book()
    one.add(intent(1))
    two.add(intent(2))
    assert found(verify(one.records, KEYS, [one.last(), two.last()])) == ("rewritten", 1)


def test_stripped_heads_are_noticed() -> None:
    good = book(60, signed=False)
    kinds = [ledger.read_record(raw).entry.kind for raw in good.records]
    assert kinds[64] == "head"
    stripped = rechained([raw for raw, kind in zip(good.records, kinds, strict=True) if kind != "head"], 1)
    assert found(verify(stripped, KEYS)) == ("unsigned", 64)


def test_a_head_by_another_key_or_of_another_place_is_no_head() -> None:
    made = book(3, signed=False)
    for signer, state in (
        (Signer("mill-3", "edge-1", key("thief")), made.state),
        (Signer("mill-3", "edge-1", key("node")), msgspec.structs.replace(made.state, seq=3)),
        (
            Signer("mill-3", "edge-1", key("node")),
            msgspec.structs.replace(made.state, owner=Owner("another", "mill-3", "edge-1", OWNER.key)),
        ),
    ):
        _, raw = heads.add_head(state, signer, NOW_MS)
        statement = ledger.read_record(raw).entry.statement
        _, raw = ledger.add_own(made.state, Entry(time_ms=NOW_MS, kind="head", statement=statement))
        assert found(verify([*made.records, raw], KEYS)) == ("head", len(made.records))


def test_a_countersignature_has_to_be_of_a_head_of_this_ledger() -> None:
    made, other = book(3), Book(msgspec.structs.replace(OWNER, ledger="another"))
    other.sign()
    statement = other.countersign()
    made.add(Entry(time_ms=NOW_MS, kind="countersigned", statement=statement))
    assert found(verify(made.records, KEYS)) == ("head", len(made.records) - 1)
    assert found(verify(made.records)) == ("head", len(made.records) - 1)


def test_a_countersignature_by_another_cloud_is_refused_when_the_cloud_is_known() -> None:
    made = book(3)
    keys = Keys(KEYS.node, frozenset({key("other cloud").public_key().public_bytes_raw()}))
    assert found(verify(made.records, keys))[0] == "head"


def test_a_ledger_begins_once() -> None:
    made = book(3)
    _, raw = ledger.add_own(made.state, Entry(time_ms=NOW_MS, kind="begin", statement=b"x"))
    assert found(verify([*made.records, raw], KEYS)) == ("begin", len(made.records))
    assert found(verify([_first(intent())], KEYS)) == ("begin", 0)
    assert found(verify([_first(Entry(time_ms=0, kind="begin", statement=b"\x91"))], KEYS)) == ("begin", 0)


def _first(entry: Entry) -> bytes:
    body = msgspec.msgpack.encode(ledger.Record(1, 0, ledger.FIRST, entry))
    return hashlib.sha256(body).digest() + body


@pytest.mark.parametrize(
    "body", [b"", b"\x90", b"\x91" * 3000, b"\x94\x02\x00\xc4\x00\x80", b"\xc1", b"\x94\x01"]
)
def test_bytes_that_are_no_record_are_unreadable_and_crash_nothing(body: bytes) -> None:
    raw = hashlib.sha256(body).digest() + body
    assert found(verify([raw], KEYS))[0] in {"unreadable", "changed"}


def test_there_is_one_way_to_write_a_record() -> None:
    raw = book(1).records[1]
    longer = raw[32:].replace(b"\x94\x01\x01", b"\x94\x01\xcc\x01", 1)  # the number 1 in two bytes
    assert longer != raw[32:]
    records = [book(1).records[0], hashlib.sha256(longer).digest() + longer]
    assert found(verify(records, KEYS)) == ("unreadable", 1)


def test_without_checking_signatures_a_forged_head_would_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    made = book(3, signed=False)
    _, raw = heads.add_head(made.state, Signer("mill-3", "edge-1", key("thief")), NOW_MS)
    assert not verify([*made.records, raw], KEYS).good
    monkeypatch.setattr(heads, "is_signed", lambda *_: True)
    assert verify([*made.records, raw], KEYS).good


def test_without_checking_links_a_changed_record_would_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    records = book(12).records
    records[-3] = body_of(records[-3], payload_bytes=1)
    assert not verify(records, KEYS).good
    whole = ledger_verify.read_record

    def trusting(raw: bytes) -> ledger.Record:
        record = whole(raw)
        return (
            msgspec.structs.replace(record, previous=records[record.seq - 1][:32]) if record.seq else record
        )

    monkeypatch.setattr(ledger_verify, "read_record", trusting)
    assert verify(records, KEYS).good


# --- heads -----------------------------------------------------------------------------------------


def refused(reason: str) -> Any:
    return pytest.raises(Untrusted, check=lambda error: error.reason == reason)


def test_the_cloud_countersigns_what_follows_and_nothing_that_goes_back() -> None:
    made = book(3)
    first = heads.open_head(made.heads[0], KEYS.node)
    made.add(intent(9))
    second = made.sign()
    statement = heads.countersign(second, KEYS.node, CLOUD, first, NOW_MS)
    assert heads.open_countersignature(statement, KEYS) == heads.open_head(second, KEYS.node)
    assert heads.read_head(statement) == heads.read_head(second)
    with refused("replayed"):
        heads.countersign(made.heads[0], KEYS.node, CLOUD, heads.read_head(second), NOW_MS)


def test_the_cloud_refuses_a_fork_and_a_ledger_begun_anew() -> None:
    one, two = Book(), Book()
    one.add(intent(1))
    two.add(intent(2))
    known = heads.read_head(one.sign())
    with refused("conflict"):
        heads.countersign(two.sign(), KEYS.node, CLOUD, known, NOW_MS)
    anew = Book(msgspec.structs.replace(OWNER, ledger="another"))
    with refused("conflict"):
        heads.countersign(anew.sign(), KEYS.node, CLOUD, known, NOW_MS)


def test_a_statement_that_nobody_known_has_signed_is_no_evidence() -> None:
    made = book(3)
    statements = [made.heads[0], made.countersign()]
    assert len(known_heads(statements, KEYS)) == 2
    for keys in (Keys(), Keys(KEYS.cloud, KEYS.node), Keys(KEYS.node)):
        with refused("signature"):
            known_heads(statements, keys)
    with refused("malformed"):
        known_heads([b"\xc1"], KEYS)
    with refused("oversized"):
        known_heads([bytes(3000)], KEYS)


def test_a_head_is_no_countersignature_and_the_other_way_round() -> None:
    made = book(3)
    with refused("malformed"):
        heads.open_countersignature(made.heads[0], KEYS)
    with refused("malformed"):
        heads.open_head(made.countersign(), KEYS.node)
    body = msgspec.msgpack.decode(made.heads[0])[1]
    mixed = msgspec.msgpack.encode(["countersignature", body, CLOUD.sign(body)])
    with refused("signature"):
        heads.open_countersignature(mixed, KEYS)


# --- files -----------------------------------------------------------------------------------------


def test_whole_records_come_out_of_a_file_and_the_rest_stays() -> None:
    records = book(3).records
    data = file_of(records)
    assert split(data) == ledger.Split(records, b"")
    for cut in range(1, len(framed(records[-1]))):
        assert split(data[:-cut]) == ledger.Split(records[:-1], framed(records[-1])[:-cut])


def test_what_a_crash_leaves_is_torn_and_damage_is_not() -> None:
    records = book(3).records
    at, last = len(file_of(records[:-1])), framed(records[-1])
    for cut in range(1, len(last)):
        assert is_torn(last[:cut], at)
    assert is_torn(bytes(600), at)
    assert is_torn(bytes(20), at)
    long = framed(bytes(32) + b"x" * 2000)
    assert is_torn(long[:1000] + bytes(len(long) - 1000), at)
    for place in (0, 3, 4, 40, -1):  # a whole record with a byte flipped, its length included
        flipped = bytearray(last)
        flipped[place] ^= 1
        assert not is_torn(bytes(flipped), at), place
        assert not is_torn(bytes(flipped) + last, at), place
    assert not is_torn(last[:-5] + last, at)


# --- budgets ---------------------------------------------------------------------------------------


def test_an_intent_counts_as_sent_whatever_became_of_it() -> None:
    day = 86_400_000
    entries = [
        intent(1, payload_bytes=10, epsilon=0.5, unit="record"),
        outcome(1, 1, "refused"),
        intent(1, payload_bytes=7, flow="metric"),
        intent(1, payload_bytes=10, run="r-2", epsilon=0.25, unit="record"),
        intent(2, payload_bytes=1, time_ms=NOW_MS + day),
        Entry(time_ms=NOW_MS, kind="refused", flow="log", payload_bytes=1000, epsilon=9.0),
    ]
    spent = ledger.spent(entries)
    today, tomorrow = ledger.day_of(NOW_MS), ledger.day_of(NOW_MS + day)
    assert spent.payload_bytes == {today: {"model_update": 20, "metric": 7}, tomorrow: {"model_update": 1}}
    assert spent.rounds == {today: 2, tomorrow: 1}
    assert spent.epsilon == {"record": 0.75}


def test_a_day_ends_at_midnight_utc() -> None:
    assert ledger.day_of(86_400_000 - 1) == "1970-01-01"
    assert ledger.day_of(86_400_000) == "1970-01-02"
