"""A node that starts again reads the end of its ledger, and knows all that it knew."""

from __future__ import annotations

from pathlib import Path

import pytest

from reuna.adapters import ledger_file
from reuna.adapters.ledger_file import LedgerFile, entries, read
from reuna.core.errors import Corrupted, LedgerProblem
from reuna.exchange.flows import SiteFlows
from reuna.exchange.intents import Standing
from reuna.exchange.resume import Resumer, resume
from reuna.trust.heads import Signer
from reuna.trust.ledger_verify import verify
from reuna.trust.policy import digest
from tests.unit.exchange.test_flows import POLICY, Noon, Site
from tests.unit.trust.house import key

SIGNER = Signer("mill", "edge-1", key("node"))


class Node:
    """A node's ledger, flows and resumer, opened as its egress does."""

    def __init__(self, folder: Path) -> None:
        known = resume(folder / "ledger", SIGNER.public)
        mark = known.mark if known else None
        past = list(entries(folder / "ledger", mark.place if mark else None))
        self.read = len(past)
        self.ledger = LedgerFile(folder / "ledger", SIGNER, Noon(), segment_bytes=9000, since=mark)
        rules = lambda _now: Standing(POLICY, digest(POLICY))  # noqa: E731
        self.flows = SiteFlows(self.ledger, rules, Noon(), past, known.memory if known else None)
        self.resumer = Resumer(folder / "ledger", self.ledger, self.flows, SIGNER.private)

    def stop(self) -> None:
        self.ledger.close()


def lived(folder: Path, save: bool = True) -> tuple[object, object]:
    """What a node knew when it was stopped, by its own account."""
    site, node = Site(), Node(folder)
    for number in range(40):
        node.flows.leave(site.update(1))
        node.flows.leave(site.hello())
        node.flows.arrived(node.flows.leave(site.update(1 + number % 2)), "acknowledged")
        node.flows.flush()
    if save:
        node.resumer.save()
    node.flows.arrived(node.flows.leave(site.update(2)), "again")
    node.flows.flush()
    _, memory = node.flows.memory(lambda: None)
    state = node.ledger.state
    node.stop()
    return memory, state


def test_what_is_known_from_the_end_is_what_is_known_from_all(tmp_path: Path) -> None:
    _, state = lived(tmp_path)
    short = Node(tmp_path)
    found = short.flows.memory(lambda: None)[1]
    assert (short.ledger.state, short.read) == (state, 1)
    short.stop()
    (tmp_path / "ledger/resume").unlink()
    whole = Node(tmp_path)
    assert whole.read > 40
    assert whole.ledger.state == state
    assert whole.flows.memory(lambda: None)[1] == found
    whole.stop()


def test_the_ledger_goes_on_and_is_whole(tmp_path: Path) -> None:
    lived(tmp_path)
    lived(tmp_path)
    lived(tmp_path, save=False)
    assert verify(read(tmp_path / "ledger")).good


@pytest.mark.parametrize("spoilt", ["cut", "forged", "strange", "gone"])
def test_a_note_that_does_not_fit_is_not_believed(tmp_path: Path, spoilt: str) -> None:
    lived(tmp_path)
    note = tmp_path / "ledger/resume"
    data = note.read_bytes()
    if spoilt == "cut":
        note.write_bytes(data[:-1])
    elif spoilt == "forged":
        note.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    elif spoilt == "strange":
        assert resume(tmp_path / "ledger", key("other").public_key().public_bytes_raw()) is None
        return
    else:
        newest = ledger_file.segments(tmp_path / "ledger")[-1]
        newest.write_bytes(b"")
    assert resume(tmp_path / "ledger", SIGNER.public) is None


def test_another_end_than_the_noted_one_is_found_at_the_next_start(tmp_path: Path) -> None:
    """Without the link to the noted digest another history could follow on."""
    lived(tmp_path / "one", save=False)
    lived(tmp_path / "two")
    (tmp_path / "two/ledger/resume").rename(tmp_path / "one/ledger/resume")
    with pytest.raises((Corrupted, LedgerProblem)):
        Node(tmp_path / "one")
