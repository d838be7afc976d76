"""Blobs in a folder, one file for each digest.

Whoever finds a file under its final name finds it whole: bytes go to a temporary file, which is
renamed when it is complete. A file that was not forced to the disk may still be damaged by a
power cut, so each file met for the first time in a process is checked against its digest.

    <digest>          a blob                        <digest>.half    one on its way here
    <number>.part     one in the making             spare/<number>   dropped, to be written over

>>> import tempfile, pathlib
>>> with tempfile.TemporaryDirectory() as folder:
...     blobs = FileBlobs(pathlib.Path(folder))
...     blob = blobs.put(b"abc")
...     blobs.get(blob.digest).read(1, 2)
b'bc'
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import sqlite3
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from uuid import uuid4

from reuna.adapters.spares import Spares
from reuna.core.errors import Corrupted, DiskFull, NotUsable, StorageError
from reuna.core.ports import Blob
from reuna.wire import BLOCK, LOT, BlockHasher, hashes_of

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
#: The bytes on the disk may be whole: they are kept from us, or the path is wrong.
_KEPT_FROM_US = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}
#: The same of a database, by SQLite's primary codes; another process may hold it.
_SQLITE_KEPT = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
}
_TEMPORARY = ".part"
_HALF = ".half"  #: of a blob on its way, after its digest; another process goes on with it
HALVES = 4  #: of those, the newest that a process finds when it begins
SPARES = 2  #: of what was dropped, at most: a model, and the step to it
HASHES_KEPT = 256  #: blobs known to be good, 32 bytes for each of their blocks


def is_digest(text: str) -> bool:
    """Whether the text has the form of a digest; nothing else becomes a file name."""
    return _DIGEST.match(text) is not None


def storage_error(error: OSError, path: Path) -> StorageError:
    """The system's error as one of ours."""
    if error.errno in _FULL:
        return DiskFull(f"no space left for {path.name} in {path.parent}")
    said = f"{path}: {os.strerror(error.errno or errno.EIO)}"
    return NotUsable(said) if error.errno in _KEPT_FROM_US else Corrupted(said)


def system_error(error: OSError) -> StorageError | None:
    """What the system said of a file that a person named, as one of ours; None for what is about no file."""
    if error.errno in _FULL:
        return DiskFull(f"no space left on the device{f' for {error.filename}' if error.filename else ''}")
    return NotUsable(f"{error.filename}: {error.strerror}") if error.filename else None


def database_error(error: sqlite3.Error | OSError, path: Path) -> StorageError:
    """SQLite's error, or the system's, as one of ours."""
    if isinstance(error, OSError):
        return storage_error(error, path)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return DiskFull(f"no space left for {path.name} in {path.parent}")
    if code in _SQLITE_KEPT:
        return NotUsable(f"{path}: {error}")
    return Corrupted(f"{path}: {error}")


def written_how(database: sqlite3.Connection) -> str:
    """How an open connection writes, read back from it: ``journal_mode=wal synchronous=2`` is durable."""
    found = {
        name: database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
    }
    return " ".join(f"{name}={value}" for name, value in found.items())


class Database(sqlite3.Connection):
    """Closed with the store that holds it, which is there as long as its process or command.

    From Python 3.13 on SQLite's own complains when nobody has closed it.
    """

    def __del__(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # it could not be opened
            self.close()


def open_database(path: Path, wait_s: float, mode: int = 0o777) -> Database:
    """A database for several threads, in a folder made with ``mode``; its first write makes the file.

    ``wait_s`` is for another process that writes. Raises `NotUsable`, `DiskFull`, `Corrupted`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=mode)
        path.touch(0o600)
        return sqlite3.connect(
            path, timeout=wait_s, check_same_thread=False, isolation_level=None, factory=Database
        )
    except (OSError, sqlite3.Error) as error:
        raise database_error(error, path) from error


def read_at_most(path: Path, limit: int) -> bytes | None:
    """A file's bytes, at most one more than ``limit``; None when there is none. A pipe is no file.

    Raises `Corrupted`.
    """
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise storage_error(error, path) from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal, read in pieces. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write every byte; the system may take fewer at a time. Raises `OSError`."""
    written = os.write(fd, data)
    if written < len(data):
        write_all(fd, memoryview(data)[written:])


def remember(known: dict[str, bytes], digest: str, hashes: bytes) -> None:
    """Keep the hashes of a blob's blocks, and forget the oldest of many."""
    known[digest] = hashes
    if len(known) > HASHES_KEPT:
        known.pop(next(iter(known)), None)


class FileBlob:
    """A blob in a file. Opened for each read (10 µs), but by `opened`: a round may have thousands of them."""

    __slots__ = ("digest", "hashes", "path", "size")

    def __init__(self, path: Path, digest: str, size: int, hashes: bytes = b"") -> None:
        self.path = path
        self.digest = digest
        self.size = size
        self.hashes = hashes

    def read(self, offset: int, count: int) -> bytes:
        """Bytes from ``offset``, fewer only at the end. Raises `Corrupted` when it is cut short."""
        fd = self.open()
        try:
            return self.read_from(fd, offset, count)
        finally:
            os.close(fd)

    def open(self) -> int:
        """Its file. Raises `Corrupted`, `NotUsable`."""
        try:
            return os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise storage_error(error, self.path) from error

    def read_from(self, fd: int, offset: int, count: int) -> bytes:
        """As `read`, from what `open` gave."""
        try:
            data = os.pread(fd, count, offset)
        except OSError as error:
            raise storage_error(error, self.path) from error
        if len(data) < min(count, self.size - offset):
            raise Corrupted(f"{self.path.name} ends before its {self.size} bytes")
        return data


@contextmanager
def opened(blob: Blob) -> Iterator[Callable[[int, int], bytes]]:
    """How to read a blob in many pieces: what lies in a file is opened once. Raises as `FileBlob.read`.

    While it is read nobody writes over it, also when it is dropped (`Spares`).
    """
    if not isinstance(blob, FileBlob):
        yield blob.read
        return
    fd = blob.open()
    try:
        with suppress(
            BlockingIOError
        ):  # its writer has not closed it yet, or it was dropped this very moment
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield partial(blob.read_from, fd)
    finally:
        os.close(fd)


class HeldBlob:
    """A small blob in memory."""

    __slots__ = ("data", "digest", "hashes", "size")

    def __init__(self, data: bytes, digest: str, hashes: bytes = b"") -> None:
        self.data = data
        self.digest = digest
        self.size = len(data)
        self.hashes = hashes

    def read(self, offset: int, count: int) -> bytes:
        """Bytes from ``offset``, fewer only at the end."""
        return self.data[offset : offset + count]


class FileBlobs:
    """The `Blobs` port on a folder; several processes may share it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._spares = Spares(folder / "spare", SPARES)
        self._spares.clear()  #: of whoever was here before
        self._checked: dict[str, bytes] = {}  #: digest → hashes of the blocks, of files known to be good
        _remove_abandoned(folder)

    def put(self, data: bytes) -> FileBlob:
        """Keep bytes durably. Raises `DiskFull`."""
        writer = self.new(len(data))
        writer.write(data)
        return writer.seal()

    def get(self, digest: str) -> FileBlob | None:
        """The blob, or None; a file that does not match its digest is removed."""
        if not is_digest(digest):
            return None
        path = self._folder / digest
        try:
            blob = FileBlob(path, digest, path.stat().st_size)
        except FileNotFoundError:
            return None
        blob.hashes = self._checked.get(digest, b"")
        if not blob.hashes:
            blob.hashes = hashes_of(blob)
            if hashlib.sha256(blob.hashes).hexdigest() != digest:
                self.drop(digest)
                return None
            remember(self._checked, digest, blob.hashes)
        return blob

    def know(self, digest: str, hashes: bytes) -> None:
        """See `Blobs.know`: such a file is not read again to check it."""
        if hashlib.sha256(hashes).hexdigest() == digest:
            remember(self._checked, digest, hashes)

    def new(self, size: int) -> FileWriter:
        """A writer for a blob of about ``size`` bytes. Raises `DiskFull`."""
        return FileWriter(self._folder, self._checked, size, self._spares if size > BLOCK else None)

    def half(self, digest: str, size: int) -> HalfFile:
        """See `Landing.half`. Who comes second while another writes begins anew, beside it."""
        spares = self._spares if size > BLOCK else None
        try:
            return HalfFile(self._folder, self._checked, size, spares, f"{digest}{_HALF}")
        except BlockingIOError:
            return HalfFile(self._folder, self._checked, size, None, f"{uuid4().hex}{_TEMPORARY}")

    def force(self, digest: str) -> None:
        """See `Blobs.force`. Raises `DiskFull`, and then has the blob no more."""
        path = self._folder / digest
        try:
            with path.open("rb") as file:
                os.fsync(file.fileno())
            sync_folder(self._folder)
        except OSError as error:
            self.drop(digest)
            raise storage_error(error, path) from error

    def drop(self, digest: str, reuse: bool = False) -> None:
        """See `Blobs.drop`; a large one is written over by the next that is large."""
        if not reuse:
            self._spares.clear()
        if not is_digest(digest):
            return
        path = self._folder / digest
        if reuse and path.is_file() and path.stat().st_size > BLOCK:
            self._spares.give(path)
        else:
            path.unlink(missing_ok=True)
        self._checked.pop(digest, None)

    def prune(self, keep: Collection[str], reuse: bool = False) -> None:
        """See `Blobs.prune`."""
        for path in self._folder.iterdir():
            if path.name not in keep:
                self.drop(path.name, reuse)
            if path.suffix == _HALF and path.stem not in keep:
                _remove_unless_written(path)


class FileWriter:
    """A temporary file that gets its digest for a name."""

    def __init__(
        self, folder: Path, checked: dict[str, bytes], size: int, spares: Spares | None, name: str = ""
    ) -> None:
        """``name``: of a file that may be there already. Raises `BlockingIOError` where another writes it."""
        self._folder = folder
        self._checked = checked
        self._hasher = BlockHasher()
        self._size = 0
        self._path = folder / (name or f"{uuid4().hex}{_TEMPORARY}")
        try:
            self._over = spares is not None and spares.take(self._path, size)
            new = 0 if name or self._over else os.O_EXCL
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | new, 0o600)
        except OSError as error:
            raise storage_error(error, self._path) from error
        self._close = weakref.finalize(self, os.close, self._fd)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._close()
            raise

    def write(self, data: bytes | memoryview, hashes: bytes = b"") -> None:
        """Take whole blocks. Raises `DiskFull`, and then leaves nothing behind."""
        try:
            write_all(self._fd, data)
        except OSError as error:
            self.abandon()
            raise storage_error(error, self._path) from error
        self._hasher.feed(data, hashes)
        self._size += len(data)

    def seal(self, durable: bool = True) -> FileBlob:
        """Give the file its name. Raises `DiskFull`, `Corrupted`.

        One that is not to be durable takes the place of none that is there: that one may be.
        """
        digest = self._hasher.digest()
        path = self._folder / digest
        try:
            self._end_at(self._size)
            if durable:
                os.fsync(self._fd)
            if durable or not (digest in self._checked and path.exists()):
                self._path.replace(path)
                self._close()
            else:
                self.abandon()
            if durable:
                sync_folder(self._folder)
        except OSError as error:
            self.abandon()
            raise storage_error(error, path) from error
        hashes = b"".join(self._hasher.hashes)
        remember(self._checked, digest, hashes)
        return FileBlob(path, digest, self._size, hashes)

    def _end_at(self, size: int) -> None:
        """Cut off what a file that is written over had behind that."""
        if self._over and os.fstat(self._fd).st_size > size:
            os.ftruncate(self._fd, size)

    def abandon(self) -> None:
        """Remove what was written."""
        self._path.unlink(missing_ok=True)
        self._close()


class HalfFile(FileWriter):
    """A file that has the name of the blob that it is to be, and stays when its writer ends.

    What a spare still has behind what came is cut off as soon as the line is: nobody takes it for what came.
    A process that is killed meanwhile leaves it, and the next finds that it does not match.
    """

    def __init__(
        self, folder: Path, checked: dict[str, bytes], size: int, spares: Spares | None, name: str
    ) -> None:
        super().__init__(folder, checked, size, spares, name)
        self._there = 0 if self._over else min(os.fstat(self._fd).st_size, size)

    def found(self) -> Iterator[bytes]:
        """See `HalfWriter.found`. Raises `Corrupted`."""
        for at in range(0, self._there, LOT):
            try:
                yield os.pread(self._fd, min(LOT, self._there - at), at)
            except OSError as error:
                raise storage_error(error, self._path) from error

    def note(self, tail: bytes) -> None:
        """See `HalfWriter.note`."""
        with suppress(OSError):
            os.pwrite(self._fd, tail, self._size)
            self._end_at(self._size + len(tail))
            self._over = False

    def suspend(self) -> None:
        """See `HalfWriter.suspend`."""
        with suppress(OSError):
            self._end_at(self._size)
        self._close()


def _remove_abandoned(folder: Path) -> None:
    """Remove temporary files whose writer is gone, and all but the newest halves."""
    halves = sorted(folder.glob(f"*{_HALF}"), key=_changed_at)
    for path in (*folder.glob(f"*{_TEMPORARY}"), *halves[:-HALVES]):
        _remove_unless_written(path)


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _remove_unless_written(path: Path) -> None:
    """A living writer holds a lock on its file."""
    try:
        fd = os.open(path, os.O_WRONLY)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return
    finally:
        os.close(fd)


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write beside and rename: whoever reads ``path`` finds the old bytes or the new, whole and durable.

    Raises `DiskFull`, `NotUsable` and `Corrupted`.
    """
    beside = path.with_name(f".{path.name}.{uuid4().hex}{_TEMPORARY}")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        if error.errno == errno.ENOENT:
            raise NotUsable(f"{path}: there is no folder {path.parent}") from error
        raise storage_error(error, path) from error
