"""Blobs in a folder that another process has filled."""

from __future__ import annotations

import os
from pathlib import Path

from reuna.adapters.files import HALVES, FileBlobs
from reuna.wire import digest_bytes


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
