"""Blobs in an S3-compatible bucket, with a folder as their cache: the `Blobs` port of a cloud that grows.

A blob is durable when the bucket has it. Every blob in use lies in the folder too, where the freight server
reads it; what the folder lacks is fetched, and checked block by block. Address and credentials of the service
come from where its tools look: ``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ``~/.aws``; never from the URL.

    blobs = StoredBlobs(folder, open_bucket("s3://reuna/line-4"))
    assert blobs.put(b"abc").digest in blobs.bucket.names()
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reuna.adapters.files import FileBlob, FileBlobs, FileWriter, is_digest
from reuna.core.errors import (
    ExtraMissing,
    NotUsable,
    PermissionDenied,
    ReunaError,
    SettingsError,
    Unreachable,
)

CHUNK = 1 << 20  #: bytes fetched at a time; whole blocks
CACHED = 4 << 30  #: bytes of the folder that outlive a start
TRIES = 2  #: of one request; a cloud then waits, and tries again by itself
CONNECT_S, READ_S = 5, 30  #: seconds
PROBE = ".reuna"  #: written at each start: who may not write learns it then
AWAY = "See that AWS_ENDPOINT_URL can be reached from here; a running cloud tries again by itself."
RIGHTS = "Let this key list, read, write and delete below the prefix; see docs/how-to/storage.md."
_DENIED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Forbidden", "403")
_FULL = ("InsufficientStorage", "XMinioStorageFull", "QuotaExceeded", "QuotaExceededException", "507")


class Bucket:
    """A prefix of a bucket over fsspec. All methods block.

    Raise `Unreachable`, `PermissionDenied`, `SettingsError` (no such bucket), `NotUsable`.
    """

    def __init__(self, fs: Any, path: str, url: str, fails: tuple[type[Exception], ...]) -> None:
        """``fails``: what the libraries raise, which have no common root."""
        self._fs = fs
        self._fails = fails
        self._path = path
        self.url = url

    def probe(self) -> None:
        """Whether it can be written."""
        with self._own_errors():
            self._fs.pipe_file(f"{self._path}/{PROBE}", b"written at each start of the cloud\n")

    def names(self) -> set[str]:
        """Digests of the blobs that are there."""
        with self._own_errors():
            try:
                found = [Path(path).name for path in self._fs.ls(self._path, detail=False)]
            except FileNotFoundError as error:  # a prefix is there with its first object
                if _is_no_bucket(error):
                    raise
                return set()
        return {name for name in found if is_digest(name)}

    def send(self, blob: FileBlob) -> None:
        """Keep a copy of a blob; durable on return."""
        with self._own_errors():
            self._fs.put_file(str(blob.path), f"{self._path}/{blob.digest}")

    def fetch(self, digest: str, take: Callable[[bytes], None]) -> bool:
        """Give ``take`` the bytes, a chunk at a time; False when there is none."""
        path = f"{self._path}/{digest}"
        with self._own_errors():
            if not self._fs.exists(path):
                return False
            with self._fs.open(path, "rb", block_size=CHUNK, cache_type="none") as file:
                while data := file.read(CHUNK):
                    take(data)
        return True

    def drop(self, digest: str) -> None:
        """Forget a blob; nothing happens when it is not there."""
        with self._own_errors():
            try:
                self._fs.rm_file(f"{self._path}/{digest}")
            except FileNotFoundError:
                return

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        try:
            yield
        except self._fails as error:
            raise self._own(error) from None  # a traceback would show what was asked, and with which key

    def _own(self, error: Exception) -> ReunaError:
        code, nobody = _code(error), type(error).__name__ == "NoCredentialsError"
        said = f"{self.url}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        if _is_no_bucket(error):
            return SettingsError(f"{self.url}: there is no such bucket", "Make the bucket, or name another.")
        if isinstance(error, PermissionError) or code in _DENIED or nobody:
            return PermissionDenied(said, RIGHTS)
        if code in _FULL:
            return Unreachable(f"{said} (its storage is full)", "Free space in the store.")
        return NotUsable(said) if isinstance(error, FileNotFoundError) else Unreachable(said, AWAY)


def _is_no_bucket(error: Exception) -> bool:
    return _code(error) == "NoSuchBucket"


def _code(error: BaseException) -> str:
    """What the service calls the error, from s3fs's error or the one it was made of."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def open_bucket(url: str) -> Bucket:
    """Raises `SettingsError`, which never shows a key, and `ExtraMissing`."""
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query:
        raise SettingsError(
            "store holds credentials or options",
            "Write s3://BUCKET/PREFIX, and give keys by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        )
    if parts.scheme != "s3" or not parts.netloc:
        raise SettingsError("store names no bucket", "Write it as s3://BUCKET/PREFIX.")
    try:
        from aiohttp import ClientError as Cut
        from botocore.exceptions import BotoCoreError, ClientError
        from s3fs import S3FileSystem
    except ImportError as error:
        raise ExtraMissing(
            "store is a bucket, and what speaks with it is not installed", "pip install 'reuna[s3]'"
        ) from error
    retries = {"max_attempts": TRIES, "mode": "standard"}
    fs = S3FileSystem(
        config_kwargs={"connect_timeout": CONNECT_S, "read_timeout": READ_S, "retries": retries},
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    fs.retries = 1
    path = f"{parts.netloc}{parts.path.rstrip('/')}"
    return Bucket(fs, path, f"s3://{path}", (OSError, Cut, BotoCoreError, ClientError))


class StoredBlobs:
    """The `Blobs` port; `put`, `get`, `drop` and a writer's `seal` block, and raise what `Bucket` raises."""

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        bucket.probe()
        _forget_oldest(folder, CACHED)
        self._files = FileBlobs(folder)
        self.bucket = bucket

    def put(self, data: bytes) -> FileBlob:
        """Keep bytes durably."""
        writer = self.new(len(data))
        writer.write(data)
        return writer.seal()

    def get(self, digest: str) -> FileBlob | None:
        """The blob, fetched when the folder lacks it. One that is damaged in the bucket is none."""
        held = self._files.get(digest)
        if held is not None or not is_digest(digest):
            return held
        writer = self._files.new(0)
        try:
            found = self.bucket.fetch(digest, writer.write)
        except BaseException:
            writer.abandon()
            raise
        if not found:
            writer.abandon()
            return None
        fetched = writer.seal()
        if fetched.digest != digest:
            self._files.drop(fetched.digest)
            return None
        return fetched

    def know(self, digest: str, hashes: bytes) -> None:
        """See `Blobs.know`."""
        self._files.know(digest, hashes)

    def new(self, size: int) -> StoredWriter:
        """A writer for a blob of about ``size`` bytes. Raises `DiskFull`."""
        return StoredWriter(self._files.new(size), self)

    def force(self, digest: str) -> None:
        """See `Blobs.force`: durable when the bucket has it. Where that is away the blob is still here."""
        self._files.force(digest)
        blob = self._files.get(digest)
        if blob is not None:
            self.bucket.send(blob)

    def drop(self, digest: str, reuse: bool = False) -> None:
        """Forget a blob, here and in the bucket."""
        if is_digest(digest):
            self._files.drop(digest, reuse)
            self.bucket.drop(digest)

    def prune(self, keep: Collection[str], reuse: bool = False) -> None:
        """Drop all blobs but those of ``keep``, here and in the bucket."""
        self._files.prune(keep, reuse)
        for digest in self.bucket.names() - set(keep):
            self.bucket.drop(digest)

    def unkept(self, blob: FileBlob) -> None:
        """The bucket did not take it: so nobody finds it here."""
        self._files.drop(blob.digest)


class StoredWriter:
    """A file of the cache that is sent before anybody finds it durable."""

    def __init__(self, writer: FileWriter, blobs: StoredBlobs) -> None:
        self._writer = writer
        self._blobs = blobs

    def write(self, data: bytes | memoryview, hashes: bytes = b"") -> None:
        """Take whole blocks. Raises `DiskFull`."""
        self._writer.write(data, hashes)

    def seal(self, durable: bool = True) -> FileBlob:
        """Give it its name, here and, when it is to be durable, in the bucket."""
        blob = self._writer.seal(durable)
        if durable:
            try:
                self._blobs.bucket.send(blob)
            except BaseException:
                self._blobs.unkept(blob)
                raise
        return blob

    def abandon(self) -> None:
        """Remove what was written."""
        self._writer.abandon()


def _forget_oldest(folder: Path, limit: int) -> None:
    """Keep the newest files of a cache that nobody uses yet."""
    if not folder.is_dir():
        return
    files = sorted((path.stat().st_mtime, path) for path in folder.iterdir() if is_digest(path.name))
    left = limit
    for _, path in reversed(files):
        left -= path.stat().st_size
        if left < 0:
            path.unlink(missing_ok=True)
