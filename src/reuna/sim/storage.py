"""Blobs and spool in memory, with a disk that can be full and that forgets at a crash.

The same contracts as `reuna.adapters.files` and `reuna.adapters.spool`. A killed process loses
nothing that was written; a power cut loses what was not forced to the disk.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from reuna.core.errors import Corrupted, DiskFull, Refused, ReunaError, Unreachable
from reuna.core.ports import Blob, Entry
from reuna.core.records import Contribution
from reuna.exchange.leftovers import Index, Leftovers
from reuna.wire import BlockHasher, digest_bytes

ROW = 1  #: bytes that a row is counted with
_DRAFT_DIGEST = "0" * 64

Key = tuple[str, int, int, str]


class MemoryDisk:
    """Counts bytes; ``capacity`` None is without end. Change it to plant a full disk."""

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.used = 0

    def take(self, count: int) -> None:
        """Raises `DiskFull`."""
        if self.capacity is not None and self.used + count > self.capacity:
            raise DiskFull(f"no space left for {count} bytes on the simulated disk")
        self.used += count

    def fill(self) -> None:
        """Not one byte more, until ``capacity`` is changed."""
        self.capacity = self.used

    def give_back(self, count: int) -> None:
        self.used -= count


class MemoryBlob:
    """A blob in memory."""

    def __init__(self, data: bytes, digest: str) -> None:
        self.digest = digest
        self.size = len(data)
        self.hashes = b""
        self.durable = True
        self._data = data

    def read(self, offset: int, count: int) -> bytes:
        return self._data[offset : offset + count]


class MemoryBlobs:
    """The `Blobs` port."""

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        self.disk = disk or MemoryDisk()
        self._blobs: dict[str, MemoryBlob] = {}

    def put(self, data: bytes) -> MemoryBlob:
        """Raises `DiskFull`."""
        self.disk.take(len(data))
        return self.keep(MemoryBlob(data, digest_bytes(data)))

    def get(self, digest: str) -> MemoryBlob | None:
        return self._blobs.get(digest)

    def know(self, digest: str, hashes: bytes) -> None:
        """Memory is not checked."""

    def new(self, size: int) -> MemoryWriter:
        return MemoryWriter(self)

    def half(self, digest: str, size: int) -> MemoryHalf:
        return MemoryHalf(self)

    def force(self, digest: str) -> None:
        self._blobs[digest].durable = True

    def drop(self, digest: str, reuse: bool = False) -> None:
        blob = self._blobs.pop(digest, None)
        if blob is not None:
            self.disk.give_back(blob.size)

    def prune(self, keep: Collection[str], reuse: bool = False) -> None:
        for digest in [digest for digest in self._blobs if digest not in keep]:
            self.drop(digest)

    def crash(self, power: bool = True) -> None:
        """A power cut takes what was sealed without being durable."""
        for digest in [d for d, blob in self._blobs.items() if power and not blob.durable]:
            self.drop(digest)

    def keep(self, blob: MemoryBlob) -> MemoryBlob:
        """Take a blob whose bytes the disk has already counted."""
        self.drop(blob.digest)
        self._blobs[blob.digest] = blob
        return blob


class MemoryWriter:
    """A blob in the making."""

    def __init__(self, blobs: MemoryBlobs) -> None:
        self._blobs = blobs
        self._data = bytearray()
        self._hasher = BlockHasher()

    def write(self, data: bytes | memoryview, hashes: bytes = b"") -> None:
        """Raises `DiskFull`, and then leaves nothing behind."""
        try:
            self._blobs.disk.take(len(data))
        except DiskFull:
            self.abandon()
            raise
        self._data += data
        self._hasher.feed(data, hashes)

    def seal(self, durable: bool = True) -> MemoryBlob:
        blob = MemoryBlob(bytes(self._data), self._hasher.digest())
        there = self._blobs.get(blob.digest)
        blob.durable = durable or (there is not None and there.durable)
        return self._blobs.keep(blob)

    def abandon(self) -> None:
        self._blobs.disk.give_back(len(self._data))
        self._data.clear()


class MemoryHalf(MemoryWriter):
    """Of which nothing outlives its process."""

    def found(self) -> Iterator[bytes]:
        return iter(())

    def note(self, tail: bytes) -> None:
        """It is lost."""

    def suspend(self) -> None:
        self.abandon()


class MemoryIndex:
    """The `Kept` port of `reuna.exchange.leftovers`."""

    def __init__(self) -> None:
        self._value: Index = {}

    def read(self) -> Index:
        return {run: dict(rounds) for run, rounds in self._value.items()}

    def write(self, value: Index) -> None:
        self._value = {run: dict(rounds) for run, rounds in value.items()}


def no_leftovers() -> Leftovers:
    """Of a node that has sent all there was."""
    return Leftovers(MemoryBlobs(), MemoryIndex())


class MemorySpool:
    """The `Spool` port."""

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        self.disk = disk or MemoryDisk()
        self._uploads: dict[Key, MemorySpoolWriter] = {}
        self._rows: dict[tuple[str, int, int], dict[str, Contribution]] = {}  #: by round, by sender
        self._bodies: dict[Key, Blob] = {}

    def begin(self, manifest: Contribution) -> MemorySpoolWriter:
        """A writer that goes on at `held(manifest)`; an older writer of the key may not go on."""
        key, kept = manifest.key, self.held(manifest)
        older = self._uploads.get(key)
        writer = MemorySpoolWriter(self.disk, manifest)
        if older is not None:
            if kept:
                writer.go_on_from(older)
            older.abandon()
        self._uploads[key] = writer
        return writer

    def held(self, manifest: Contribution) -> int:
        upload = self._uploads.get(manifest.key)
        if upload is None or upload.manifest != manifest or manifest.digest == _DRAFT_DIGEST:
            return 0
        whole = len(upload.data) == manifest.size
        if whole and digest_bytes(memoryview(upload.data)) != manifest.digest:
            return 0
        return len(upload.data)

    def commit(self, manifest: Contribution, body: Blob | None) -> None:
        """Raises `Refused` ('conflict', 'digest'), `Corrupted`, `DiskFull`."""
        key = manifest.key
        rows = self._rows.setdefault(key[:3], {})
        row = rows.get(manifest.sender)
        if row is not None and row.digest != manifest.digest:
            raise Refused("conflict", f"{manifest.sender} already gave to round {manifest.round}")
        if row is not None:
            self._forget_upload(key)
            return
        if body is not None:
            self._judge(manifest, body)
        self.disk.take(ROW)
        if body is not None:
            del self._uploads[key]
            self._bodies[key] = body
        rows[manifest.sender] = manifest

    def commit_all(self, entries: Sequence[Entry]) -> list[ReunaError | None]:
        """`commit` of several: what each raises."""
        return [self._error(manifest, body) for manifest, body in entries]

    def _error(self, manifest: Contribution, body: Blob | None) -> ReunaError | None:
        try:
            self.commit(manifest, body)
        except ReunaError as error:
            return error
        return None

    def _judge(self, manifest: Contribution, body: Blob) -> None:
        if (body.digest, body.size) != (manifest.digest, manifest.size):
            raise Refused("digest", f"{manifest.sender}'s body does not match its digest")
        upload = self._uploads.get(manifest.key)
        if upload is None or upload.sealed is not body:
            raise Corrupted(f"the body of {manifest.sender} was replaced before its commit")

    def _forget_upload(self, key: Key) -> None:
        upload = self._uploads.pop(key, None)
        if upload is not None:
            upload.abandon()

    def rows(self, run: str, round: int, attempt: int) -> list[Contribution]:
        return _by_sender(self._rows.get((run, round, attempt), {}))

    def rows_of_run(self, run: str) -> list[Contribution]:
        """Committed contributions of a whole run, by round, attempt and sender."""
        rounds = [self._rows[key] for key in sorted(self._rows) if key[0] == run]
        return [row for rows in rounds for row in _by_sender(rows)]

    def body(self, row: Contribution) -> Blob:
        """Raises `Corrupted` when it was dropped."""
        body = self._bodies.get(row.key)
        if body is None:
            raise Corrupted(f"no body of {row.sender} for round {row.round}")
        return body

    def drop(self, run: str, before_round: int) -> None:
        """Forget bodies and unfinished uploads of earlier rounds of the run; rows stay."""
        for key in [k for k in self._uploads if k[0] == run and k[1] < before_round]:
            self._forget_upload(key)
        for key in [k for k in self._bodies if k[0] == run and k[1] < before_round]:
            self.disk.give_back(self._bodies.pop(key).size)

    def crash(self, power: bool = True) -> None:
        """The process is gone, and its writers; a power cut takes unfinished uploads as well."""
        for key, upload in list(self._uploads.items()):
            if power:
                self._forget_upload(key)
            else:
                upload.end()

    def close(self) -> None:
        """Nothing to close in memory."""


def _by_sender(rows: dict[str, Contribution]) -> list[Contribution]:
    return [rows[sender] for sender in sorted(rows)]


class MemorySpoolWriter:
    """Writes one body; superseded by the next writer of the same key."""

    def __init__(self, disk: MemoryDisk, manifest: Contribution) -> None:
        self.manifest = manifest
        self.data = bytearray()
        self.sealed: MemoryBlob | None = None
        self._disk = disk
        self._ended = False

    def go_on_from(self, older: MemorySpoolWriter) -> None:
        """Take over the blocks of an earlier try."""
        self.data, older.data = older.data, bytearray()

    def end(self) -> None:
        """The process that wrote is gone."""
        self._ended = True

    def write(self, data: bytes | memoryview, hashes: bytes = b"") -> None:
        """Raises `Unreachable` when a newer writer took over, `DiskFull`."""
        self._still_mine()
        try:
            self._disk.take(len(data))
        except DiskFull:
            self._disk.give_back(len(self.data))
            self.data.clear()
            raise
        self.data += data

    def seal(self, durable: bool = True) -> MemoryBlob:
        self._still_mine()
        self.sealed = MemoryBlob(bytes(self.data), digest_bytes(memoryview(self.data)))
        return self.sealed

    def abandon(self) -> None:
        """Forget what was written."""
        self.end()
        self._disk.give_back(len(self.data))
        self.data.clear()

    def _still_mine(self) -> None:
        if self._ended:
            raise Unreachable("another upload of the same contribution took over")
