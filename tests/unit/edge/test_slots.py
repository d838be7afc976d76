"""Two slots on a disk: what is written is there whole or not at all, and says so."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import msgspec
import pytest

from reuna.adapters import files
from reuna.core.errors import DiskFull, ReleaseNotFound, Untrusted
from reuna.core.health import KEY, Health
from reuna.edge.slots import Slots, folder_name, projects
from reuna.loop.operate import Copy, State, Trial, Which
from reuna.wire import release as wire
from reuna.wire.build import sha256
from tests.releases import release

ONE, TWO = release(1), release(2)


@pytest.fixture
def slots(tmp_path: Path) -> Slots:
    made = Slots(tmp_path, "pumps")
    made.read()
    return made


def source(tmp_path: Path, data: bytes) -> Path:
    file = tmp_path / sha256(data)[:8]
    file.write_bytes(data)
    return file


def with_rules(text: str) -> bytes:
    parts = dict.fromkeys(wire.NEEDED, b"{}\n")
    parts[wire.LINEAGE] = msgspec.json.encode({"settings": {"entry": "detector.model", KEY: text}})
    return wire.encode(wire.About("pumps", 1, "r-1", "0" * 64), parts)


def test_what_is_put_into_a_slot_is_there_whole(slots: Slots, tmp_path: Path) -> None:
    assert slots.fill("b", source(tmp_path, ONE), sha256(ONE)).rules == Health()
    assert slots.whole() == {"b": sha256(ONE)}
    assert slots.path("b").read_bytes() == ONE


def test_the_rules_that_a_release_brings_come_with_it(slots: Slots, tmp_path: Path) -> None:
    data = with_rules('{"trial_s": 7.0}')
    assert slots.fill("a", source(tmp_path, data), sha256(data)).rules == Health(trial_s=7.0)
    data = with_rules("much")
    assert slots.fill("a", source(tmp_path, data), sha256(data)).rules == Health(), (
        "the usual ones are better than none"
    )


def test_another_file_than_the_one_that_was_signed_for_is_not_put_there(slots: Slots, tmp_path: Path) -> None:
    slots.fill("a", source(tmp_path, ONE), sha256(ONE))
    for data, digest in ((TWO, sha256(ONE)), (b"no release", sha256(b"no release")),
                         (release(1, "ovens"), sha256(release(1, "ovens")))):  # fmt: skip
        with pytest.raises(Untrusted):
            slots.fill("a", source(tmp_path, data), digest)
    with pytest.raises(ReleaseNotFound):
        slots.fill("a", tmp_path / "gone", sha256(ONE))
    assert slots.whole() == {"a": sha256(ONE)}, "and what was there stays"


@pytest.mark.parametrize("damage", [b"", ONE[:-1], ONE[:-600] + b"x" + ONE[-599:], ONE + b"\0"])
def test_a_damaged_file_is_no_release(slots: Slots, damage: bytes) -> None:
    slots.path("a").write_bytes(damage)
    assert slots.whole() == {}


def test_a_state_is_read_again_as_it_was_kept(slots: Slots, tmp_path: Path) -> None:
    state = State(
        Copy(Which(1, sha256(ONE), "r-1"), tested=True, confirmed=True), active="a", trial=Trial(3.5)
    )
    slots.keep(state)
    assert Slots(tmp_path, "pumps").read() == state
    assert projects(tmp_path) == ["pumps"]


def test_a_state_that_is_lost_is_made_anew_from_what_lies_in_the_slots(slots: Slots, tmp_path: Path) -> None:
    slots.fill("a", source(tmp_path, TWO), sha256(TWO))
    slots.fill("b", source(tmp_path, ONE), sha256(ONE))
    slots.keep(State())
    (slots.folder / "state").write_bytes(b"zeroes" * 20)
    state = slots.read()
    assert (state.active, state.phase) == ("b", "trial"), (
        "the older one is the likelier to have been confirmed"
    )
    assert state.a is not None
    assert not state.a.confirmed
    (slots.folder / "a").unlink()
    (slots.folder / "b").unlink()
    assert slots.read() == State()


def test_what_a_power_cut_left_half_written_goes(slots: Slots) -> None:
    half = slots.folder / ".a.1234.part"
    half.write_bytes(ONE[:100])
    slots.read()
    assert not half.exists()


def test_a_full_disk_leaves_state_and_slots_as_they_were(slots: Slots, tmp_path: Path) -> None:
    slots.fill("a", source(tmp_path, ONE), sha256(ONE))
    slots.keep(State(active="a"))
    with mock.patch.object(files, "write_all", side_effect=OSError(28, "full")):
        with pytest.raises(DiskFull):
            slots.fill("a", source(tmp_path, TWO), sha256(TWO))
        with pytest.raises(DiskFull):
            slots.keep(State())
    assert (slots.whole(), slots.read()) == ({"a": sha256(ONE)}, State(active="a"))
    assert {path.name for path in slots.folder.iterdir()} == {"a", "state"}


def test_bytes_are_forced_to_the_disk_before_their_name_and_their_name_before_anything_else(
    slots: Slots, tmp_path: Path
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def synced(fd: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "bytes")  # noqa: PTH112
        fsync(fd)

    def renamed(self: Path, target: Path) -> Path:
        done.append("name")
        return rename(self, target)

    with mock.patch.object(os, "fsync", synced), mock.patch.object(Path, "replace", renamed):
        slots.fill("a", source(tmp_path, ONE), sha256(ONE))
        slots.keep(State(active="a"))
    assert done == ["bytes", "name", "folder"] * 2


def test_projects_have_folders_that_people_know_and_nobody_shares() -> None:
    assert folder_name("Pumps, hall 2").startswith("Pumps-hall-2-")
    names = ["../..", "a/b", "a-b", "", "Ä", "x" * 200, "a b"]
    assert len({folder_name(name) for name in names}) == len(names)
    assert all("/" not in folder_name(name) and len(folder_name(name)) < 80 for name in names)


def test_folders_of_what_does_not_run_are_swept_away(slots: Slots) -> None:
    for digest in ("a" * 64, "b" * 64):
        (slots.work(digest) / "lent").mkdir(parents=True)
    beside = slots.work("a" * 64).with_name(f"{slots.work('a' * 64).name}-shown")
    beside.mkdir()
    slots.sweep({"a" * 64})
    assert slots.work("a" * 64).is_dir()
    assert beside.is_dir()
    assert not slots.work("b" * 64).exists()


def test_a_node_knows_whether_it_has_measured_the_model(tmp_path: Path) -> None:
    sites = [
        {"site": "north", "nodes": ["a", "b"], "federated": {"all": 0.9}, "by_node": {"a": {"all": 0.9}}},
        {"site": "south", "nodes": ["c"], "federated": {}, "absent": {"c": "not heard of"}},
        {"site": "west", "nodes": ["d"], "federated": {"all": 0.9}},
    ]
    parts = dict.fromkeys(wire.NEEDED, b"{}\n") | {wire.LINEAGE: msgspec.json.encode({"sites": sites})}
    data = wire.encode(wire.About("pumps", 1, "r-1", "0" * 64), parts)
    for node, measured in {"a": True, "b": False, "c": False, "d": True, "stranger": False}.items():
        slots = Slots(tmp_path / node, "pumps", node)
        slots.folder.mkdir(parents=True)
        assert slots.fill("a", source(tmp_path, data), sha256(data)).measured is measured, node
        there = slots.found("a")
        assert there is not None
        assert there.measured is measured
