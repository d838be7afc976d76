"""Heads of ledgers at the cloud: the first brings the key, the next follow on it, the rest is an alarm."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from reuna.adapters.clock import SystemClock
from reuna.adapters.ledger_file import LedgerFile, read
from reuna.adapters.seen_heads import SeenHeads
from reuna.adapters.trust_keys import new_key
from reuna.cloud.heads import Heads
from reuna.core.errors import BadMessage, Untrusted
from reuna.core.records import HEAD, Event
from reuna.trust.heads import Keys, Signer, known_heads, open_countersignature, read_head
from reuna.trust.ledger import Entry
from reuna.trust.ledger_verify import verify

CLOUD = new_key()
CLOUD_KEYS = frozenset({CLOUD.public_key().public_bytes_raw()})


class Node:
    """A node with a real ledger."""

    def __init__(self, folder: Path, name: str = "press-1", signer: Signer | None = None) -> None:
        self.signer = signer or Signer("mill", name, new_key())
        self.folder = folder
        self.ledger = LedgerFile(folder, self.signer, SystemClock())

    def sends(self, payload: int = 100) -> Event:
        """Something leaves; the head after it, as an event."""
        entry = Entry(
            time_ms=1, kind="intent", flow="metric", to="cloud", payload_bytes=payload, decision="allow"
        )
        self.ledger.append(entry)
        statement = self.ledger.sign()
        assert statement is not None
        fields = {"statement": statement.hex(), "key": self.ledger.key.hex()}
        return Event(self.signer.node, "b", read_head(statement).seq, 0.0, HEAD, fields={**fields})


@pytest.fixture
def seen(tmp_path: Path) -> SeenHeads:
    return SeenHeads(tmp_path / "heads")


@pytest.fixture
def heads(seen: SeenHeads) -> Heads:
    return Heads(seen, lambda: CLOUD, SystemClock())


def test_heads_that_follow_each_other_are_countersigned_and_kept(
    heads: Heads, seen: SeenHeads, tmp_path: Path
) -> None:
    node = Node(tmp_path / "ledger")
    for _ in range(3):
        heads.take(node.sends())
    statement = seen.file("press-1.seen")
    assert statement is not None
    head = open_countersignature(statement, Keys(frozenset({node.ledger.key}), CLOUD_KEYS))
    assert (head.node, head.seq) == ("press-1", node.ledger.state.seq - 2)
    node.ledger.countersigned(statement, CLOUD_KEYS)
    lines = (tmp_path / "heads" / "press-1.log").read_text().split()
    keys = Keys(frozenset({node.ledger.key}), CLOUD_KEYS)
    verdict = verify(read(node.folder), keys, known_heads([bytes.fromhex(line) for line in lines], keys))
    assert verdict.good
    assert (verdict.countersigned, verdict.kept_elsewhere, len(lines)) == (head.seq, head.seq, 3)


def test_the_same_heads_once_more_change_nothing(heads: Heads, seen: SeenHeads, tmp_path: Path) -> None:
    node = Node(tmp_path / "ledger")
    events = [node.sends(), node.sends()]
    for event in (*events, *events):
        heads.take(event)
    assert len((tmp_path / "heads" / "press-1.log").read_text().split()) == 2


def test_a_ledger_that_was_written_anew_is_refused_though_the_node_signs_it(
    heads: Heads, tmp_path: Path
) -> None:
    node = Node(tmp_path / "ledger")
    heads.take(node.sends())
    rewritten = Node(tmp_path / "other", signer=node.signer)
    with pytest.raises(Untrusted, match="began another ledger"):
        heads.take(rewritten.sends(5))


def test_a_ledger_whose_end_was_cut_and_grew_again_is_refused(heads: Heads, tmp_path: Path) -> None:
    node = Node(tmp_path / "ledger")
    node.sends()
    kept = {path.name: path.read_bytes() for path in node.folder.glob("*.ledger")}
    heads.take(node.sends(1))
    node.ledger.close()
    for name, data in kept.items():
        (node.folder / name).write_bytes(data)
    with pytest.raises(Untrusted, match="two different records"):
        heads.take(Node(node.folder, signer=node.signer).sends(2))


def test_another_key_for_a_node_that_is_known_is_refused(heads: Heads, tmp_path: Path) -> None:
    heads.take(Node(tmp_path / "a").sends())
    with pytest.raises(Untrusted, match="another key"):
        heads.take(Node(tmp_path / "b").sends())


def test_a_head_of_another_node_or_no_head_at_all_is_refused(heads: Heads, tmp_path: Path) -> None:
    event = Node(tmp_path / "a").sends()
    with pytest.raises(BadMessage, match="sent a head of"):
        heads.take(msgspec.structs.replace(event, node="press-2"))
    for fields in ({}, {"statement": "zz"}, {**event.fields, "key": "no hex"}, {**event.fields, "key": "00"}):
        with pytest.raises(BadMessage):
            heads.take(msgspec.structs.replace(event, fields=fields))
    with pytest.raises(Untrusted, match="cannot be read"):
        heads.take(msgspec.structs.replace(event, fields={**event.fields, "statement": "00"}))
    forged = {**event.fields, "key": new_key().public_key().public_bytes_raw().hex()}
    with pytest.raises(Untrusted, match="not signed"):
        heads.take(msgspec.structs.replace(event, fields=forged))


def test_only_names_of_nodes_are_files(seen: SeenHeads, tmp_path: Path) -> None:
    (tmp_path / "secret.seen").write_text("x")
    seen.keep("press-1", b"statement")
    assert seen.file("press-1.seen") == b"statement"
    for name in ("../secret.seen", "press-1.key", "press-1", "", "timestamp.json", "a" * 300 + ".seen"):
        assert seen.file(name) is None
