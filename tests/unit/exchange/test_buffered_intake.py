"""The way in at a parent whose steps have updates of several rounds."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from reuna.core.errors import Refused, Unreachable
from reuna.core.records import Contribution, Grid, Member, Plan, Receipt
from reuna.exchange.intake import STARTS_S, Intake
from reuna.loop import train
from reuna.sim.clock import run_virtual
from reuna.sim.storage import MemoryBlobs, MemorySpool
from reuna.wire import digest_bytes, encode, message_digest

EDGES = ("a", "b", "c")


def plan(round: int, *bases: str, **changes: Any) -> Plan:
    """Of three edges two of which make a step."""
    fields: dict[str, Any] = {
        "run": "r", "round": round, "attempt": 1, "task": "train", "model": f"{round}" * 64, "model_size": 9, "params": 4,
        "cohort": EDGES, "quorum": 3, "deadline_s": 5.0, "grid": Grid(8, -4), "max_weight": 10, "capacity": 3,
        "seed": 1, "bundle": "b" * 64, "bundle_size": 3, "combine": "singly", "enough": 2, "buffer": 2, "bases": bases,
    }  # fmt: skip
    return Plan(**{**fields, **changes})


PLANS = [plan(1)]
for number in range(2, 8):
    before = [message_digest(encode(each)) for each in reversed(PLANS)]
    PLANS.append(plan(number, *before[:2]))


def answer(node: str, round: int, fill: int = 1) -> tuple[Contribution, bytes]:
    """An edge's update for a round."""
    body = bytes([fill] * 4)
    digest = digest_bytes(body)
    asked = PLANS[round - 1]
    member = Member(node, 2, digest=digest)
    return train.answer(asked, message_digest(encode(asked)), member, digest, 1), body


class Parent:
    """A fog that may lose its memory."""

    def __init__(self) -> None:
        self.spool = MemorySpool()
        self.restart()

    def restart(self) -> None:
        self.intake = Intake("fog", MemoryBlobs(), self.spool)

    def open(self, round: int) -> bool:
        return self.intake.open(dict.fromkeys(EDGES, encode(PLANS[round - 1])))

    def take(self, manifest: Contribution, body: bytes) -> str:
        """Why it is refused, '' when it is acknowledged."""
        try:
            receiver = self.intake.receive(manifest.sender, manifest)
            if not isinstance(receiver, Receipt):
                receiver.write(body)
                receiver.commit()
        except Refused as refusal:
            return refusal.reason
        return ""

    def close(self, round: int) -> list[tuple[str, int]]:
        """What the step of a round is made of."""
        asked = PLANS[round - 1]
        rows = self.intake.freeze(asked.key)
        row = train.buffered_row(asked, message_digest(encode(asked)), "fog", rows, {})
        self.intake.close(row)
        return sorted(train.given(row))


@pytest.fixture
async def parent() -> Parent:
    return Parent()


async def test_an_update_of_a_round_before_makes_the_next_step(parent: Parent) -> None:
    parent.open(1)
    assert parent.take(*answer("a", 1)) == ""
    assert parent.close(1) == [("a", 1)]
    parent.open(2)
    assert parent.take(*answer("b", 1)) == parent.take(*answer("a", 2)) == ""
    assert parent.close(2) == [("a", 2), ("b", 1)]


async def test_what_comes_while_a_round_is_closed_is_held_for_the_next(parent: Parent) -> None:
    parent.open(1)
    parent.take(*answer("a", 1))
    parent.close(1)
    assert parent.take(*answer("b", 1)) == "", "in a run of rounds one after the other it would be refused"
    parent.open(2)
    assert parent.close(2) == [("b", 1)]


async def test_a_restarted_parent_has_all_that_it_acknowledged_and_counts_nothing_again(
    parent: Parent,
) -> None:
    parent.open(1)
    parent.take(*answer("a", 1))
    parent.close(1)
    parent.take(*answer("b", 1))
    parent.restart()
    parent.open(2)
    assert parent.take(*answer("b", 1)) == "", "the same bytes again are acknowledged again"
    assert parent.take(*answer("a", 1, fill=3)) == "conflict"
    assert parent.close(2) == [("b", 1)]


async def test_a_round_that_was_closed_before_a_restart_has_the_same_updates_and_no_other(
    parent: Parent,
) -> None:
    parent.open(1)
    parent.take(*answer("a", 1))
    assert parent.close(1) == [("a", 1)]
    parent.take(*answer("b", 1))
    parent.restart()
    assert parent.open(1), "it is closed"
    assert [row.sender for row in parent.intake.rows()] == ["a"]


async def test_what_a_closed_row_names_may_have_to_be_handed_over_again(parent: Parent) -> None:
    parent.open(1)
    parent.take(*answer("a", 1))
    rows = parent.intake.freeze(PLANS[0].key)
    row = train.with_updates(
        train.buffered_row(PLANS[0], "", "fog", rows, {}), PLANS[0], rows, digest_bytes(b"\x01" * 4)
    )
    writer = parent.spool.begin(row)
    writer.write(b"\x01" * 4)
    parent.intake.close(row, writer.seal())
    parent.open(2)
    assert parent.intake.unsent() == [], "its own process does so"
    parent.restart()
    parent.open(2)
    assert parent.intake.unsent() == [row]
    parent.open(3)
    assert parent.intake.unsent() == []


async def test_what_is_too_old_is_refused_by_name(parent: Parent) -> None:
    for number in (1, 2, 3, 4):
        parent.open(number)
    assert parent.take(*answer("a", 1)) == "stale"
    assert parent.take(*answer("a", 2)) == ""
    assert parent.intake.refused == {"a": {"stale": 1}}


async def test_who_sends_an_update_twice_in_other_bytes_is_refused(parent: Parent) -> None:
    """Here as a fog would: in the sum-up of another round."""
    parent.open(1)
    parent.take(*answer("a", 1))
    parent.close(1)
    parent.open(2)
    manifest, body = answer("a", 2)
    again = msgspec.structs.replace(manifest, members=(msgspec.structs.replace(manifest.members[0], base=1),))
    with pytest.raises(Refused, match="second time"):
        train.counts_twice(again, parent.intake._buffer.counted)  # type: ignore[union-attr]
    assert parent.take(again, body) == "malformed", "and an edge speaks of its own round alone"


async def test_models_of_the_last_rounds_are_offered_still(parent: Parent) -> None:
    for number in range(1, 7):
        parent.open(number)
    sizes = {str(number): parent.intake._offered("a", f"{number}" * 64) for number in range(1, 7)}
    assert sizes == {"1": None, "2": None, "3": 9, "4": 9, "5": 9, "6": 9}
    assert parent.intake._offered("nobody", "6" * 64) is None


async def test_a_step_waits_for_one_update_at_least_and_not_longer_than_the_deadline_for_more(
    parent: Parent,
) -> None:
    asked = msgspec.structs.replace(PLANS[0], deadline_s=0.05)
    parent.intake = Intake("fog", MemoryBlobs(), parent.spool, announce_s=0.01)
    parent.intake.open(dict.fromkeys(EDGES, encode(asked)))
    told: list[str] = []

    async def announce(child: str) -> None:
        told.append(child)
        if len(told) == 30:  # long after the deadline
            manifest, body = answer("a", 1)
            assert (
                parent.take(msgspec.structs.replace(manifest, plan=message_digest(encode(asked))), body) == ""
            )
            await parent.intake.received(None)  # type: ignore[arg-type]

    async with asyncio.timeout(10):
        await parent.intake.collect(announce)
    assert [row.sender for row in parent.intake.rows()] == ["a"]
    assert len(told) >= 30


async def test_what_comes_before_a_restarted_parent_has_opened_its_round_is_asked_for_again(
    parent: Parent,
) -> None:
    parent.open(1)
    parent.take(*answer("a", 1))
    parent.close(1)
    parent.restart()
    with pytest.raises(Unreachable, match="has opened no round yet"):
        parent.take(*answer("b", 1))
    assert parent.take(*answer("a", 1)) == "", "what it has it acknowledges"
    assert parent.intake.refused == {}
    parent.open(2)
    assert parent.take(*answer("b", 1)) == ""
    assert parent.close(2) == [("b", 1)]


def test_a_parent_that_opens_nothing_refuses_it_in_the_end() -> None:
    async def live() -> list[str]:
        parent, found = Parent(), list[str]()
        for _ in range(3):
            try:
                found.append(parent.take(*answer("a", 1)))
            except Unreachable:
                found.append("later")
            await asyncio.sleep(STARTS_S / 2 + 1)
        return found

    assert run_virtual(live()) == ["later", "later", "not-invited"]
