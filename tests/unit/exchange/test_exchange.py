"""The way up and the way in, over the fakes: what is refused where, what is sent again, what is counted."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import numpy as np
import pytest

from reuna.core.errors import Corrupted, Refused, Unreachable
from reuna.core.records import Contribution, Grid, Hello, Member, Plan, Receipt
from reuna.core.tensors import pack
from reuna.exchange.egress import Egress
from reuna.exchange.flows import Passage
from reuna.exchange.intake import Intake
from reuna.exchange.intents import Leaving
from reuna.exchange.meter import CountedFlows, total
from reuna.learn.grid import decode
from reuna.loop import train
from reuna.sim.bus import MemoryBroker
from reuna.sim.clock import InPlace, SimClock
from reuna.sim.fleet import unsealed
from reuna.sim.freight import MemoryFreight
from reuna.sim.storage import MemoryBlob, MemoryBlobs, MemorySpool, no_leftovers
from reuna.trust.requests import vouched, without_roster
from reuna.wire import decode as read
from reuna.wire import digest_bytes, encode

PARAMS = 4
BASE = pack({"w": np.zeros(PARAMS, np.float32)})
GRID = Grid(16, -8)


def plan(**changes: Any) -> bytes:
    values: dict[str, Any] = {
        "run": "r-1", "round": 1, "attempt": 1, "task": "train", "model": digest_bytes(BASE),
        "model_size": len(BASE), "params": PARAMS, "cohort": ("a", "b"), "quorum": 1, "deadline_s": 5.0,
        "grid": GRID, "max_weight": 10, "capacity": 2, "seed": 1, "bundle": "b" * 64, "bundle_size": 1,
        "inline": BASE,
    }  # fmt: skip
    return encode(Plan(**{**values, **changes}))


class Site:
    """A parent's intake and the egress of node ``a`` below it."""

    def __init__(self) -> None:
        self.spool, self.outbox, self.cache = MemorySpool(), MemorySpool(), MemoryBlobs()
        self.meter = CountedFlows("a")
        self.intake = Intake("fog", MemoryBlobs(), self.spool)
        self.sent: list[bytes] = []

    def open(self, data: bytes) -> None:
        self.intake.open({"a": data, "b": data})

    def egress(self, broker: MemoryBroker | None = None) -> Egress:
        freight = MemoryFreight(lambda: self.intake, "a", self.cache)
        bus = (broker or MemoryBroker()).connect("a")
        return Egress(
            "a", "fog", bus, freight, self.cache, self.outbox, self.meter, SimClock(), InPlace(), unsealed,
            without_roster, vouched, no_leftovers(),
        )  # fmt: skip

    async def submit(self, values: list[float], weight: int = 3, data: bytes | None = None) -> Receipt | None:
        trained = pack({"w": np.array(values, np.float32)})
        member = Member("a", metrics={"loss": 0.5})
        return await self.egress().submit(data or plan(), MemoryBlob(trained, ""), weight, member)


@pytest.fixture
async def site() -> Site:
    made = Site()
    made.open(plan())
    return made


async def test_an_update_arrives_on_the_grid_with_its_weight(site: Site) -> None:
    receipt = await site.submit([0.5, -0.25, 1.0, 0.0])
    (row,) = site.intake.rows()
    assert receipt is not None
    assert receipt.digest == row.digest
    assert (row.weight, row.members[0].metrics, row.members[0].saturated) == (3, {"loss": 0.5}, 0)
    values = np.frombuffer(site.spool.body(row).read(0, row.size), "<i2")
    assert decode(values, GRID).tolist() == [0.5, -0.25, 1.0, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
async def test_values_that_are_not_finite_never_leave_the_node(site: Site, bad: float) -> None:
    with pytest.raises(Refused) as refusal:
        await site.submit([0.0, bad, 0.0, 0.0])
    assert refusal.value.reason == "not-finite"
    assert not site.meter.lines
    assert not site.intake.rows()


async def test_other_tensors_than_the_base_models_never_leave_the_node(site: Site) -> None:
    with pytest.raises(Refused) as refusal:
        await site.submit([0.0] * (PARAMS + 1))
    assert refusal.value.reason == "shape"
    assert not site.meter.lines


async def test_clipped_values_are_counted_and_weights_are_capped(site: Site) -> None:
    await site.submit([1e6, -1e6, 0.0, 0.0], weight=1000)
    (row,) = site.intake.rows()
    assert row.members[0].saturated == 2
    assert row.weight == 10


async def test_an_update_takes_as_few_bytes_as_its_largest_value_whatever_the_one_before_took(
    site: Site,
) -> None:
    egress, reads = site.egress(), []
    for number, (size, width) in enumerate([(0.25, 1), (-0.25, 1), (2.0, 2), (64.0, 2), (0.25, 1)], 1):
        data = plan(round=number)
        site.open(data)
        trained = Counted(pack({"w": np.array([size, 0, 0, 0], np.float32)}), "")
        await egress.submit(data, trained, 3, Member("a"))
        (row,) = site.intake.rows()
        assert (row.width, row.size) == (width, width * PARAMS)
        values = np.frombuffer(site.spool.body(row).read(0, row.size), f"<i{width}")
        assert decode(values, GRID).tolist() == [size, 0, 0, 0]
        reads.append(trained.reads)
    assert reads[1] == reads[3] < min(reads[0], reads[2], reads[4]), "as wide as before: read once"


class Counted(MemoryBlob):
    """A blob that knows how often it was read."""

    reads = 0

    def read(self, offset: int, count: int) -> bytes:
        self.reads += 1
        return super().read(offset, count)


class Changing(MemoryBlob):
    """A trained model that grows each time that it is read."""

    times = 0

    def read(self, offset: int, count: int) -> bytes:
        data = super().read(offset, count)
        if count == 4 * PARAMS:
            self.times += 1
            return np.full(PARAMS, 0.25 * 256.0 ** (self.times - 1), np.float32).tobytes()
        return data


async def test_a_trained_model_that_changes_while_it_is_read_is_not_sent(site: Site) -> None:
    with pytest.raises(Corrupted, match="changed while it was read"):
        await site.egress().submit(plan(), Changing(BASE, ""), 3, Member("a"))
    assert not site.meter.lines


async def test_after_a_restart_the_kept_bytes_are_sent_and_not_those_of_a_new_training(site: Site) -> None:
    first = await site.submit([0.5, 0.5, 0.5, 0.5])
    again = await site.submit([9.0, 9.0, 9.0, 9.0])
    assert first == again
    assert len(site.intake.rows()) == 1


async def test_a_model_inside_a_plan_lies_nowhere_and_is_the_plans_or_the_plan_is_refused(site: Site) -> None:
    broker, heard = MemoryBroker(), list[bytes]()
    egress, fog = site.egress(broker), broker.connect("fog")

    async def hear(data: bytes, _signed: bytes, _terms: object) -> None:
        heard.append(data)

    await egress.listen(hear)
    for data in (plan(inline=BASE[:-1] + b"x"), plan()):
        await fog.publish("plan.a", data)
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert heard == [plan()]
    assert egress.refused == {Corrupted.code: 1}
    assert site.cache.get(digest_bytes(BASE)) is None
    assert await site.submit([0.5, -0.25, 1.0, 0.0]) is not None


async def test_every_payload_is_counted_by_kind(site: Site) -> None:
    await site.submit([0.5, 0.5, 0.5, 0.5])
    kinds = {flow.kind: flow.payload_bytes for flow in total(site.meter.lines)}
    assert kinds["model_update"] == PARAMS * 2
    (row,) = site.intake.rows()
    assert kinds["metric"] == len(encode(row))


async def test_a_hello_is_counted_when_it_left_and_not_when_the_line_was_away(site: Site) -> None:
    broker = MemoryBroker()
    egress = site.egress(broker)
    hello = Hello("a", "boot", "1")
    await egress.hello(hello)
    broker.stop()
    await egress.hello(hello)
    (flow,) = total(site.meter.lines)
    assert (flow.kind, flow.messages, flow.payload_bytes) == ("presence", 1, len(encode(hello)))


class Asked(CountedFlows):
    """Remembers which code each payload was said to come from."""

    def leave(self, *payloads: Leaving) -> Passage:
        self.codes = {each.request.code for each in payloads}
        return super().leave(*payloads)


@pytest.mark.parametrize("words", sorted(train.ABSENT))
async def test_who_gives_nothing_claims_no_code_so_that_any_site_lets_it_say_so(
    site: Site, words: str
) -> None:
    site.meter = Asked("a")
    await site.egress().submit(plan(), None, 0, Member("a", absent=words))
    assert site.meter.codes == {""}


@pytest.mark.parametrize(
    "member",
    [
        Member("a", absent="R107 ValueError: row 7: 0.25"),
        Member("a", absent=train.AWAITED, metrics={"loss": 0.5}),
        Member("a", absent=train.AWAITED, saturated=7),
    ],
    ids=["other words", "with a number", "with a count"],
)
async def test_other_words_or_numbers_of_who_gives_nothing_never_leave_the_node(
    site: Site, member: Member
) -> None:
    with pytest.raises(Refused) as refusal:
        await site.egress().submit(plan(), None, 0, member)
    assert refusal.value.reason == "absence"
    assert not site.meter.lines


async def test_other_words_of_a_member_never_leave_a_fog(site: Site) -> None:
    silent = Member("a", absent="row 7: 0.25")
    row = train.answer(read(Plan, plan()), "d" * 64, silent)
    with pytest.raises(Refused) as refusal:
        await site.egress().hand_over(plan(), row, None)
    assert refusal.value.reason == "absence"
    assert not site.meter.lines


async def test_a_report_is_made_anew_of_name_and_metrics(site: Site) -> None:
    await site.egress().submit(
        plan(), None, 0, Member("a", metrics={"loss": 0.5}, digest="e" * 64, saturated=3)
    )
    (row,) = site.intake.rows()
    assert row.members == (Member("a", metrics={"loss": 0.5}),)


async def test_after_the_close_nothing_is_accepted_and_the_sender_is_counted(site: Site) -> None:
    key = ("r-1", 1, 1)
    assert site.intake.freeze(key) == []
    assert await site.submit([0.5, 0.5, 0.5, 0.5]) is None
    assert site.intake.refused == {"a": {"closed": 1}}


class Outcomes(CountedFlows):
    """Remembers what became of what left, and what lay in the outbox when it was let."""

    def __init__(self, outbox: MemorySpool) -> None:
        super().__init__("a")
        self.became: list[str] = []
        self._outbox = outbox

    def arrived(self, passage: Passage, outcome: str) -> None:
        assert self._outbox.rows("r-1", 1, 1), "it is durable before it is sent"
        self.became.append(outcome)


async def test_what_becomes_of_an_answer_is_written_down_however_often_its_line_is_cut(site: Site) -> None:
    site.meter = outcomes = Outcomes(site.outbox)
    intake, tries = site.intake, list[int]()

    class Line:
        """Down at the first try."""

        def __getattr__(self, name: str) -> object:
            if name == "receive" and not tries:
                tries.append(1)
                raise Unreachable("the line is down")
            return getattr(intake, name)

    site.intake = Line()  # type: ignore[assignment]
    assert await site.submit([0.5, 0.5, 0.5, 0.5]) is not None
    assert (tries, outcomes.became) == ([1], ["acknowledged"])
    site.intake = intake
    assert site.intake.freeze(("r-1", 1, 1))
    assert await site.submit([0.5, 0.5, 0.5, 0.5], data=plan(seed=2)) is None
    assert outcomes.became[1:] == ["refused: conflict"]


async def test_a_second_contribution_with_other_bytes_is_a_conflict(site: Site) -> None:
    await site.submit([0.5, 0.5, 0.5, 0.5])
    (row,) = site.intake.rows()
    other = msgspec.structs.replace(row, digest="0" * 63 + "1")
    with pytest.raises(Refused) as refusal:
        site.intake.receive("a", other)
    assert refusal.value.reason == "conflict"
    assert isinstance(site.intake.receive("a", row), Receipt)


def upload(site: Site, manifest: Contribution, body: bytes) -> None:
    receiver = site.intake.receive("a", manifest)
    assert not isinstance(receiver, Receipt)
    receiver.write(body)
    receiver.commit()


async def manifest_for(site: Site, body: bytes) -> Contribution:
    """An honest manifest, taken from an honest update, for other bytes."""
    honest = Site()
    honest.open(plan())
    await honest.submit([0.5, 0.5, 0.5, 0.5])
    (row,) = honest.intake.rows()
    member = msgspec.structs.replace(row.members[0], digest=digest_bytes(body))
    return msgspec.structs.replace(row, digest=digest_bytes(body), members=(member,))


async def test_a_value_outside_the_grid_is_refused_at_the_fold_and_leaves_no_row(site: Site) -> None:
    body = np.array([0, 0, -(2**15), 0], "<i2").tobytes()
    with pytest.raises(Refused) as refusal:
        upload(site, await manifest_for(site, body), body)
    assert refusal.value.reason == "range"
    assert not site.intake.rows()
    assert site.intake.refused == {"a": {"range": 1}}
    assert await site.submit([0.5, 0.5, 0.5, 0.5]) is not None


async def test_a_body_of_another_digest_is_refused(site: Site) -> None:
    manifest = await manifest_for(site, bytes(8))
    with pytest.raises(Refused) as refusal:
        upload(site, manifest, b"\1" * 8)
    assert refusal.value.reason == "digest"
    assert not site.intake.rows()


async def test_a_refusal_stands_in_one_row_that_closes_a_round(site: Site) -> None:
    site.intake.count_refusal("a", Refused("malformed", "-"))
    site.intake.count_refusal("b", Refused("range", "-"))
    told = site.intake.newly_refused()
    assert told == {"a": {"malformed": 1}, "b": {"range": 1}}
    assert site.intake.newly_refused() == told, "until the row is on the disk"
    opened = read(Plan, plan())
    site.intake.close(train.closing_row(opened, "p" * 64, "fog", opened.cohort, [], told))
    site.intake.count_refusal("a", Refused("malformed", "-"))
    assert site.intake.newly_refused() == {"a": {"malformed": 1}}
    assert site.intake.refused == {"a": {"malformed": 2}, "b": {"range": 1}}


async def test_a_neighbour_may_not_speak_for_a_node(site: Site) -> None:
    await site.submit([0.5, 0.5, 0.5, 0.5])
    (row,) = site.intake.rows()
    with pytest.raises(Refused) as refusal:
        site.intake.receive("b", row)
    assert refusal.value.reason == "identity"


async def test_a_round_waits_for_the_silent_only_until_its_deadline(site: Site) -> None:
    announced: list[str] = []

    async def announce(child: str) -> None:
        announced.append(child)

    site.open(plan(deadline_s=0.05))
    await asyncio.wait_for(site.intake.collect(announce), 5)
    assert set(announced) == {"a", "b"}
