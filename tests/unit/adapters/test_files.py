"""Blobs in a folder that another process has filled."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from reuna.adapters.files import HALVES, FileBlobs, opened
from reuna.core.errors import DiskFull
from reuna.wire import BLOCK, digest_bytes


def test_hashes_of_a_blob_that_another_process_checked_are_believed_only_when_they_are_its_own(
    tmp_path: Path,
) -> None:
    blob = FileBlobs(tmp_path).put(b"abc")
    (tmp_path / blob.digest).write_bytes(b"abd")
    told = FileBlobs(tmp_path)
    told.know(blob.digest, blob.hashes)
    found = told.get(blob.digest)
    assert found is not None
    assert found.hashes == blob.hashes, "not read again"
    lied = FileBlobs(tmp_path)
    lied.know(blob.digest, b"x" * 32)
    assert lied.get(blob.digest) is None, "read, and found to be damaged"


def test_a_prune_takes_halves_of_other_blobs_and_leaves_one_that_is_being_written(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    old, wanted, writing = ("a" * 64, "b" * 64, "c" * 64)
    for digest in (old, wanted):
        half = blobs.half(digest, 10)
        half.note(b"12345")
        half.suspend()
    open_one = blobs.half(writing, 10)
    blobs.prune([wanted])
    assert {path.name for path in tmp_path.iterdir()} == {f"{wanted}.half", f"{writing}.half"}
    assert list(blobs.half(wanted, 10).found()) == [b"12345"]
    open_one.abandon()


def test_a_process_that_begins_keeps_the_newest_halves_and_no_more(tmp_path: Path) -> None:
    for number in range(HALVES + 2):
        path = tmp_path / f"{number:064x}.half"
        path.write_bytes(b"x")
        os.utime(path, (number, number))
    FileBlobs(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{number:064x}.half" for number in range(2, HALVES + 2)
    ]


def test_two_who_fetch_the_same_blob_do_not_write_into_one_file(tmp_path: Path) -> None:
    blobs, data = FileBlobs(tmp_path), b"x" * 10
    first, second = blobs.half(digest_bytes(data), 10), blobs.half(digest_bytes(data), 10)
    for each in (first, second):
        each.write(data)
    assert first.seal().read(0, 10) == second.seal().read(0, 10) == data
    assert [path.name for path in tmp_path.iterdir()] == [digest_bytes(data)]


# --- files that are written over -------------------------------------------------------------------


def large(what: bytes, blocks: int = 3) -> bytes:
    return what * (blocks * BLOCK)


def inode(blobs: FileBlobs, digest: str) -> int:
    found = blobs.get(digest)
    assert found is not None
    return found.path.stat().st_ino


def test_a_blob_to_come_is_written_over_one_that_was_dropped_whatever_its_length(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    for first, second in ((5, 3), (3, 5)):
        old = inode(blobs, blobs.put(large(b"a", first)).digest)
        blobs.prune((), reuse=True)
        data = large(b"b", second) + b"c"
        made = blobs.put(data)
        assert made.path.stat().st_ino == old
        assert made.path.read_bytes() == data
        assert FileBlobs(tmp_path).get(digest_bytes(data)) is not None
        blobs.prune(())


def test_what_is_dropped_for_good_is_gone_and_so_is_what_was_kept_to_be_written_over(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    blobs.put(large(b"a"))
    blobs.prune((), reuse=True)
    blobs.put(large(b"b", 1))
    assert [path for path in tmp_path.rglob("*") if path.stat().st_size > BLOCK]
    blobs.prune(())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_one_blob_is_dropped_to_be_written_over_and_the_others_stay(tmp_path: Path) -> None:
    blobs, other = FileBlobs(tmp_path), large(b"o")
    blobs.put(other)
    old = inode(blobs, blobs.put(large(b"a")).digest)
    blobs.drop(digest_bytes(large(b"a")), reuse=True)
    assert blobs.get(digest_bytes(large(b"a"))) is None
    assert blobs.put(large(b"b")).path.stat().st_ino == old
    assert inode(blobs, digest_bytes(other)) != old
    blobs.drop(digest_bytes(large(b"b")), reuse=True)
    blobs.drop(digest_bytes(other))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_of_several_files_that_one_is_written_over_whose_length_is_the_nearest(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    old = {blocks: inode(blobs, blobs.put(large(b"a", blocks)).digest) for blocks in (8, 2)}
    blobs.prune((), reuse=True)
    assert blobs.put(large(b"b", 7)).path.stat().st_ino == old[8]
    assert blobs.put(large(b"b", 3)).path.stat().st_ino == old[2]


def test_a_blob_that_is_there_durably_stays_when_it_is_made_once_more(tmp_path: Path) -> None:
    blobs, data = FileBlobs(tmp_path), large(b"a")
    old = inode(blobs, blobs.put(data).digest)
    again = blobs.new(len(data))
    again.write(data)
    assert again.seal(durable=False).read(0, len(data)) == data
    assert inode(blobs, digest_bytes(data)) == old
    assert [path.name for path in tmp_path.iterdir()] == [digest_bytes(data)]


def test_a_blob_that_cannot_be_forced_to_the_disk_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = FileBlobs(tmp_path)
    writer = blobs.new(3)
    writer.write(b"abc")
    digest = writer.seal(durable=False).digest

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull):
        blobs.force(digest)
    assert blobs.get(digest) is None


def test_a_file_that_somebody_else_has_a_name_for_is_not_written_over(tmp_path: Path) -> None:
    blobs, lent = FileBlobs(tmp_path / "blobs"), tmp_path / "lent"
    lent.hardlink_to(blobs.put(large(b"a")).path)
    blobs.prune((), reuse=True)
    blobs.put(large(b"b"))
    assert lent.read_bytes() == large(b"a")


def test_a_file_that_somebody_reads_is_not_written_over(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    with opened(blobs.put(large(b"a"))) as read:
        blobs.prune((), reuse=True)
        blobs.put(large(b"b"))
        assert read(0, BLOCK) == b"a" * BLOCK


def test_a_file_that_cannot_be_kept_is_removed(tmp_path: Path) -> None:
    """As on a disk without room for one more folder."""
    blobs = FileBlobs(tmp_path)
    blob = blobs.put(large(b"a"))
    (tmp_path / "spare").write_bytes(b"in the way")
    blobs.prune((), reuse=True)
    assert not blob.path.exists()
    assert blobs.get(blob.digest) is None


def test_a_process_that_begins_keeps_nothing_to_be_written_over(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    blobs.put(large(b"a"))
    blobs.prune((), reuse=True)
    FileBlobs(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert blobs.put(large(b"b")).path.read_bytes() == large(b"b"), "the first finds its own gone"


def test_a_half_that_was_begun_over_an_old_file_has_only_what_came(tmp_path: Path) -> None:
    blobs, data = FileBlobs(tmp_path), large(b"b")
    for tail in (b"", b"12345"):
        blobs.put(large(b"a"))
        blobs.prune((), reuse=True)
        half = blobs.half(digest_bytes(data), len(data))
        assert not list(half.found())
        half.write(data[:BLOCK])
        if tail:
            half.note(tail)
        half.suspend()
        again = blobs.half(digest_bytes(data), len(data))
        assert b"".join(again.found()) == data[:BLOCK] + tail
        again.abandon()


def test_a_half_that_was_begun_over_an_old_file_goes_on_after_a_cut(tmp_path: Path) -> None:
    blobs, data = FileBlobs(tmp_path), large(b"b")
    blobs.put(large(b"a", 9))
    blobs.prune((), reuse=True)
    half = blobs.half(digest_bytes(data), len(data))
    half.write(data[:BLOCK])
    half.note(data[:5])
    half.write(data[BLOCK:])
    assert half.seal().path.read_bytes() == data
