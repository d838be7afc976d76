"""A cloud's models in a bucket of a real S3-compatible server: lost folders, servers away, keys that may not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reuna.adapters import object_store
from reuna.adapters.object_store import StoredBlobs, open_bucket
from reuna.core.errors import PermissionDenied, ReunaError, SettingsError, Unreachable
from reuna.wire import BLOCK, digest_bytes
from tests.servers.s3 import SECRET, S3Server

URL = "s3://models/line"


def test_a_cloud_on_another_machine_finds_every_blob(tmp_path: Path, s3: S3Server) -> None:
    data = os.urandom(5 * object_store.CHUNK + 3)
    digest = StoredBlobs(tmp_path / "one", open_bucket(URL)).put(data).digest
    other = StoredBlobs(tmp_path / "two", open_bucket(URL))
    held = other.get(digest)
    assert held is not None
    assert held.read(0, len(data)) == data
    assert other.bucket.names() == {digest}
    assert other.get(digest_bytes(b"never put")) is None
    other.drop(digest)
    assert StoredBlobs(tmp_path / "three", open_bucket(URL)).get(digest) is None


def test_a_prefix_without_an_object_is_empty(s3: S3Server) -> None:
    assert open_bucket("s3://models/nothing/yet").names() == set()
    with pytest.raises(SettingsError, match="there is no such bucket"):
        open_bucket("s3://no-such-bucket/line").names()


def test_two_clouds_with_prefixes_of_their_own_do_not_see_each_other(tmp_path: Path, s3: S3Server) -> None:
    digest = StoredBlobs(tmp_path / "a", open_bucket("s3://models/a")).put(b"of a").digest
    other = StoredBlobs(tmp_path / "b", open_bucket("s3://models/b"))
    assert other.get(digest) is None
    other.put(b"of b")
    other.prune([])
    assert open_bucket("s3://models/a").names() == {digest}


def test_what_was_changed_in_the_bucket_is_not_taken(tmp_path: Path, s3: S3Server) -> None:
    digest = StoredBlobs(tmp_path / "one", open_bucket(URL)).put(b"a model").digest
    s3.files().pipe_file(f"models/line/{digest}", b"a wrong model")
    other = StoredBlobs(tmp_path / "two", open_bucket(URL))
    assert other.get(digest) is None
    assert not [path for path in (tmp_path / "two").iterdir() if path.name != ".reuna"], "nothing of it stays"


def test_a_blob_that_the_bucket_did_not_take_is_found_nowhere_and_can_be_put_again(
    tmp_path: Path, s3: S3Server
) -> None:
    blobs = StoredBlobs(tmp_path / "one", open_bucket(URL))
    s3.stop()
    try:
        with pytest.raises(Unreachable, match="s3://models/line"):
            blobs.put(b"a model")
        assert not list((tmp_path / "one").iterdir())
        with pytest.raises(Unreachable):
            blobs.get(digest_bytes(b"a model"))
    finally:
        s3.start()
    digest = blobs.put(b"a model").digest
    assert blobs.bucket.names() == {digest}


def test_a_model_written_in_blocks_is_in_the_bucket_when_it_is_sealed(tmp_path: Path, s3: S3Server) -> None:
    blobs = StoredBlobs(tmp_path / "one", open_bucket(URL))
    passing, staying = blobs.new(1), blobs.new(1)
    for writer in (passing, staying):
        writer.write(bytes(BLOCK))
        writer.write(b"end")
    assert passing.seal(durable=False).digest == digest_bytes(bytes(BLOCK) + b"end")
    assert blobs.bucket.names() == set()
    digest = staying.seal().digest
    assert blobs.bucket.names() == {digest}


def test_a_model_that_nodes_fetch_already_stays_while_the_bucket_is_away(
    tmp_path: Path, s3: S3Server
) -> None:
    blobs = StoredBlobs(tmp_path / "one", open_bucket(URL))
    writer = blobs.new(7)
    writer.write(b"a model")
    digest = writer.seal(durable=False).digest
    s3.stop()
    try:
        with pytest.raises(Unreachable):
            blobs.force(digest)
        assert blobs.get(digest) is not None
    finally:
        s3.start()
    blobs.force(digest)
    assert blobs.bucket.names() == {digest}


@pytest.mark.parametrize(
    ("url", "secret", "kind", "said"),
    [
        ("s3://no-such-bucket/line", SECRET, SettingsError, "there is no such bucket"),
        (URL, "wrong wrong", PermissionDenied, "s3://models/line"),
        ("s3://key:hunter2@models/line", SECRET, SettingsError, "holds credentials"),
        ("s3://models/line?secret=hunter2", SECRET, SettingsError, "holds credentials"),
        ("https://models/line", SECRET, SettingsError, "names no bucket"),
        ("s3:///line", SECRET, SettingsError, "names no bucket"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_one_error_at_the_start(
    tmp_path: Path,
    s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    secret: str,
    kind: type[ReunaError],
    said: str,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    with pytest.raises(kind, match=said) as refused:
        StoredBlobs(tmp_path / "one", open_bucket(url))
    shown = f"{refused.value!r} {refused.value.next_step} {refused.value.__cause__!r}"
    assert not any(word in shown for word in ("hunter2", SECRET, "wrong wrong"))


def test_a_server_that_is_away_is_said_to_be_within_seconds(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    began = time.monotonic()
    with pytest.raises(Unreachable, match="Could not connect"):
        StoredBlobs(tmp_path / "one", open_bucket(URL))
    assert time.monotonic() - began < 10


def test_without_the_extra_the_error_says_how_to_install_it() -> None:
    script = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from reuna.adapters.object_store import open_bucket\nfrom reuna.core.errors import ExtraMissing\n"
        "try: open_bucket('s3://models/line')\nexcept ExtraMissing as error: print(error.next_step)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "pip install 'reuna[s3]'\n", done.stderr


def test_the_cache_keeps_what_is_newest_and_the_bucket_the_rest(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = StoredBlobs(tmp_path / "one", open_bucket(URL))
    digests = [blobs.put(bytes([number]) * 100).digest for number in range(4)]
    for age, digest in enumerate(digests):
        os.utime(tmp_path / "one" / digest, (1_000 + age, 1_000 + age))
    monkeypatch.setattr(object_store, "CACHED", 250)
    again = StoredBlobs(tmp_path / "one", open_bucket(URL))
    assert {path.name for path in (tmp_path / "one").iterdir()} == set(digests[2:])
    found = again.get(digests[0])
    assert found is not None
    assert found.read(0, 100) == bytes(100)
