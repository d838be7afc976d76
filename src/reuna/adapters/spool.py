"""Contributions a parent holds: bodies in files, rows in SQLite.

The order makes a row mean something: body forced to the disk, renamed, folder forced to the
disk, row committed; only then is the upload acknowledged. What a crash leaves of an upload is a
``.part`` file with a list of block hashes beside it; `DiskSpool.held` believes only the blocks
that match. Commits that wait for each other's disk go through as one group. A body of one block
is committed beside its row instead: one forced write where a file takes three. The last few of these are also
held, so that who adds them up need not read them back.

    spool.db                                     rows (run, round, attempt, sender) → manifest; small bodies
    bodies/<run>/<round>.<attempt>.<sender>.part     an upload on its way, or not yet committed
    bodies/<run>/<round>.<attempt>.<sender>.hashes   hash of its manifest, then of each block
    bodies/<run>/<round>.<attempt>.<sender>.<digest> a body whose row is, or was being, committed
    spare/<number>                               bodies of earlier rounds, to be written over
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from reuna.adapters.files import (
    Database,
    FileBlob,
    HeldBlob,
    database_error,
    is_digest,
    remember,
    storage_error,
    sync_folder,
    write_all,
    written_how,
)
from reuna.adapters.spares import Spares
from reuna.core.errors import Corrupted, Refused, ReunaError, StorageError, Unreachable
from reuna.core.ports import Blob, Entry
from reuna.core.records import Contribution
from reuna.wire import BLOCK, BlockHasher, block_hash, decode, encode, hash_blocks

#: Stands for a digest in the manifest of a body that is being made here: it is never resumed.
DRAFT_DIGEST = "0" * 64

PART = "part"  #: of the name of a body that is on its way
SPARES = 16  #: files at most
HELD = 32  #: small bodies committed last, which need not be read back to be added up
MAX_NUMBER = 2**31  #: of a round or attempt; anything above was not made by us

Key = tuple[str, int, int, str]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}\Z")
_HASH_SIZE = 32
_SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (
    run TEXT, round INTEGER, attempt INTEGER, sender TEXT, digest TEXT NOT NULL,
    manifest BLOB NOT NULL, PRIMARY KEY (run, round, attempt, sender)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS small (
    run TEXT, round INTEGER, attempt INTEGER, sender TEXT,
    body BLOB NOT NULL, PRIMARY KEY (run, round, attempt, sender)
);
"""
_ROWS_OF_RUN = "SELECT manifest FROM rows WHERE run = ? ORDER BY round, attempt, sender"
_SMALL = "SELECT body FROM small WHERE run = ? AND round = ? AND attempt = ? AND sender = ?"
_ROWS_OF_ROUND = "SELECT manifest FROM rows WHERE run = ? AND round = ? AND attempt = ? ORDER BY sender"


class Partial:
    """An upload on its way: which blocks of which manifest are in the file."""

    def __init__(self, where: str, manifest: Contribution) -> None:
        self._where = where
        self._manifest = manifest
        self.total = manifest.size
        self.resumable = manifest.digest != DRAFT_DIGEST
        self.hasher = BlockHasher()
        self.size = 0
        self.writer = 0  #: number of the newest writer; older ones may not go on
        self.sealed: FileBlob | HeldBlob | None = None
        self.forced = False  #: to the disk, when it was sealed

    @cached_property
    def manifest_hash(self) -> bytes:
        """By which an upload that goes on is known to be of the very same contribution."""
        return block_hash(encode(self._manifest))

    @property
    def path(self) -> Path:
        """Its file; a small one has none."""
        return Path(self._where)

    @property
    def hashes_path(self) -> Path:
        return self.path.with_suffix(".hashes")

    @property
    def listed(self) -> bool:
        """Whether the hashes of its blocks are kept, so that it can go on after a crash."""
        return self.resumable and self.total > BLOCK

    def held(self, manifest: Contribution) -> int:
        """Bytes of this very manifest's body; none when all are there and they are not the body."""
        if not self.size or not self.resumable or self.manifest_hash != block_hash(encode(manifest)):
            return 0
        whole = self.size == manifest.size
        return 0 if whole and self.hasher.digest() != manifest.digest else self.size

    def block(self, index: int) -> tuple[int, int]:
        """Where a block starts and how many bytes it has."""
        start = index * BLOCK
        return start, min(BLOCK, self.total - start)

    def take(self, data: bytes | memoryview, hashes: bytes) -> None:
        self.hasher.feed(data, hashes)
        self.size += len(data)

    def forget(self) -> None:
        """As if nothing had come."""
        self.hasher = BlockHasher()
        self.size = 0

    @property
    def is_small(self) -> bool:
        """Whether it is held in memory until its row is committed."""
        return self.total <= BLOCK

    def remove(self) -> None:
        if self.is_small:
            return
        self.path.unlink(missing_ok=True)
        if self.listed:
            self.hashes_path.unlink(missing_ok=True)


class DiskSpool:
    """The `Spool` port on a folder, for one process; its threads may share it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._bodies = folder / "bodies"
        self._bodies.mkdir(exist_ok=True, mode=0o700)
        self._writing = _open(folder / "spool.db")
        self._reading = _open(folder / "spool.db")
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._waiting: deque[_Commit] = deque()
        self._partials: dict[Key, Partial] = {}
        self._spares = Spares(folder / "spare", SPARES)
        self._hashes: dict[str, bytes] = {}  #: of bodies committed lately, by digest
        self._held: dict[Key, HeldBlob] = {}
        self._dropped: dict[str, int] = {}  #: small bodies of a run before that round go with the next commit
        self._taken = self._forced = 0  #: bodies committed, and those of them forced to the disk

    # --- uploads -----------------------------------------------------------------------------

    def begin(self, manifest: Contribution) -> SpoolWriter | SmallWriter:
        """A writer that goes on at `held(manifest)`; an older writer of the key may not go on.

        Raises `DiskFull`, `Corrupted`.
        """
        partial = self._partial(manifest)
        if (partial.size or manifest.key in self._partials) and not partial.held(manifest):
            partial.writer += 1
            partial = Partial(self._where(manifest, PART), manifest)
        self._partials[manifest.key] = partial
        partial.writer += 1
        partial.sealed = None
        if partial.is_small:
            return SmallWriter(partial)
        self._make_run_folder(partial.path.parent)
        self._spares.take(partial.path, partial.total)
        return SpoolWriter(partial)

    def held(self, manifest: Contribution) -> int:
        """Bytes (whole blocks) held of this very manifest's body; what a crash left is verified."""
        partial = self._partial(manifest)
        if partial.size:
            self._partials[manifest.key] = partial
        return partial.held(manifest)

    def _partial(self, manifest: Contribution) -> Partial:
        """The upload under way, or what a crash left of this manifest's, or a new one."""
        known = self._partials.get(manifest.key)
        return known or _found(Partial(self._where(manifest, PART), manifest))

    def _make_run_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            try:
                folder.mkdir(exist_ok=True, mode=0o700)
                sync_folder(self._bodies)
            except OSError as error:
                raise storage_error(error, folder) from error

    def _where(self, manifest: Contribution, ending: str) -> str:
        """The file of a body. Raises `Refused` for what cannot be part of its name."""
        _check_names(manifest)
        if not (ending == PART or is_digest(ending)):
            raise Refused("malformed", "a digest cannot be part of a file name")
        name = f"{manifest.round}.{manifest.attempt}.{manifest.sender}.{ending}"
        return f"{self._bodies}/{manifest.run}/{name}"

    # --- rows --------------------------------------------------------------------------------

    def commit(self, manifest: Contribution, body: Blob | None) -> None:
        """Record the row durably; ``body`` is what this spool's writer sealed. Blocking.

        Raises `Refused` ('conflict', 'digest'), `DiskFull`, `Corrupted`.
        """
        (error,) = self.commit_all([(manifest, body)])
        if error is not None:
            raise error

    def commit_all(self, entries: Sequence[Entry]) -> list[ReunaError | None]:
        """`commit` of several in one transaction, with those that wait in other threads: what each raises."""
        own = [_Commit(*entry) for entry in entries]
        self._waiting.extend(own)
        with self._write_lock:
            if not all(entry.done for entry in own):
                self._commit_group([self._waiting.popleft() for _ in range(len(self._waiting))])
        return [entry.error for entry in own]

    def _commit_group(self, group: list[_Commit]) -> None:
        """One transaction and one forced folder for all who wait now."""
        try:
            self._writing.execute("BEGIN IMMEDIATE")
            self._delete_dropped()
            for entry in group:
                self._prepare(entry)
            for folder in {entry.path.parent for entry in group if entry.path and not entry.error}:
                sync_folder(folder)
            self._writing.execute("COMMIT")
            self._dropped.clear()
            self._hold(entry for entry in group if not entry.error)
        except (sqlite3.Error, OSError) as error:
            self._fail(group, database_error(error, self._bodies))
        finally:
            if self._writing.in_transaction:
                self._writing.execute("ROLLBACK")
        for entry in group:
            entry.done = True

    def _hold(self, committed: Iterable[_Commit]) -> None:
        for entry in committed:
            if isinstance(entry.body, HeldBlob):
                self._held[entry.manifest.key] = entry.body
        for key in list(self._held)[:-HELD]:
            del self._held[key]

    def _delete_dropped(self) -> None:
        for run, before in self._dropped.items():
            self._writing.execute("DELETE FROM small WHERE run = ? AND round < ?", (run, before))

    def _prepare(self, entry: _Commit) -> None:
        try:
            _check_names(entry.manifest)
            if isinstance(entry.body, FileBlob):
                entry.path = Path(self._where(entry.manifest, entry.manifest.digest))
            if self._known(entry.manifest):
                self._forget_partial(entry.manifest)
            else:
                self._move_body(entry)
                self._insert(entry.manifest)
            if isinstance(entry.body, FileBlob) and entry.path is not None:
                entry.body.path = entry.path  # whoever made it goes on with it
        except ReunaError as error:
            entry.error = error
        except OSError as error:
            entry.error = storage_error(error, self._bodies / entry.manifest.run)

    def _known(self, manifest: Contribution) -> bool:
        """Whether the row is there. Raises `Refused` when another is in its place."""
        found = self._writing.execute(
            "SELECT digest FROM rows WHERE run = ? AND round = ? AND attempt = ? AND sender = ?",
            manifest.key,
        ).fetchone()
        if found is not None and found[0] != manifest.digest:
            raise Refused("conflict", f"{manifest.sender} already gave to round {manifest.round}")
        return found is not None

    def _move_body(self, entry: _Commit) -> None:
        manifest, body = entry.manifest, entry.body
        if body is None:
            return
        if (body.digest, body.size) != (manifest.digest, manifest.size):
            raise Refused("digest", f"{manifest.sender}'s body does not match its digest")
        remember(self._hashes, body.digest, body.hashes)
        partial = self._partials.get(manifest.key)
        sealed = partial.sealed if partial else None
        if partial is None or sealed is None or sealed is not body:
            raise Corrupted(f"the body of {manifest.sender} was replaced before its commit")
        if entry.path is None:
            self._keep_small(manifest, sealed)
        else:
            partial.path.rename(entry.path)
            entry.moved = True
        self._taken += 1
        self._forced += partial.forced
        self._forget_partial(manifest)

    def _keep_small(self, manifest: Contribution, body: Blob) -> None:
        values = (*manifest.key, body.read(0, body.size))
        self._writing.execute("INSERT OR REPLACE INTO small VALUES (?, ?, ?, ?, ?)", values)

    def _forget_partial(self, manifest: Contribution) -> None:
        partial = self._partials.pop(manifest.key, None)
        if partial is not None:
            partial.remove()

    def _insert(self, manifest: Contribution) -> None:
        values = (*manifest.key, manifest.digest, encode(manifest))
        self._writing.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)", values)

    def _fail(self, group: list[_Commit], error: StorageError) -> None:
        for entry in group:
            entry.error = entry.error or error
            if entry.moved and entry.path:
                entry.path.unlink(missing_ok=True)

    def rows(self, run: str, round: int, attempt: int) -> list[Contribution]:
        """Committed contributions by sender; never waits for a commit under way."""
        if not (0 <= round <= MAX_NUMBER and 0 <= attempt <= MAX_NUMBER):
            return []
        return self._select(_ROWS_OF_ROUND, (run, round, attempt))

    def rows_of_run(self, run: str) -> list[Contribution]:
        """Committed contributions of a whole run, by round, attempt and sender."""
        return self._select(_ROWS_OF_RUN, (run,))

    def _select(self, query: str, values: tuple[str | int, ...]) -> list[Contribution]:
        return [decode(Contribution, manifest) for (manifest,) in self._fetched(query, values)]

    def _fetched(self, query: str, values: tuple[str | int, ...]) -> list[tuple[bytes]]:
        try:
            with self._read_lock:
                return self._reading.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise database_error(error, self._bodies) from error

    def body(self, row: Contribution) -> FileBlob | HeldBlob:
        """The body of a committed row. Raises `Corrupted` when it was dropped."""
        held = self._small(row) if row.size <= BLOCK else None
        if held is not None:
            return held
        path = Path(self._where(row, row.digest))
        if not path.is_file():
            raise Corrupted(f"no body of {row.sender} for round {row.round}")
        return FileBlob(path, row.digest, row.size, self._hashes.get(row.digest, b""))

    def _small(self, row: Contribution) -> HeldBlob | None:
        """A body that was committed beside its row, and not dropped since."""
        if row.round < self._dropped.get(row.run, 0):
            return None
        held = self._held.get(row.key)
        if held is not None and held.digest == row.digest:
            return held
        data = self._fetched(_SMALL, row.key)
        if not data:
            return None
        return HeldBlob(data[0][0], row.digest, self._hashes.get(row.digest, b""))

    def drop(self, run: str, before_round: int) -> None:
        """Forget bodies and unfinished uploads of earlier rounds of the run; rows stay."""
        if not _NAME.match(run):
            return
        with self._write_lock:
            self._dropped[run] = max(before_round, self._dropped.get(run, 0))
            for key in list(self._partials):
                if key[0] == run and key[1] < before_round:
                    self._partials.pop(key, None)
            for key in list(self._held):
                if key[0] == run and key[1] < before_round:
                    del self._held[key]
            for name in _names(f"{self._bodies}/{run}"):
                if int(name.partition(".")[0]) < before_round:
                    self._forget(self._bodies / run / name)

    def _forget(self, path: Path) -> None:
        if path.stat().st_size > BLOCK:
            self._spares.give(path)
        else:
            path.unlink(missing_ok=True)

    def durability(self) -> str:
        """How the open database writes, and how many bodies were committed and forced to the disk."""
        with self._write_lock:
            return f"{written_how(self._writing)} bodies={self._taken} forced={self._forced}"

    def close(self) -> None:
        """Close the database; commits under way end first."""
        with self._write_lock, self._read_lock:
            self._writing.close()
            self._reading.close()


class SpoolWriter:
    """Writes one body, from where an earlier writer of the same manifest ended."""

    def __init__(self, partial: Partial) -> None:
        self._partial = partial
        self._number = partial.writer
        try:
            self._fd = self._open(partial.path, partial.size, partial.total)
            self._hashes_fd = self._open_hashes() if partial.listed else -1
        except OSError as error:
            raise storage_error(error, partial.path) from error

    def _open(self, path: Path, keep: int, total: int) -> int:
        """Open a file of at most ``total`` bytes to write behind those known to be good."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        weakref.finalize(self, os.close, fd)
        if os.fstat(fd).st_size > total:
            os.ftruncate(fd, total)
        os.lseek(fd, keep, os.SEEK_SET)
        return fd

    def _open_hashes(self) -> int:
        hashes = self._partial.hasher.hashes
        fd = self._open(self._partial.hashes_path, 0, 0)
        write_all(fd, b"".join([self._partial.manifest_hash, *hashes]))
        return fd

    def write(self, data: bytes | memoryview, hashes: bytes = b"") -> None:
        """Take whole blocks.

        Raises `Unreachable` when a newer writer took over, `DiskFull` and then leaves nothing.
        """
        self._still_mine()
        try:
            write_all(self._fd, data)
            found = hashes or hash_blocks(data)
            self._partial.take(data, found)
            if self._partial.listed:
                write_all(self._hashes_fd, found)
        except OSError as error:
            self.abandon()
            raise storage_error(error, self._partial.path) from error

    def seal(self, durable: bool = True) -> FileBlob:
        """The body as it will be committed, forced to the disk. Raises `DiskFull`, `Corrupted`."""
        self._still_mine()
        partial = self._partial
        try:
            if durable:
                _force(self._fd)
            partial.forced = durable
        except OSError as error:
            self.abandon()
            raise storage_error(error, partial.path) from error
        hashes = b"".join(partial.hasher.hashes)
        partial.sealed = FileBlob(partial.path, partial.hasher.digest(), partial.size, hashes)
        return partial.sealed

    def abandon(self) -> None:
        """Forget what was written."""
        if self._number == self._partial.writer:
            self._partial.remove()
            self._partial.forget()

    def _still_mine(self) -> None:
        if self._number != self._partial.writer:
            raise Unreachable("another upload of the same contribution took over")


class SmallWriter:
    """Writes a body of one block; its bytes are forced to the disk with its row, by the commit."""

    def __init__(self, partial: Partial) -> None:
        self._partial = partial
        self._number = partial.writer
        partial.forget()
        self._data = bytearray()

    def write(self, data: bytes | memoryview, hashes: bytes = b"") -> None:
        """Take whole blocks. Raises `Unreachable` when a newer writer took over."""
        self._still_mine()
        self._data += data
        self._partial.take(data, hashes or hash_blocks(data))

    def seal(self, durable: bool = True) -> HeldBlob:
        """The body as it will be committed."""
        self._still_mine()
        partial = self._partial
        partial.forced = True
        partial.sealed = HeldBlob(bytes(self._data), partial.hasher.digest(), b"".join(partial.hasher.hashes))
        return partial.sealed

    def abandon(self) -> None:
        """Forget what was written."""
        if self._number == self._partial.writer:
            self._partial.forget()
            self._data.clear()

    def _still_mine(self) -> None:
        if self._number != self._partial.writer:
            raise Unreachable("another upload of the same contribution took over")


class _Commit:
    """A row that waits for the disk."""

    def __init__(self, manifest: Contribution, body: Blob | None) -> None:
        self.manifest = manifest
        self.body = body
        self.path: Path | None = None
        self.moved = False
        self.done = False
        self.error: ReunaError | None = None


def _force(fd: int) -> None:
    """Bytes and size, not when they were written: the folder's names are forced once more, with all."""
    getattr(os, "fdatasync", os.fsync)(fd)


def _check_names(manifest: Contribution) -> None:
    """Raises `Refused` for what nobody of ours calls a run, a round or a sender."""
    names_ok = _NAME.match(manifest.run) and _NAME.match(manifest.sender)
    if not (names_ok and 0 <= manifest.round <= MAX_NUMBER and 0 <= manifest.attempt <= MAX_NUMBER):
        raise Refused("malformed", "run, round or sender cannot be part of a file name")


def _names(folder: str) -> list[str]:
    """Of what lies in a folder that need not be there."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=30, factory=Database
    )
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.executescript(_SCHEMA)
    except sqlite3.Error as error:
        database.close()
        raise database_error(error, path) from error
    return database


def _found(partial: Partial) -> Partial:
    """Fill in what a crash left: the leading blocks that match their recorded hashes."""
    if not partial.listed:
        return partial
    try:
        recorded = partial.hashes_path.read_bytes()
        blob = FileBlob(partial.path, "", partial.path.stat().st_size)
    except FileNotFoundError:
        return partial
    if recorded[:_HASH_SIZE] != partial.manifest_hash:
        return partial
    for at in range(_HASH_SIZE, len(recorded) - _HASH_SIZE + 1, _HASH_SIZE):
        start, count = partial.block(at // _HASH_SIZE - 1)
        block = blob.read(start, count) if 0 < count <= blob.size - start else b""
        if not block or block_hash(block) != recorded[at : at + _HASH_SIZE]:
            break
        partial.take(block, recorded[at : at + _HASH_SIZE])
    return partial
