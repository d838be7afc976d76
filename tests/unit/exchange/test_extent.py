"""The facts of a sum that the site's policy is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from reuna.core.errors import DiskFull, Refused
from reuna.core.records import Contribution, Grid, Member, Plan
from reuna.core.tensors import pack
from reuna.exchange.egress import Egress
from reuna.exchange.encode import schema_of
from reuna.exchange.extent import length
from reuna.exchange.flows import Passage
from reuna.exchange.intake import Intake
from reuna.exchange.intents import Leaving
from reuna.exchange.meter import CountedFlows
from reuna.learn.grid import pack as packed_integers
from reuna.learn.lots import written
from reuna.loop import train
from reuna.sim.bus import MemoryBroker
from reuna.sim.clock import InPlace, SimClock, run_virtual
from reuna.sim.fleet import unsealed
from reuna.sim.freight import MemoryFreight
from reuna.sim.storage import MemoryBlob, MemoryBlobs, MemorySpool, no_leftovers
from reuna.trust.requests import Request, vouched, without_roster
from reuna.wire import digest_bytes, encode, message_digest

GRID = Grid(32, -10)
BASE = pack({"w": np.zeros(70_000, np.float32)})
PLAN = Plan(
    "r-1", 1, 1, "train", digest_bytes(BASE), len(BASE), 70_000, ("a", "b"), 1, 5.0, GRID, 10, 2, 1, "b" * 64, 1,
    {"epochs": 4},
)  # fmt: skip


def summed(values: list[int], width: int, weight: int) -> tuple[Contribution, MemoryBlob]:
    """A partial over two members whose integers repeat ``values``."""
    data = bytes(packed_integers(np.resize(np.array(values), PLAN.params), width))
    members = (Member("a", weight - 1), Member("b", 1))
    row = train.answer(PLAN, message_digest(encode(PLAN)), members[0], digest_bytes(data), width)
    row = msgspec.structs.replace(row, sender="fog", kind="partial", weight=weight, members=members)
    return row, MemoryBlob(data, row.digest)


@pytest.mark.parametrize("width", [2, 3, 4, 5, 8])
def test_the_length_of_a_sum_is_that_of_the_mean_update(width: int) -> None:
    row, body = summed([30, -40], width, weight=10)
    assert length(row, body, GRID) == pytest.approx(np.sqrt(35_000) * 50 * 2**-10 / 10)
    own = msgspec.structs.replace(row, kind="update")
    assert length(own, body, GRID) == pytest.approx(np.sqrt(35_000) * 50 * 2**-10)


def test_the_length_of_updates_passed_up_singly_is_that_of_the_longest() -> None:
    small, large = (packed_integers(np.resize(np.array(v), PLAN.params), 2) for v in ([3, -4], [30, -40]))
    row, _ = summed([1], 2, weight=10)
    data = bytes(large) + bytes(small)
    row = msgspec.structs.replace(row, kind="updates", size=len(data))
    assert length(row, MemoryBlob(data, ""), GRID) == pytest.approx(np.sqrt(35_000) * 50 * 2**-10)


def test_the_length_of_packed_updates_passed_up_singly_is_that_of_the_longest() -> None:
    integers = [np.resize(np.array(values), PLAN.params) for values in ([30, -40], [3, -4])]
    data = b"".join(lot for each in integers for lot in written(each))
    row = msgspec.structs.replace(summed([1], 2, weight=10)[0], kind="updates", size=len(data), packed=True)
    assert length(row, MemoryBlob(data, ""), GRID) == pytest.approx(np.sqrt(35_000) * 50 * 2**-10)


def test_integers_whose_squares_are_beyond_int64_have_a_length() -> None:
    row, body = summed([2**62], 8, weight=2)
    assert length(row, body, GRID) == pytest.approx(np.sqrt(70_000) * 2.0**62 * 2**-10 / 2)


class Told(CountedFlows):
    """Keeps what the policy would be asked; refuses when told to."""

    def __init__(self) -> None:
        super().__init__("fog")
        self.asked: list[Request] = []
        self.no, self.says = False, "a policy"

    def mark(self) -> str:
        return self.says

    def leave(self, *payloads: Leaving) -> Passage:
        self.asked += [each.request for each in payloads]
        if self.no:
            raise Refused("policy", "no rule lets it leave")
        return super().leave(*payloads)


class Above:
    """A parent that takes everything."""

    def receive(self, peer: str, manifest: Contribution) -> Any:
        raise Refused("closed", "its round is over")


def egress(
    flows: CountedFlows, broker: MemoryBroker | None = None, above: Callable[[], Any] = Above
) -> Egress:
    bus = (broker or MemoryBroker()).connect("fog")
    cache = MemoryBlobs()
    cache.put(BASE)
    freight = MemoryFreight(above, "fog", cache)
    return Egress(
        "fog", "cloud", bus, freight, cache, MemorySpool(), flows, SimClock(), InPlace(),
        unsealed, without_roster, vouched, no_leftovers(),
    )  # fmt: skip


async def test_a_partial_sum_states_its_length_its_schema_and_the_steps_of_its_plan() -> None:
    flows = Told()
    row, body = summed([30, -40], 4, weight=10)
    await egress(flows).hand_over(encode(PLAN), row, body)
    _, update = flows.asked
    assert update.norm == pytest.approx(length(row, body, GRID))
    assert update.schema == schema_of(MemoryBlob(BASE, ""))
    assert (update.local_steps, update.samples, update.cohort) == (4, 10, 2)


def test_a_sum_that_the_sites_policy_refuses_is_not_asked_about_again_until_it_changes() -> None:
    heard = []

    async def story() -> None:
        flows, broker = Told(), MemoryBroker()
        way_up, above, plan = egress(flows, broker), broker.connect("cloud"), encode(PLAN)

        async def handle(data: bytes, _signed: bytes, _terms: object) -> None:
            heard.append(data)

        async def ask() -> int:
            await above.publish("plan.fog", plan)
            await SimClock().sleep(1)
            return len(heard)

        await way_up.listen(handle)
        assert await ask() == 1
        flows.no = True
        with pytest.raises(Refused):
            await way_up.hand_over(plan, *summed([1], 4, weight=10))
        assert await ask() == 1
        flows.says = "another policy"
        assert await ask() == 2

    run_virtual(story())


class Later(Told):
    """Says for a while that its disk is full, or that it is not yet time."""

    def __init__(self, why: type[DiskFull] | None, tries: int) -> None:
        super().__init__()
        self.why, self.tries = why, tries

    def leave(self, *payloads: Leaving) -> Passage:
        if len(self.asked) >= self.tries * len(payloads):
            return super().leave(*payloads)
        self.asked += [each.request for each in payloads]
        if self.why is not None:
            raise self.why("no space left")
        raise Refused("policy", "it waits for its hours", until=SimClock().now() + 3600)


@pytest.mark.parametrize("why", [DiskFull, None])
def test_a_sum_that_may_not_leave_yet_leaves_when_it_may(why: type[DiskFull] | None) -> None:
    """Whether it is the disk of the ledger that is full or the hours that have not come."""

    async def story() -> None:
        row, body = summed([30, -40], 4, weight=10)
        above = Intake("cloud", MemoryBlobs(), MemorySpool())
        above.open({"fog": encode(PLAN)})
        flows = Later(why, tries=3)
        receipt = await egress(flows, above=lambda: above).hand_over(encode(PLAN), row, body)
        assert receipt is not None
        assert [each.digest for each in above.rows()] == [row.digest]
        assert len(flows.lines) == 2, "the sum and what it says of its members"

    run_virtual(story())
