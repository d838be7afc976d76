"""Plain bodies are judged as they come: what is off the grid is never committed, what is good is not read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reuna.adapters.files import FileBlob
from reuna.adapters.receiver import SpoolReceiver
from reuna.adapters.spool import DiskSpool
from reuna.core.errors import Refused
from reuna.core.records import Contribution, Grid, Member, Plan
from reuna.exchange.intake import Intake
from reuna.loop import train
from reuna.sim.storage import MemoryBlobs
from reuna.wire import BLOCK, digest_bytes, encode, message_digest

PARAMS = BLOCK + 5  #: of two bytes: two blocks and a piece
PLAN = Plan(
    "r-1", 1, 1, "train", "d" * 64, 1, PARAMS, ("a", "b"), 1, 5.0, Grid(16, -8), 10, 2, 1, "b" * 64, 1
)  # fmt: skip
LOWEST = -(2**15)  #: the one value that two bytes hold and the grid does not


@pytest.fixture
async def intake(tmp_path: Path) -> Intake:
    made = Intake("fog", MemoryBlobs(), DiskSpool(tmp_path))
    made.open({"a": encode(PLAN), "b": encode(PLAN)})
    return made


def body_with(value: int, place: int) -> bytes:
    values = np.arange(PARAMS).astype("<i2")
    values[values == LOWEST] = 0
    values[place] = value
    return values.tobytes()


def receiver(intake: Intake, body: bytes) -> SpoolReceiver:
    digest = digest_bytes(body)
    manifest = train.answer(PLAN, message_digest(encode(PLAN)), Member("a", 1, digest), digest, 2)
    found = intake.receive("a", manifest)
    assert isinstance(found, SpoolReceiver)
    return found


def sends(receiver: SpoolReceiver, body: bytes, end: int = 3 * BLOCK) -> None:
    for at in range(receiver.offset, min(end, len(body)), BLOCK):
        receiver.write(body[at : at + BLOCK])


def is_refused(intake: Intake, receiver: SpoolReceiver, manifest: Contribution) -> None:
    with pytest.raises(Refused) as refusal:
        receiver.commit()
    assert refusal.value.reason == "range"
    assert intake.refused == {"a": {"range": 1}}
    assert intake.rows() == intake.spool.rows("r-1", 1, 1) == []
    assert intake.spool.held(manifest) == 0, "nothing of it is kept"


@pytest.mark.parametrize("place", [0, BLOCK // 2, PARAMS - 1])
@pytest.mark.parametrize("cut", [0, BLOCK, 2 * BLOCK])
async def test_one_value_off_the_grid_in_any_block_is_refused_also_where_the_line_was_cut(
    intake: Intake, place: int, cut: int
) -> None:
    body = body_with(LOWEST, place)
    taking = receiver(intake, body)
    if cut:
        sends(taking, body, cut)
        taking.suspend()
        taking = receiver(intake, body)
        assert taking.offset == cut
    sends(taking, body)
    is_refused(intake, taking, taking._manifest)


@pytest.mark.parametrize("cut", [0, BLOCK])
async def test_a_good_body_is_read_back_only_where_it_came_in_several_tries(
    intake: Intake, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    read = FileBlob.read

    def noted(blob: FileBlob, offset: int, count: int) -> bytes:
        reads.append(count)
        return read(blob, offset, count)

    monkeypatch.setattr(FileBlob, "read", noted)
    body = body_with(LOWEST + 1, 7)
    taking = receiver(intake, body)
    if cut:
        sends(taking, body, cut)
        taking.suspend()
        taking = receiver(intake, body)
    sends(taking, body)
    taking.commit()
    assert [row.sender for row in intake.rows()] == ["a"]
    assert bool(reads) == bool(cut)
