"""Updates one after the other in one body, plain or packed."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from reuna.core.errors import DiskFull, Refused
from reuna.core.ports import Blob
from reuna.core.records import Contribution, Encoding, Grid, Member, Plan
from reuna.exchange.bodies import AHEAD, Behind, Check, Whole, integers, open_each, write_body
from reuna.learn.grid import LOT
from reuna.loop import train
from reuna.sim.storage import MemoryBlobs, MemoryDisk, MemorySpool
from reuna.wire import BLOCK

PARAMS = LOT + 1000
PLAN = Plan(
    "r-1", 1, 1, "train", "m" * 64, 9, PARAMS, ("a", "b", "c"), 1, 5.0, Grid(16, -10), 10, 3, 1, "b" * 64, 1,
    combine="singly", encoding=Encoding(),
)  # fmt: skip
MEMBERS = (Member("a", 1), Member("b", absent=train.UNHEARD), Member("c", 2))


def written(values: list[NDArray[np.int16]], packs: bool) -> tuple[Contribution, Blob]:
    """The body of a fog with two updates, and its manifest."""
    rows = [train.answer(PLAN, "p" * 64, member, "d" * 64, 2) for member in MEMBERS if member.weight]
    row = train.closing_row(PLAN, "p" * 64, "fog", PLAN.cohort, rows)
    draft = train.with_updates(row, PLAN, rows, "0" * 64)
    lots = [each[at : at + LOT] for each in values for at in range(0, PARAMS, LOT)]
    return write_body(draft, packs, lambda: iter(lots), MemorySpool().begin)


def drawn(scale: int) -> list[NDArray[np.int16]]:
    rng = np.random.default_rng(1)
    return [rng.integers(-scale, scale, PARAMS, np.int16, endpoint=True) for _ in range(2)]


@pytest.mark.parametrize(("scale", "packed"), [(3, True), (32767, False)])
def test_each_update_is_read_from_any_value_on_packed_where_that_is_smaller(scale: int, packed: bool) -> None:
    values = drawn(scale)
    row, body = written(values, packs=True)
    assert (row.packed, row.size) == (packed, body.size)
    assert np.concatenate(list(integers(row, body))).tolist() == np.concatenate(values).tolist()
    for between, each in zip(open_each(row, body), values, strict=True):
        for first, count in ((0, 10), (LOT - 7, 500), (5, 90), (LOT + 3, 997), (0, PARAMS)):
            assert between(first, count).tolist() == each[first : first + count].tolist()


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("place", [0, PARAMS - 1])
def test_a_value_outside_of_the_grid_is_found_in_any_update(packs: bool, place: int) -> None:
    values = drawn(3)
    row, body = written(values, packs)
    Check(PLAN, row).end(row, body)
    values[1][place] = -(2**15)
    with pytest.raises(Refused, match="outside the grid"):
        row, body = written(values, packs)
        Check(PLAN, row).end(row, body)


def test_a_packed_body_of_fewer_updates_than_members_is_refused() -> None:
    row, body = written(drawn(3), packs=True)
    more = msgspec.structs.replace(row, members=tuple(Member(name, 1) for name in "abc"))
    with pytest.raises(Refused, match="cut"):
        Check(PLAN, more).end(more, body)


# --- written in another thread ---------------------------------------------------------------------


def pieces(count: int) -> list[bytes]:
    return [bytes([number]) * (BLOCK + number) for number in range(count)]


def test_what_is_written_behind_is_the_same_blob() -> None:
    blobs = MemoryBlobs()
    behind, at_once = Behind(blobs.new(0)), Whole(blobs.new(0))
    for piece in pieces(3 * AHEAD):
        behind.write(piece)
        at_once.write(piece)
    assert behind.seal().digest == at_once.seal().digest
    assert behind.size == at_once.size


@pytest.mark.parametrize("count", [1, 3 * AHEAD])
def test_a_full_disk_is_told_of_behind_and_leaves_nothing(count: int) -> None:
    disk = MemoryDisk(BLOCK // 2)
    behind = Behind(MemoryBlobs(disk).new(0))
    with pytest.raises(DiskFull):
        for piece in pieces(count):
            behind.write(piece)
        behind.seal()
    behind.abandon()
    assert disk.used == 0


def test_what_is_given_up_behind_leaves_nothing() -> None:
    disk = MemoryDisk()
    behind = Behind(MemoryBlobs(disk).new(0))
    for piece in pieces(AHEAD):
        behind.write(piece)
    behind.abandon()
    assert disk.used == 0
