"""The `Blobs` port on a folder, in a bucket and in memory: one contract; then what only a folder promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reuna.adapters.files import FileBlob, FileBlobs, replace_file
from reuna.adapters.object_store import StoredBlobs, open_bucket
from reuna.core.errors import Corrupted, DiskFull
from reuna.core.ports import Blobs
from reuna.sim.storage import MemoryBlobs, MemoryDisk
from reuna.wire import BLOCK, digest_bytes
from tests.effects import watched


@pytest.fixture(params=["memory", "files", pytest.param("bucket", marks=pytest.mark.servers)])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "bucket":
        request.getfixturevalue("s3")
        return StoredBlobs(tmp_path / "blobs", open_bucket("s3://models/line"))
    return MemoryBlobs() if request.param == "memory" else FileBlobs(tmp_path / "blobs")


@pytest.mark.parametrize("size", [0, 1, BLOCK, 3 * BLOCK + 1])
def test_what_was_put_is_there_under_its_digest(blobs: Blobs, size: int) -> None:
    data = os.urandom(size)
    blob = blobs.put(data)
    assert blob.digest == digest_bytes(data)
    held = blobs.get(blob.digest)
    assert held is not None
    assert (held.size, held.read(0, size)) == (size, data)


def test_reading_past_the_end_gives_what_there_is(blobs: Blobs) -> None:
    blob = blobs.put(b"0123456789")
    assert blob.read(8, 100) == b"89"
    assert blob.read(10, 100) == b""


def test_putting_twice_is_the_same_as_once(blobs: Blobs) -> None:
    assert blobs.put(b"same").digest == blobs.put(b"same").digest
    blobs.drop(digest_bytes(b"same"))
    assert blobs.get(digest_bytes(b"same")) is None


def test_nobody_sees_a_blob_before_its_seal(blobs: Blobs) -> None:
    writer = blobs.new(3)
    writer.write(b"abc")
    assert blobs.get(digest_bytes(b"abc")) is None
    assert writer.seal(durable=False).digest == digest_bytes(b"abc")
    assert blobs.get(digest_bytes(b"abc")) is not None


def test_a_blob_is_made_durable_after_it_was_sealed(blobs: Blobs) -> None:
    data = os.urandom(3 * BLOCK)
    writer = blobs.new(len(data))
    writer.write(data)
    digest = writer.seal(durable=False).digest
    blobs.force(digest)
    if isinstance(blobs, MemoryBlobs):
        blobs.crash()
    found = blobs.get(digest)
    assert found is not None
    assert found.read(0, found.size) == data


def test_a_blob_that_is_dropped_to_be_written_over_is_gone(blobs: Blobs) -> None:
    digest = blobs.put(os.urandom(3 * BLOCK)).digest
    blobs.drop(digest, reuse=True)
    assert blobs.get(digest) is None
    data = os.urandom(2 * BLOCK)
    assert blobs.put(data).read(0, len(data)) == data


def test_an_abandoned_blob_leaves_nothing(blobs: Blobs) -> None:
    writer = blobs.new(3)
    writer.write(b"abc")
    writer.abandon()
    assert blobs.get(digest_bytes(b"abc")) is None


def test_dropping_what_is_not_there_does_nothing(blobs: Blobs) -> None:
    blobs.drop("0" * 64)


@pytest.mark.parametrize("name", ["", "..", "../secret", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_a_text_that_is_no_digest_names_nothing(blobs: Blobs, name: str) -> None:
    assert blobs.get(name) is None
    blobs.drop(name)


def test_a_full_disk_in_memory_is_said_and_leaves_no_part() -> None:
    blobs = MemoryBlobs(MemoryDisk(capacity=2 * BLOCK))
    writer = blobs.new(3 * BLOCK)
    writer.write(bytes(BLOCK))
    writer.write(bytes(BLOCK))
    with pytest.raises(DiskFull):
        writer.write(bytes(BLOCK))
    assert blobs.disk.used == 0


# --- in files only ---------------------------------------------------------------------------


def test_a_full_disk_is_said_and_leaves_no_part(tmp_path: Path) -> None:
    code = f"""
import os, resource, pathlib
from reuna.adapters.files import FileBlobs
from reuna.core.errors import DiskFull
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
blobs = FileBlobs(pathlib.Path({str(tmp_path)!r}))
try:
    blobs.put(bytes(200_000))
except DiskFull as error:
    assert {str(tmp_path)!r} in error.message
    raise SystemExit(0 if os.listdir({str(tmp_path)!r}) == [] else 2)
raise SystemExit(1)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_damaged_on_the_disk_is_not_given_out(tmp_path: Path) -> None:
    digest = FileBlobs(tmp_path).put(b"x" * 1000).digest
    (tmp_path / digest).write_bytes(b"y" * 1000)
    assert FileBlobs(tmp_path).get(digest) is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_cut_short_while_in_use_is_corrupted(tmp_path: Path) -> None:
    blob = FileBlobs(tmp_path).put(b"x" * 1000)
    os.truncate(blob.path, 10)
    with pytest.raises(Corrupted):
        blob.read(0, 1000)
    blob.path.unlink()
    with pytest.raises(Corrupted):
        FileBlob(blob.path, blob.digest, 1000).read(0, 1)


def test_parts_of_dead_writers_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "0123.part").write_bytes(b"left by a crash")
    living = FileBlobs(tmp_path).new(3)
    living.write(b"abc")
    FileBlobs(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert living.seal().read(0, 3) == b"abc"


# --- in memory only --------------------------------------------------------------------------


def test_a_power_cut_takes_what_was_not_forced_to_the_disk() -> None:
    blobs = MemoryBlobs()
    kept = blobs.put(b"durable")
    writer = blobs.new(4)
    writer.write(b"lost")
    lost = writer.seal(durable=False)
    blobs.crash(power=False)
    assert blobs.get(lost.digest) is not None
    blobs.crash()
    assert blobs.get(lost.digest) is None
    assert blobs.get(kept.digest) is not None
    again = blobs.new(7)
    again.write(b"durable")
    again.seal(durable=False)
    blobs.crash()
    assert blobs.get(kept.digest) is not None, "made once more it is as durable as it was"


def test_a_blob_is_forced_then_named_then_its_name_is_forced(tmp_path: Path) -> None:
    blobs, told = FileBlobs(tmp_path / "blobs"), list[str]()
    with watched(told.append):
        blobs.put(b"abc")
    assert told == ["write NEW.part", "fsync NEW.part", "replace NEW.part", "fsync blobs"]


def test_a_blob_that_was_sealed_before_is_forced_and_then_its_name(tmp_path: Path) -> None:
    blobs, told = FileBlobs(tmp_path / "blobs"), list[str]()
    with watched(told.append):
        writer = blobs.new(3)
        writer.write(b"abc")
        blobs.force(writer.seal(durable=False).digest)
    assert told == ["write NEW.part", "replace NEW.part", "fsync DIGEST", "fsync blobs"]


def test_a_file_is_replaced_by_one_that_was_forced(tmp_path: Path) -> None:
    told = list[str]()
    with watched(told.append):
        replace_file(tmp_path / "policy.toml", b"abc")
    beside = ".policy.toml.NEW.part"
    assert told == [f"write {beside}", f"fsync {beside}", f"replace {beside}", f"fsync {tmp_path.name}"]
