"""Any deliveries, cut, doubled, out of order, over lives of the parent, give the same bits in bounded memory."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reuna.adapters.spool import DiskSpool
from reuna.core.errors import Refused
from reuna.core.ports import Spool
from reuna.core.records import Contribution, Grid, Member, Plan, Receipt
from reuna.exchange.intake import Intake
from reuna.loop import train
from reuna.sim.clock import run_virtual
from reuna.sim.storage import MemoryBlobs, MemorySpool
from reuna.wire import BLOCK, digest_bytes, encode, message_digest

NODES = ("a", "b", "c", "d")
PARAMS = 40_000  # two blocks and a half of 4-byte integers
DELIVERY = st.tuples(
    st.sampled_from(NODES), st.sampled_from(["whole", "whole", "cut", "other bytes", "restart"])
)
Delivery = tuple[str, str]


def plan(nodes: Sequence[str], params: int = PARAMS) -> Plan:
    return Plan(
        run="r-1", round=1, attempt=1, task="train", model="m" * 64, model_size=1, params=params,
        cohort=tuple(nodes), quorum=1, deadline_s=5.0, grid=Grid(32, -24), max_weight=100,
        capacity=len(nodes), seed=1, bundle="b" * 64, bundle_size=1,
    )  # fmt: skip


def values_of(node: str, params: int = PARAMS, kind: str = "<i4") -> np.ndarray:
    top = 2 ** (8 * np.dtype(kind).itemsize - 1) - 1
    return np.random.default_rng(list(node.encode())).integers(-top, top, params).astype(kind)


def weight_of(node: str) -> int:
    return 1 + sum(node.encode()) % 50


def update(asked: Plan, node: str, values: np.ndarray) -> Contribution:
    digest, weight = digest_bytes(values.tobytes()), weight_of(node)
    member = Member(node, weight, digest)
    return train.answer(asked, message_digest(encode(asked)), member, digest, values.itemsize)


class Conflict(Exception):
    """Other bytes came for what was accepted before, and were refused."""


class Parent:
    """An intake over a spool that outlives it."""

    def __init__(self, open_spool: Callable[[], Spool], asked: Plan) -> None:
        self._open_spool = open_spool
        self._asked = asked
        self.start()

    def start(self) -> None:
        self.intake = Intake("fog", MemoryBlobs(), self._open_spool())
        self.intake.open(dict.fromkeys(self._asked.cohort, encode(self._asked)))

    def take(self, node: str, what: str = "whole") -> None:
        """One delivery."""
        if what == "restart":
            self.start()
            return
        values = values_of(node) + (what == "other bytes")
        manifest, body = update(self._asked, node, values), values.tobytes()
        try:
            found = self.intake.receive(node, manifest)
        except Refused as refusal:
            raise (Conflict if (what, refusal.reason) == ("other bytes", "conflict") else refusal) from None
        if isinstance(found, Receipt):
            assert found.digest == manifest.digest, "answered with the receipt of these very bytes"
            return
        end = len(body) if what == "whole" else BLOCK
        for start in range(found.offset, end, BLOCK):
            found.write(body[start : min(start + BLOCK, end)])
        if what == "whole":
            found.commit()
        else:
            found.suspend()

    def sum(self) -> np.ndarray:
        rows = self.intake.freeze(self._asked.key)
        assert [row.sender for row in rows] == list(self._asked.cohort), "each is in, and once"
        return np.concatenate([block.copy() for block in self.intake.sum(rows, self._asked.params)])


EXPECTED = np.sum([values_of(node).astype(np.int64) * weight_of(node) for node in NODES], axis=0).tobytes()


def arrives(open_spool: Callable[[], Spool], deliveries: list[Delivery]) -> None:
    async def work() -> None:
        parent = Parent(open_spool, plan(NODES))
        for node, what in deliveries:
            with suppress(Conflict):
                parent.take(node, what)
        for node in NODES:  # a node sends until it is acknowledged
            parent.take(node)
        assert parent.sum().tobytes() == EXPECTED

    run_virtual(work())


@given(st.lists(DELIVERY, max_size=20))
def test_any_deliveries_give_the_same_bits(deliveries: list[Delivery]) -> None:
    spool = MemorySpool()

    def again() -> Spool:
        spool.crash(power=False)
        return spool

    arrives(again, deliveries)


@settings(max_examples=25)
@given(st.lists(DELIVERY, max_size=12))
def test_any_deliveries_give_the_same_bits_on_a_disk(deliveries: list[Delivery]) -> None:
    opened: list[DiskSpool] = []

    with tempfile.TemporaryDirectory() as folder:

        def again() -> Spool:
            for spool in opened:
                spool.close()
            opened[:] = [DiskSpool(Path(folder))]
            return opened[0]

        arrives(again, deliveries)
        opened[0].close()


def peak_of(count: int) -> int:
    """Largest memory that the fold over ``count`` updates takes, bytes."""
    nodes, params = [f"edge-{number:02}" for number in range(count)], 400_000

    async def work() -> int:
        spool, asked = MemorySpool(), plan(nodes, params)
        for node in nodes:
            values = values_of(node, params, "i1")
            manifest = update(asked, node, values)
            writer = spool.begin(manifest)
            writer.write(values.tobytes())
            spool.commit(manifest, writer.seal())
        intake = Intake("fog", MemoryBlobs(), spool)
        intake.open(dict.fromkeys(nodes, encode(asked)))
        rows = intake.freeze(asked.key)
        tracemalloc.start()
        try:
            for _ in intake.sum(rows, params):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return run_virtual(work())


def test_the_memory_of_a_sum_does_not_grow_with_the_number_of_nodes() -> None:
    few, many = peak_of(4), peak_of(64)
    assert few < 6_000_000, "two blocks of the sum and one of a part"
    assert many == pytest.approx(few, rel=0.05)
