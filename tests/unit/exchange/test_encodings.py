"""Encoded updates on their way: the same bytes after any end, what counted carries on, what is no body is refused."""

from __future__ import annotations

import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from reuna.core.errors import DiskFull, Refused
from reuna.core.line import Rates
from reuna.core.project import project_settings
from reuna.core.records import Contribution, Encoding, Grid, Member, Plan
from reuna.core.settings import Source
from reuna.core.tensors import pack
from reuna.exchange.bodies import Check, integers
from reuna.exchange.egress import Egress
from reuna.exchange.intake import Intake
from reuna.exchange.leftovers import RUNS, Leftovers
from reuna.exchange.meter import CountedFlows
from reuna.exchange.process import open_leftovers
from reuna.exchange.steps import make_step, take_step
from reuna.exchange.weigher import Weigher
from reuna.learn.lots import DEFLATED, written
from reuna.learn.rounding import fine, fine_bits
from reuna.learn.strategies import TAKES
from reuna.loop import train
from reuna.loop.plan import shared
from reuna.sim.bus import MemoryBroker
from reuna.sim.clock import InPlace, SimClock
from reuna.sim.fleet import unsealed
from reuna.sim.freight import MemoryFreight
from reuna.sim.storage import MemoryBlob, MemoryBlobs, MemoryIndex, MemorySpool
from reuna.trust.requests import vouched, without_roster
from reuna.wire import decode, digest_bytes, encode, message_digest

PARAMS = 3_000
BASE = pack({"w": np.zeros(PARAMS, np.float32)})
GRID = Grid(8, -6)
ALL = Encoding(packed=True, stochastic=True, feedback=True)


def plan(**changes: Any) -> bytes:
    values: dict[str, Any] = {
        "run": "r-1", "round": 1, "attempt": 1, "task": "train", "model": digest_bytes(BASE),
        "model_size": len(BASE), "params": PARAMS, "cohort": ("a", "b"), "quorum": 1, "deadline_s": 5.0,
        "grid": GRID, "max_weight": 10, "capacity": 2, "seed": 1, "bundle": "b" * 64, "bundle_size": 1,
        "inline": BASE, "encoding": ALL,
    }  # fmt: skip
    return encode(Plan(**{**values, **changes}))


def update(seed: int, size: float = 0.05) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, size, PARAMS).astype(np.float32)


class Node:
    """Node ``a``, what its disk keeps, and the parent above."""

    def __init__(self) -> None:
        self.cache, self.index = MemoryBlobs(), MemoryIndex()
        self.left, self.outbox = MemoryBlobs(), MemorySpool()
        self.intake = Intake("fog", MemoryBlobs(), MemorySpool())
        self.cache.put(BASE)

    def egress(self, weigher: Weigher | None = None) -> Egress:
        freight = MemoryFreight(lambda: self.intake, "a", self.cache)
        return Egress(
            "a", "fog", MemoryBroker().connect("a"), freight, self.cache, self.outbox, CountedFlows("a"), SimClock(),
            InPlace(), unsealed, without_roster, vouched, Leftovers(self.left, self.index),
            weigher=weigher,
        )  # fmt: skip

    async def gives(self, data: bytes, values: np.ndarray, weigher: Weigher | None = None) -> Contribution:
        """Its answer to a plan, as the parent has it."""
        self.intake.open({"a": data, "b": data})
        trained = MemoryBlob(pack({"w": values}), "")
        assert await self.egress(weigher).submit(data, trained, 3, Member("a")) is not None
        (row,) = self.intake.rows()
        return row

    def sent(self, row: Contribution) -> np.ndarray:
        """The integers of an answer."""
        return np.concatenate([*integers(row, self.intake.spool.body(row))]).astype(np.int64)

    def kept(self, round: int) -> np.ndarray:
        """Fine steps that a round of the run left."""
        left = Leftovers(self.left, self.index).after("r-1", round, PARAMS)
        assert left is not None
        return np.frombuffer(left.values.read(0, left.values.size), "<i4").astype(np.int64)


async def test_what_was_sent_and_what_is_left_are_the_updates_on_the_fine_grid() -> None:
    node, sent, carried = Node(), np.zeros(PARAMS, np.int64), {}
    for number in (1, 2, 3):
        row = await node.gives(plan(round=number, carried=carried), update(number))
        sent, carried = sent + node.sent(row), {"a": number}
    wanted = sum(fine(update(number), GRID) for number in (1, 2, 3))
    assert ((sent << fine_bits(GRID)) + node.kept(3) == wanted).all()


async def test_a_node_killed_before_its_answer_was_kept_makes_the_same_bytes_again() -> None:
    node, other = Node(), Node()
    for each in (node, other):
        await each.gives(plan(), update(1))
    second = plan(round=2, carried={"a": 1})
    expected = await other.gives(second, update(2))

    class Dies(Exception):
        pass

    def dies(*_: object) -> None:
        raise Dies

    kept, node.outbox.commit = node.outbox.commit, dies  # type: ignore[assignment, method-assign]
    for _ in range(2):  # what it left is kept already
        with pytest.raises(Dies):
            await node.gives(second, update(2))
    node.outbox.commit = kept  # type: ignore[method-assign]
    assert await node.gives(second, update(2)) == expected
    assert (node.kept(2) == other.kept(2)).all()


async def test_another_attempt_of_a_round_goes_on_from_the_round_that_counted() -> None:
    node, other = Node(), Node()
    for each in (node, other):
        await each.gives(plan(), update(1))
    await node.gives(plan(round=2, carried={"a": 1}), update(2))  # too few took part: asked again
    again = plan(round=2, attempt=2, carried={"a": 1})
    assert (await node.gives(again, update(2))).digest == (await other.gives(again, update(2))).digest


async def test_an_update_that_did_not_count_changes_nothing_later() -> None:
    """Its round closed without it: the plan says which was the last that counted."""
    node, other = Node(), Node()
    for each in (node, other):
        await each.gives(plan(), update(1))
    await node.gives(plan(round=2, carried={"a": 1}), update(2))
    third = plan(round=3, carried={"a": 1})
    assert await node.gives(third, update(3)) == await other.gives(third, update(3))


async def test_a_node_that_lost_what_was_left_goes_on_without_it(caplog: pytest.LogCaptureFixture) -> None:
    node, new = Node(), Node()
    await node.gives(plan(), update(1))
    node.left.prune(())
    row = await node.gives(plan(round=2, carried={"a": 1}), update(2))
    assert row.digest == (await new.gives(plan(round=2), update(2))).digest
    assert "not here any more" in caplog.text


async def test_what_is_left_of_a_run_goes_when_it_trains_no_more_and_of_the_oldest_of_many() -> None:
    node = Node()
    for number in range(RUNS + 2):
        await node.gives(plan(run=f"r-{number}"), update(number))
    assert list(node.index.read()) == [f"r-{number}" for number in range(2, RUNS + 2)]
    Leftovers(node.left, node.index).end("r-3")
    assert "r-3" not in node.index.read()
    held = {digest for rounds in node.index.read().values() for digest, _ in rounds.values()}
    assert {digest for digest in held if node.left.get(digest)} == held
    assert len(held) == RUNS - 1


def test_what_is_left_is_found_again_by_the_next_process(tmp_path: Path) -> None:
    first = open_leftovers(tmp_path)
    writer = first.new(2)
    writer.write(bytes(8))
    asked = decode(Plan, plan())
    first.keep(asked, writer.seal(), 0)
    left = open_leftovers(tmp_path).after("r-1", 1, 2)
    assert left is not None
    assert (left.values.read(0, 8), left.exponent) == (bytes(8), GRID.exponent)
    assert open_leftovers(tmp_path).after("r-1", 1, 3) is None, "of another model"


async def test_a_full_disk_for_what_is_left_sends_nothing_and_is_tried_again() -> None:
    node, other = Node(), Node()
    node.left.disk.fill()
    with pytest.raises(DiskFull):
        await node.gives(plan(), update(1))
    assert not node.intake.rows()
    node.left.disk.capacity = None
    assert await node.gives(plan(), update(1)) == await other.gives(plan(), update(1))


async def test_only_the_largest_are_sent_and_all_of_it_in_the_end() -> None:
    node, sparse = Node(), msgspec.structs.replace(ALL, keep=0.02)
    row = await node.gives(plan(encoding=sparse), update(1))
    sent = node.sent(row)
    assert 0 < np.count_nonzero(sent) <= 0.02 * PARAMS
    assert np.abs(update(1))[sent != 0].min() >= np.sort(np.abs(update(1)))[-60]
    assert row.size < 0.06 * PARAMS
    assert ((sent << fine_bits(GRID)) + node.kept(1) == fine(update(1), GRID)).all()


async def test_packing_alone_changes_no_integer() -> None:
    node, other = Node(), Node()
    packed = await node.gives(plan(encoding=Encoding()), update(1))
    plain = await other.gives(plan(encoding=None), update(1))
    assert (node.sent(packed) == other.sent(plain)).all()
    assert (packed.packed, plain.packed) == (True, False)
    assert packed.size < plain.size


async def test_what_packing_would_make_no_smaller_is_sent_plain() -> None:
    values = (np.random.default_rng(1).integers(-127, 128, PARAMS) * GRID.step).astype(np.float32)
    node = Node()
    row = await node.gives(plan(encoding=Encoding()), values)
    assert (row.packed, row.size, row.width) == (False, PARAMS, 1)
    assert (node.sent(row) == values / GRID.step).all()


# --- what a parent takes -----------------------------------------------------------------------


def manifest(body: bytes, **changes: Any) -> Contribution:
    asked = decode(Plan, plan())
    made = train.answer(asked, message_digest(plan()), Member("a", 3), "0" * 64, 1)
    return msgspec.structs.replace(train.in_lots(made, digest_bytes(body), len(body)), **changes)


def refused(row: Contribution, data: bytes) -> str:
    with pytest.raises(Refused) as refusal:
        train.admit(decode(Plan, data), message_digest(data), row, "a", {"a"}, closed=False)
    return refusal.value.reason


def test_a_packed_body_is_refused_where_none_is_asked_and_where_it_is_no_smaller() -> None:
    plain = plan(encoding=None)
    row = msgspec.structs.replace(manifest(b"x"), plan=message_digest(plain))
    assert refused(row, plain) == "shape"
    assert refused(manifest(bytes(PARAMS)), plan()) == "oversized"
    assert refused(manifest(b"", size=0), plan()) == "oversized"
    row = manifest(b"x" * 99)
    train.admit(decode(Plan, plan()), message_digest(plan()), row, "a", {"a"}, closed=False)
    report = train.answer(decode(Plan, plan()), message_digest(plan()), Member("a"))
    assert refused(msgspec.structs.replace(report, packed=True), plan()) == "shape"


def deflated(size: int) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = stream.compress(bytes(size)) + stream.flush()
    return (len(data) | 4 << 24 | DEFLATED).to_bytes(4, "little") + data


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (deflated(1 << 20), "malformed"),
        (b"\x00" * 7, "malformed"),
        (b"".join(written(np.full(PARAMS, 1)))[:-1], "malformed"),
        (b"".join(written(np.full(PARAMS, -128))), "range"),
        (b"".join(written(np.full(PARAMS, 128))), "range"),
    ],
)
def test_a_packed_body_that_is_none_or_off_the_grid_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(Refused) as refusal:
        Check(decode(Plan, plan()), manifest(body)).end(manifest(body), MemoryBlob(body, ""))
    assert refusal.value.reason == reason


def test_a_four_bit_body_may_hold_seven_and_no_eight() -> None:
    asked = decode(Plan, plan(grid=Grid(4, 0)))
    for value in (7, -7, 8, -8):
        body = b"".join(written(np.full(PARAMS, value)))
        taken = nullcontext() if abs(value) < 8 else pytest.raises(Refused, match="outside the grid")
        with taken:
            Check(asked, manifest(body)).end(manifest(body), MemoryBlob(body, ""))


# --- the way down ------------------------------------------------------------------------------


def models(moved: float, params: int = 70_000) -> tuple[MemoryBlob, MemoryBlob]:
    rng = np.random.default_rng(5)
    old = rng.normal(size=params).astype(np.float32)
    new = (old + rng.normal(0, moved, params)).astype(np.float32)
    new[:3] = np.float32(np.nan), np.float32(-np.inf), np.float32(-0.0)
    packed = [pack({"w": values}) for values in (old, new)]
    return MemoryBlob(packed[0], digest_bytes(packed[0])), MemoryBlob(packed[1], digest_bytes(packed[1]))


@pytest.mark.parametrize("moved", [0.0, 1e-6, 1e-3])
def test_a_step_leads_to_the_same_bits_in_fewer_bytes(moved: float) -> None:
    (old, new), blobs = models(moved), MemoryBlobs()
    step = make_step(old, new, blobs)
    assert step is not None
    assert step.size < 0.75 * new.size
    made = take_step(old, step, new.digest, blobs)
    assert made is not None
    assert made.read(0, made.size) == new.read(0, new.size)


def test_no_step_is_made_that_saves_little_or_to_other_tensors() -> None:
    old, new = models(1e3)
    assert make_step(old, new, MemoryBlobs()) is None
    assert make_step(old, MemoryBlob(pack({"v": np.zeros(70_000, np.float32)}), ""), MemoryBlobs()) is None


def test_a_step_that_leads_elsewhere_or_nowhere_leaves_nothing() -> None:
    (old, new), blobs = models(1e-3), MemoryBlobs()
    step = make_step(old, new, MemoryBlobs())
    assert step is not None
    assert take_step(new, step, new.digest, blobs) is None, "of another model"
    assert take_step(old, MemoryBlob(step.read(0, step.size - 1), ""), new.digest, blobs) is None
    assert blobs.disk.used == 0


class Down:
    """A node that has the model before, and a parent that offers step and model."""

    def __init__(self, has_base: bool = True, step: bytes | None = None, **changes: Any) -> None:
        self.old, self.new = models(1e-3)
        made = make_step(self.old, self.new, MemoryBlobs())
        assert made is not None
        self.node, self.step = Node(), made
        told = made.read(0, made.size) if step is None else step
        above = self.node.intake.blobs
        self.offered = above.put(told) if told else None
        above.put(self.new.read(0, self.new.size))
        if has_base:
            self.node.cache.put(self.old.read(0, self.old.size))
        self.plan = plan(
            model=self.new.digest, model_size=self.new.size, params=70_000, inline=None, base=self.old.digest,
            step=self.offered.digest if self.offered else "d" * 64, step_size=max(1, len(told)), **changes,
        )  # fmt: skip

    async def fetched(self, weigher: Weigher | None = None) -> list[str]:
        """What came down; the model is there whole, whatever came."""
        self.node.intake.open({"a": self.plan, "b": self.plan})
        came: list[str] = []
        egress = self.node.egress(weigher)
        real = egress._store.fetch

        async def fetch(digest: str, size: int) -> Any:
            came.append({self.new.digest: "model"}.get(digest, "step"))
            return await real(digest, size)

        egress._store.fetch = fetch  # type: ignore[method-assign]
        egress._heard = decode(Plan, self.plan)
        blob = await egress.fetch(self.new.digest, self.new.size)
        assert blob.read(0, blob.size) == self.new.read(0, self.new.size)
        return came


async def test_a_node_that_has_the_model_before_fetches_the_step_alone() -> None:
    assert await Down().fetched() == ["step"]


async def test_a_node_that_has_not_fetches_the_model() -> None:
    assert await Down(has_base=False).fetched() == ["model"]


@pytest.mark.parametrize("wrong", [b"", b"x" * 100, b"".join(written(np.ones(70_000, np.int64)))])
async def test_a_step_that_is_not_to_be_had_or_leads_elsewhere_costs_the_whole_model(wrong: bytes) -> None:
    assert await Down(step=wrong).fetched() == ["step", "model"]


# --- by the speed of the line --------------------------------------------------------------------


async def test_a_node_on_a_fast_line_sends_the_same_integers_plain_and_fetches_models_whole() -> None:
    node, other, fast = Node(), Node(), Weigher(lambda: Rates(1e12, 1e12))
    by_line = Encoding(packed=True, feedback=True, by_line=True)
    for number in (1, 2):
        asked = plan(round=number, encoding=by_line, carried={"a": number - 1} if number > 1 else {})
        row, packed = await node.gives(asked, update(1), fast), await other.gives(asked, update(1))
        assert (node.sent(row) == other.sent(packed)).all(), "by whichever way"
        assert packed.packed
    assert not row.packed
    assert row.size == PARAMS * row.width
    down = Down(encoding=by_line)
    assert await down.fetched(fast) == ["step"], "what a step costs is not known yet"
    assert await Down(encoding=by_line).fetched(fast) == ["model"]


# --- what a project says -----------------------------------------------------------------------


def told(**changes: Any) -> tuple[Grid, Encoding | None]:
    values = {"project": {"name": "p"}, "round": changes}
    found = project_settings([Source("reuna.toml", values)], TAKES)
    return found.grid, found.encoding


def test_a_project_that_says_nothing_packs_keeps_the_rest_and_follows() -> None:
    assert told() == (Grid(16, -16), Encoding(packed=True, feedback=True, follow=True, by_line=True))


def test_a_project_says_each_part_by_itself() -> None:
    assert told(grid_exponent=-9, grid_bits=8) == (Grid(8, -9), Encoding(feedback=True, by_line=True))
    assert told(rounding="stochastic", keep=0.5)[1] == Encoding(True, True, True, 0.5, True, True)
    assert told(packed="always")[1] == Encoding(packed=True, feedback=True, follow=True)
    assert told(packed="never", feedback=False, grid_exponent=-24, grid_bits=32) == (Grid(32, -24), None)


def test_what_every_round_asks_alike_has_the_grid_and_not_how_the_model_travels() -> None:
    first = decode(Plan, plan(inline=None))
    same = msgspec.structs.replace(
        first, base="b" * 64, step="c" * 64, step_size=9, carried={"a": 1}, attempt=2
    )
    assert shared(first) == shared(same)
    assert shared(first) != shared(msgspec.structs.replace(first, grid=Grid(8, -5)))
    assert shared(first) != shared(msgspec.structs.replace(first, encoding=None))


async def test_of_a_packed_update_nobody_knows_before_how_few_bytes_it_takes() -> None:
    """A site with few bytes left today is asked when they are counted."""
    egress, sizes = Node().egress(), list[int]()
    egress._flows.moment = lambda size, *_: sizes.append(size)  # type: ignore[method-assign,assignment]
    for data in (plan(encoding=None), plan()):
        worth, _ = await egress._may_answer(decode(Plan, data), message_digest(data), "")
        assert worth
    assert sizes == [PARAMS, 0]
