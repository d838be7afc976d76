"""A node's ledger in a folder: files that only grow, each record on the disk before `append` returns.

FOLDER/000000000000.ledger    records behind their lengths; the name is the number of the first
FOLDER/000000004711.ledger    the next file, begun when the one before had grown to its size
FOLDER/lock                   held by the one process that writes

Records that many threads append at once share one fsync. What a crash left of the last record is
cut off when the ledger is opened, and recorded; any other damage is an error, and nothing can be
appended, so that nothing leaves the node.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import DecodeError

from reuna.adapters.files import replace_file, storage_error, sync_folder
from reuna.core.errors import Corrupted, DiskFull, LedgerProblem, ReunaError, StorageError
from reuna.core.ports import Clock
from reuna.trust import ledger
from reuna.trust.heads import Keys, Signer, add_head, open_countersignature
from reuna.trust.ledger import Entry, Owner, State
from reuna.trust.ledger_verify import Fault, follow

SEGMENT_BYTES = 4 * 1024 * 1024  #: a file that has grown so far gets no more records
FILE = re.compile(r"[0-9]{12}\.ledger")
BESIDE = "countersigned"  #: the cloud's newest countersignature, in hexadecimal, beside the ledger
_LOCK = "lock"
_AGAIN = "Nothing is sent until the disk is in order and the node was started again."


class _Ticket:
    """One entry that a thread waits for."""

    __slots__ = ("done", "entry", "error", "seq")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.seq = -1
        self.error: ReunaError | None = None
        self.done = False


class _Batch:
    """Records that become durable together: the ledger as it will be, and its new bytes."""

    def __init__(self, state: State, signer: Signer, now_ms: int) -> None:
        self.state = state
        self.head: bytes | None = None
        self.data = b""
        self._signer = signer
        self._now_ms = now_ms

    def add(self, entry: Entry) -> int:
        """Its number. Raises `LedgerProblem`, and then the batch is as before.

        An entry that waited while others were written gets the time of its own writing, so that times
        go back only when the clock does.
        """
        self._sign_before()
        if entry.time_ms < self.state.time_ms <= self._now_ms:
            entry = msgspec.structs.replace(entry, time_ms=self._now_ms)
        state, raw = (ledger.add_own if entry.kind in ledger.OWN else ledger.append)(self.state, entry)
        self._take(state, raw)
        return state.seq - 1

    def sign(self) -> None:
        state, raw = add_head(self.state, self._signer, self._now_ms)
        self.head = ledger.read_record(raw).entry.statement
        self._take(state, raw)

    def sign_if_due(self) -> None:
        if ledger.head_due(self.state, self._now_ms):
            self.sign()

    def _sign_before(self) -> None:
        if ledger.head_needed(self.state):
            self.sign()

    def _take(self, state: State, raw: bytes) -> None:
        self.state = state
        self.data += ledger.framed(raw)


class Place(msgspec.Struct, frozen=True):
    """Where a record begins: name of the file, byte in it, the record's number."""

    file: str
    offset: int
    seq: int


class Mark(msgspec.Struct, frozen=True):
    """Where a ledger ended once, so that an opening need not read what is before."""

    place: Place
    state: State
    head: bytes | None


class LedgerFile:
    """The writer; one process has one. Safe to use from several threads.

    ``dropped`` is how many bytes of a torn record were cut off at opening, ``head`` the newest
    signed head, for the cloud to countersign.
    """

    def __init__(
        self,
        folder: Path,
        signer: Signer,
        clock: Clock,
        segment_bytes: int = SEGMENT_BYTES,
        since: Mark | None = None,
    ) -> None:
        """Open, or begin, the ledger in ``folder``; what is before ``since`` is not read.

        Raises `LedgerProblem` (another process writes it, or it is another node's), `Corrupted`
        (a record is damaged; its number is named), `DiskFull`.
        """
        self._folder = folder
        self._signer = signer
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._queue: list[_Ticket] = []
        self._queueing = threading.Lock()
        self._committing = threading.Lock()
        self._broken: str | None = None  #: why nothing can be written
        self._file: int | None = None
        self._size = 0
        self.dropped = 0
        self.head: bytes | None = None
        self._lock: int | None = _take_lock(folder)
        try:
            self._open(since)
        except BaseException:
            self.close()
            raise

    @property
    def key(self) -> bytes:
        """The public key that heads are signed with, 32 bytes."""
        return self._signer.public

    @property
    def state(self) -> State:
        """Where the ledger ends."""
        return self._state

    def append(self, entry: Entry) -> int:
        """Write one entry; it is on the disk when its number is returned.

        Raises `LedgerProblem` (an entry that is not the caller's to write, or could not be read
        again), `DiskFull` (nothing was written; the next may be), `Corrupted` (the disk failed:
        nothing can be written until the ledger is opened again).
        """
        return self.append_all([entry])[0]

    def append_all(self, entries: Sequence[Entry]) -> list[int]:
        """`append` for several at once: one write, one force."""
        own = next((entry.kind for entry in entries if entry.kind in ledger.OWN), None)
        if own is not None:
            raise LedgerProblem(f"an entry of kind {own} is written by the ledger itself")
        return self._append(entries)

    def sign(self) -> bytes | None:
        """Sign what was not signed yet; the newest head. To be called when the node falls silent."""
        with self._committing:
            if self._state.unsaid:
                batch = self._batch()
                batch.sign()
                self._commit(batch)
        return self.head

    def countersigned(self, statement: bytes, cloud: frozenset[bytes]) -> int:
        """Keep the cloud's countersignature of a head. Raises `Untrusted`, and as `append`."""
        head = open_countersignature(statement, Keys(frozenset({self._signer.public}), cloud))
        if head.ledger != self._state.owner.ledger:
            raise LedgerProblem(f"a countersignature of another ledger of {head.node}")
        number = self._append([Entry(time_ms=self._now(), kind="countersigned", statement=statement)])[0]
        replace_file(self._folder / BESIDE, statement.hex().encode() + b"\n", 0o640)
        return number

    def mark(self) -> Mark:
        """Where the ledger ends now."""
        with self._committing:
            return Mark(
                Place(segments(self._folder)[-1].name, self._size, self._state.seq), self._state, self.head
            )

    def close(self) -> None:
        """Let the next process write. Every record is on the disk already."""
        with self._committing:
            for fd in (self._file, self._lock):
                if fd is not None:
                    os.close(fd)
            self._file = self._lock = None
            self._broken = "the ledger was closed"

    # --- opening ---------------------------------------------------------------------------------

    def _open(self, since: Mark | None) -> None:
        state, self.head = (None, None) if since is None else (since.state, since.head)
        files = segments(self._folder)
        for path, offset in _files_from(files, since.place if since else None):
            found = ledger.split(_bytes_of(path, offset))
            for raw in found.records:
                state = self._follow(state, raw)
            self._size = offset + sum(4 + len(raw) for raw in found.records)
            if found.rest:
                index = 0 if state is None else state.seq
                self._drop(path, found.rest, index, is_last=path == files[-1])
        if files:
            self._file = _open_file(files[-1])
        if state is None:
            state = self._begin()
        self._state = state
        if self.dropped:
            self._append([_recovered(self.dropped, self._now())])

    def _follow(self, state: State | None, raw: bytes) -> State:
        step = follow(state, raw, frozenset())
        if isinstance(step, Fault):
            raise Corrupted(f"the ledger in {self._folder} is damaged, {step.message}", _AGAIN)
        if step.state.owner.key != self._signer.public:
            raise LedgerProblem(
                f"the ledger in {self._folder} was begun with another key",
                "Give the node the key that it had, or another folder to begin a new ledger.",
            )
        if step.record.entry.kind == "head":
            self.head = step.record.entry.statement
        return step.state

    def _drop(self, path: Path, rest: bytes, index: int, is_last: bool) -> None:
        if not is_last or not ledger.is_torn(rest, self._size):
            raise Corrupted(f"{path} is damaged in record {index}", _AGAIN)
        try:
            os.truncate(path, self._size)
        except OSError as error:
            raise storage_error(error, path) from error
        self.dropped = len(rest)

    def _begin(self) -> State:
        owner = Owner(secrets.token_hex(16), self._signer.site, self._signer.node, self._signer.public)
        state, raw = ledger.begin(owner, self._now())
        self._write(0, ledger.framed(raw))
        return state

    # --- writing -----------------------------------------------------------------------------------

    def _append(self, entries: Sequence[Entry]) -> list[int]:
        tickets = [_Ticket(entry) for entry in entries]
        with self._queueing:
            self._queue += tickets
        with self._committing:  # whoever comes first writes for all that wait behind
            if not all(ticket.done for ticket in tickets):
                self._commit_queue()
        error = next((ticket.error for ticket in tickets if ticket.error is not None), None)
        if error is not None:
            raise type(error)(error.message, error.next_step) from error
        return [ticket.seq for ticket in tickets]

    def _commit_queue(self) -> None:
        with self._queueing:
            tickets, self._queue = self._queue, []
        for ticket in tickets:  # what stays so if we are interrupted
            ticket.done, ticket.error = True, Corrupted("the write to the ledger was interrupted", _AGAIN)
        batch = self._batch()
        outcomes = [_add(batch, ticket) for ticket in tickets]
        batch.sign_if_due()
        try:
            self._commit(batch)
        except StorageError as error:
            outcomes = [error] * len(tickets)
        for ticket, outcome in zip(tickets, outcomes, strict=True):
            ticket.error = outcome

    def _batch(self) -> _Batch:
        return _Batch(self._state, self._signer, self._now())

    def _commit(self, batch: _Batch) -> None:
        if batch.data:
            self._write(self._state.seq, batch.data)
        self._state = batch.state
        self.head = batch.head or self.head

    def _write(self, first: int, data: bytes) -> None:
        """Make ``data`` durable at the end, all of it or nothing. ``first``: number of its first record."""
        if self._broken is not None:
            raise Corrupted(f"nothing can be written to the ledger in {self._folder}: {self._broken}", _AGAIN)
        self._broken = "a write was interrupted"
        try:
            if self._file is None or self._size >= self._segment_bytes:
                self._begin_file(first)
            assert self._file is not None
            _write_at(self._file, data, self._size)
            os.fsync(self._file)
        except OSError as error:
            self._take_back(storage_error(error, self._folder / _name(first)))
        self._size += len(data)
        self._broken = None

    def _take_back(self, error: StorageError) -> None:
        """Leave nothing half-written on a full disk; after another failure nobody knows what is there."""
        self._broken = error.message
        if isinstance(error, DiskFull):
            try:
                if self._file is not None:
                    os.ftruncate(self._file, self._size)
            except OSError as failed:
                self._broken = os.strerror(failed.errno or errno.EIO)
            else:
                self._broken = None
        raise error

    def _begin_file(self, first: int) -> None:
        path = self._folder / _name(first)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        try:
            sync_folder(self._folder)
        except OSError:
            os.close(fd)
            path.unlink()
            raise
        if self._file is not None:
            os.close(self._file)
        self._file, self._size = fd, 0

    def _now(self) -> int:
        return int(self._clock.now() * 1000)


def segments(folder: Path) -> list[Path]:
    """The ledger's files in order."""
    return sorted(path for path in folder.glob("*.ledger") if FILE.fullmatch(path.name))


def read(folder: Path) -> Iterator[bytes]:
    """Each record's bytes, for `ledger_verify.verify`; also while another process writes.

    Bytes that are no whole record come as they are, so that they are judged; only what a living
    writer has not finished is left out. Raises `LedgerProblem` when there is no ledger, `Corrupted`.
    """
    files = segments(folder)
    if not files:
        raise LedgerProblem(f"no ledger in {folder}", "Name the folder that holds the files *.ledger.")
    for path in files:
        found = ledger.split(_bytes_of(path))
        yield from found.records
        if found.rest and not (path == files[-1] and _is_being_written(folder)):
            yield found.rest


def entries(folder: Path, since: Place | None = None) -> Iterator[tuple[int, Entry]]:
    """Numbers and entries of a ledger, none when there is none yet; for counting, it checks no link.

    What a crash left of the last record is left out. Raises `Corrupted` for other damage.
    """
    number, files = since.seq if since else 0, segments(folder)
    for path, offset in _files_from(files, since):
        data = _bytes_of(path, offset)
        found = ledger.split(data)
        for raw in found.records:
            yield number, _entry(raw, number, path)
            number += 1
        at = offset + len(data) - len(found.rest)
        if found.rest and not (path == files[-1] and ledger.is_torn(found.rest, at)):
            raise Corrupted(f"{path} is damaged in record {number}", _AGAIN)


def after(folder: Path, since: Place | None) -> Iterator[tuple[bytes, Place]]:
    """Whole records from a place on, each with the place behind it; also while another process writes."""
    number = since.seq if since else 0
    for path, first in _files_from(segments(folder), since):
        offset = first
        for raw in ledger.split(_bytes_of(path, first)).records:
            offset, number = offset + 4 + len(raw), number + 1
            yield raw, Place(path.name, offset, number)


def file_with(folder: Path, seq: int) -> Place | None:
    """The beginning of the file that holds a record, by the files' names."""
    firsts = [int(path.stem) for path in segments(folder)]
    first = max((each for each in firsts if each <= seq), default=None)
    return None if first is None else Place(_name(first), 0, first)


def is_there(folder: Path, place: Place) -> bool:
    """Whether the ledger still reaches to a place."""
    path = folder / place.file
    return path.is_file() and path.stat().st_size >= place.offset


def _files_from(files: Sequence[Path], since: Place | None) -> list[tuple[Path, int]]:
    """Files from a place on, and the byte to begin at in each."""
    if since is None:
        return [(path, 0) for path in files]
    return [
        (path, since.offset if path.name == since.file else 0) for path in files if path.name >= since.file
    ]


def _entry(raw: bytes, number: int, path: Path) -> Entry:
    try:
        return ledger.read_record(raw).entry
    except DecodeError as error:
        raise Corrupted(f"{path} is damaged in record {number}: {error}", _AGAIN) from error


def _add(batch: _Batch, ticket: _Ticket) -> ReunaError | None:
    try:
        ticket.seq = batch.add(ticket.entry)
    except LedgerProblem as error:
        return error
    return None


def _recovered(dropped: int, now_ms: int) -> Entry:
    reason = "part of a record that was never acknowledged was cut off at start"
    return Entry(time_ms=now_ms, kind="recovered", payload_bytes=dropped, reason=reason)


def _name(first: int) -> str:
    return f"{first:012}.ledger"


def _bytes_of(path: Path, offset: int = 0) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except OSError as error:
        raise storage_error(error, path) from error


def _open_file(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY)
    except OSError as error:
        raise storage_error(error, path) from error


def _write_at(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written


def _take_lock(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o640)
    except OSError as error:
        raise storage_error(error, folder) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise LedgerProblem(
            f"another process writes the ledger in {folder}", "Stop the other node that uses this folder."
        ) from error
    return fd


def _is_being_written(folder: Path) -> bool:
    try:
        fd = os.open(folder / _LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
