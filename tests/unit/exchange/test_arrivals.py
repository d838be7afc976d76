"""What came down is counted once by kind, goes on after a restart, and costs no round."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from reuna.core.errors import Untrusted
from reuna.core.records import Grid, Plan
from reuna.exchange.arrivals import ARRIVALS, Arrivals, read, since
from reuna.wire import encode

PLAN = Plan(
    "r-1", 1, 1, "train", "a" * 64, 72, 10, ("e1",), 1, 30.0, Grid(16, -10), 100, 4, 7, "b" * 64, 5
)  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ARRIVALS


def opened(signed: bytes) -> bytes:
    return signed


def test_blobs_are_counted_by_what_the_plan_names_them(file: Path) -> None:
    arrivals, data = Arrivals(file), encode(PLAN)
    arrivals.plan(opened, data)
    for what, size in ((PLAN.model, 72), (PLAN.bundle, 5), (PLAN.model, 72), ("c" * 64, 3), ("metadata", 9)):
        arrivals.came(what, size)
    assert arrivals.counts == {
        "plan": (len(data), 1), "model": (144, 2), "bundle": (5, 1), "blob": (3, 1), "metadata": (9, 1),
    }  # fmt: skip


def test_the_step_to_a_model_counts_as_the_model(file: Path) -> None:
    arrivals = Arrivals(file)
    data = encode(msgspec.structs.replace(PLAN, step="d" * 64, step_size=30))
    arrivals.plan(opened, data)
    arrivals.came("d" * 64, 30)
    assert arrivals.counts["model"] == (30, 1)


def test_a_plan_that_is_refused_came_all_the_same(file: Path) -> None:
    def refuse(signed: bytes) -> bytes:
        raise Untrusted("signature", "not signed")

    arrivals = Arrivals(file)
    with pytest.raises(Untrusted):
        arrivals.plan(refuse, b"forged")
    assert arrivals.counts == {"plan": (6, 1)}


def test_a_new_process_goes_on_counting(file: Path) -> None:
    for size in (10, 5):
        arrivals = Arrivals(file)
        arrivals.came("metadata", size)
        arrivals.write()
    assert read(file) == {"metadata": (15, 2)}


@pytest.mark.parametrize("damage", [b"", b"[1, 2", b'{"plan": 3}', b"\xff\xfe"])
def test_a_damaged_file_begins_anew(file: Path, damage: bytes) -> None:
    file.write_bytes(damage)
    arrivals = Arrivals(file)
    arrivals.came("plan", 4)
    arrivals.write()
    assert read(file) == {"plan": (4, 1)}


def test_nothing_is_written_while_nothing_came(file: Path) -> None:
    arrivals = Arrivals(file)
    arrivals.came("plan", 4)
    arrivals.write()
    file.unlink()
    arrivals.write()
    assert not file.exists()


def test_a_disk_that_takes_nothing_stops_nothing(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path / "gone" / ARRIVALS)
    arrivals.came("plan", 4)
    arrivals.write()
    assert read(tmp_path / "gone" / ARRIVALS) == {}


def test_what_came_between_two_moments_is_the_difference() -> None:
    before, now = {"plan": (10, 1), "bundle": (5, 1)}, {"plan": (30, 3), "bundle": (5, 1), "model": (7, 1)}
    assert since(before, now) == {"plan": (20, 2), "model": (7, 1)}
    assert since({}, now) == now
    assert since({"plan": (99, 9)}, {"plan": (10, 1)}) == {"plan": (10, 1)}  # the file was begun anew
