"""Blobs in a folder that another process has filled."""

from __future__ import annotations

from pathlib import Path

from reuna.adapters.files import FileBlobs


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
