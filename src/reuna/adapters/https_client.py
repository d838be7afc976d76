"""Freight over HTTPS, the node's side: the `BlobStore` port over the standard library.

Requests run in a few threads on connections that stay open. A download is checked block by
block as it comes and goes on after a cut at the byte where it ended, also when the fetch was given
up and asked for again; an upload goes on where the parent says. What the parent answers is documented
in `reuna.adapters.https_server`; this module imports nothing from there, since an edge carries no server.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TypeVar

import msgspec

from reuna.adapters.http_answer import HttpAnswer, is_number
from reuna.adapters.https_line import CutError, Job, Lines, Place
from reuna.adapters.threads import Threads
from reuna.core.errors import (
    BadMessage,
    BlobNotFound,
    Corrupted,
    PermissionDenied,
    Refused,
    ReunaError,
    Unreachable,
    Untrusted,
)
from reuna.core.foreign import UNREADABLE
from reuna.core.line import Rates, rate_of
from reuna.core.ports import Blob, HalfWriter, Landing, Make
from reuna.core.records import Contribution, Receipt
from reuna.core.second import Opinions
from reuna.wire import BLOCK, HASH_SIZE, LIMITS, LOT, decode, encode, hash_blocks

TOLD_S = 1.0  #: between two words about a blob that is slow to come
TRIES = 5  #: without a new good block in between
FIRST_WAIT_S = 0.05
LAST_WAIT_S = 1.0
THREADS = 4
HALVES = 4  #: blobs whose transfer was given up half way, kept to go on with

T = TypeVar("T")
#: Told once of each payload that came down: its digest or what it is, and its bytes.
Came = Callable[[str, int], None]
#: Told now and then of a blob that is slow to come, in a thread: its digest, bytes that came, all.
Comes = Callable[[str, int, int], None]
#: Told what the line carries, in bytes a second.
Paced = Callable[[float], None]


def _not_paced(rate: float) -> None:
    """Where nobody asks."""


def _nobody_waits(digest: str, done: int, size: int) -> None:
    """Where nobody asks."""


def _not_told(what: str, size_bytes: int) -> None:
    """Where nobody counts."""


class _BadBlockError(Exception):
    """A block came that does not match its hash."""


class _Problem(msgspec.Struct):
    """Body of an answer that refuses."""

    reason: str = "malformed"
    message: str = ""


class HttpsFreight:
    """The `BlobStore` port. ``blobs`` takes what is fetched.

    With ``durable`` a blob is on the disk when `fetch` returns. ``context`` must hold this node's
    certificate and check the parent's (`reuna.adapters.tls.client_context`).
    """

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext,
        blobs: Landing,
        came: Came = _not_told,
        durable: bool = False,
    ) -> None:
        self._came = came
        self._durable = durable
        self._lines = Lines(host, port, context)
        self._blobs = blobs
        self._threads = Threads(THREADS, "freight")
        self._flights: dict[str, asyncio.Task[Blob]] = {}
        self._halves: dict[str, Half] = {}
        self._jobs: set[Job] = set()
        self.rates = Rates()
        self.on_comes: Comes = _nobody_waits

    async def fetch(self, digest: str, size: int) -> Blob:
        """See `BlobStore.fetch`. Calls for the same digest share one transfer."""
        held = self._blobs.get(digest)
        if held is not None:
            return held
        flight = self._flights.get(digest)
        if flight is None:
            flight = asyncio.create_task(self._run(lambda job: self._download(job, digest, size)))
            self._flights[digest] = flight
            flight.add_done_callback(lambda done: self._landed(digest, done))
        return await asyncio.shield(flight)

    def _landed(self, digest: str, flight: asyncio.Task[Blob]) -> None:
        self._flights.pop(digest, None)
        if not flight.cancelled() and flight.exception() is None:  # seen, even when every caller has gone
            self._came(digest, flight.result().size)

    async def send(self, manifest: Contribution, body: Blob | None) -> Receipt:
        """See `BlobStore.send`."""
        return await self._run(lambda job: Upload(self._lines, job, manifest, body, self._went).run())

    async def send_made(self, make: Make) -> Receipt | None:
        """See `BlobStore.send_made`."""

        def work(job: Job) -> Receipt | None:
            made = make()
            return None if made is None else Upload(self._lines, job, *made, self._went).run()

        return await self._run(work)

    def _went(self, rate: float) -> None:
        self.rates = replace(self.rates, up=rate)

    def _comes(self, rate: float) -> None:
        self.rates = replace(self.rates, down=rate)

    def is_busy(self) -> bool:
        """Whether something is under way that moves, also over a line that was cut a moment ago."""
        now_s = time.monotonic()
        return any(job.moved(now_s) for job in list(self._jobs))

    async def countersign(self, data: bytes) -> bytes:
        """The cloud's countersignature of a head that was shown (an encoded `ShownHead`). One try.

        Raises `Refused`, `Unreachable`.
        """
        return await self._ask("/v1/heads", data, BLOCK, "countersignature")

    async def advise(self, data: bytes) -> bytes:
        """What the fog says of windows (an encoded `Doubtful`): encoded `Opinions`. One try.

        Raises `Refused`, `Unreachable`.
        """
        return await self._ask("/v1/windows", data, LIMITS[Opinions], "opinions")

    async def _ask(self, path: str, data: bytes, limit: int, what: str) -> bytes:
        answer = await self._run(lambda job: self._post(job, path, data, limit))
        self._came(what, len(answer))
        return answer

    def _post(self, job: Job, path: str, data: bytes, limit: int) -> bytes:
        try:
            with self._lines.exchange(job) as line:
                answer = line.send("POST", path, data)
                body = answer.read(limit + 1)
            if answer.status == 200 and len(body) <= limit:
                return body
            raise _refusal(answer.status, body)
        except CutError as error:
            raise Unreachable(f"{path}: {error}") from error

    async def metadata(self, name: str, limit: int) -> bytes | None:
        """See `BlobStore.metadata`."""
        data = await self._run(lambda job: self._metadata(job, name, limit))
        if data is not None:
            self._came("metadata", len(data))
        return data

    def _metadata(self, job: Job, name: str, limit: int) -> bytes | None:
        path = f"/v1/trust/{name}"
        try:
            with self._lines.exchange(job) as line:
                answer = line.get(path, 0)
                data = answer.read(limit + 1)
        except CutError as error:
            raise Unreachable(f"{path}: {error}") from error
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise Unreachable(f"{path}: the parent answers {answer.status}")
        if len(data) > limit:
            raise Untrusted("oversized", f"{name} has more than {limit} bytes")
        return data

    async def close(self) -> None:
        """Give up what runs and close every connection."""
        for job in list(self._jobs):
            job.stop()
        await asyncio.gather(*self._flights.values(), return_exceptions=True)
        await self._threads.close()
        self._lines.close()
        for half in self._halves.values():
            half.writer.suspend()
        self._halves.clear()

    async def _run(self, work: Callable[[Job], T]) -> T:
        """Work in a thread; cancelling the caller cuts its connection."""
        job = Job()
        self._jobs.add(job)
        try:
            return await self._threads(partial(work, job))
        except asyncio.CancelledError:
            job.stop()
            raise
        finally:
            self._jobs.discard(job)

    def _download(self, job: Job, digest: str, size: int) -> Blob:
        """Raises as `BlobStore.fetch`; what came before the line was given up is kept for the next call."""
        half = self._halves.pop(digest, None)
        if half is None or half.size != size:
            half = Half(size, self._blobs.half(digest, size))
        try:
            return Download(
                self._lines, job, self._blobs, digest, half, self._durable, self._comes, self.on_comes
            ).run()
        except Unreachable:
            self._halves[digest] = half
            while len(self._halves) > HALVES:
                self._halves.pop(next(iter(self._halves))).writer.abandon()
            raise
        except ReunaError:
            half.writer.abandon()
            raise


class _Tries:
    """Counts tries without progress and waits longer each time."""

    def __init__(self, job: Job, what: str) -> None:
        self._job = job
        self._what = what
        self._failed = 0
        self._best = 0

    def progress(self, offset: int) -> None:
        if offset > self._best:
            self._best, self._failed = offset, 0

    def failed(self, error: Exception) -> None:
        """Wait before the next try. Raises `Unreachable` after the last."""
        self._failed += 1
        if self._failed >= TRIES:
            raise Unreachable(f"{self._what}: {error}") from error
        self._job.wait(min(FIRST_WAIT_S * 2 ** (self._failed - 1), LAST_WAIT_S))


class Half:
    """A blob on its way: the blocks that are written, and the bytes of the next that have come."""

    def __init__(self, size: int, writer: HalfWriter) -> None:
        self.size = size
        self.writer = writer
        self.hashes = b""  #: of all its blocks, once they are known
        self.offset = 0  #: bytes written
        self.tail = b""  #: behind them, less than a block, not checked yet

    @property
    def came(self) -> int:
        """The byte from which it goes on."""
        return self.offset + len(self.tail)


class Download:
    """One blob from the parent into ``blobs``."""

    def __init__(
        self,
        lines: Lines,
        job: Job,
        blobs: Landing,
        digest: str,
        half: Half,
        durable: bool = False,
        came: Paced = _not_paced,
        comes: Comes = _nobody_waits,
    ) -> None:
        self._came = came
        self._comes = comes
        self._told_s = time.monotonic()
        self._durable = durable
        self._lines = lines
        self._job = job
        self._blobs = blobs
        self._digest = digest
        self._half = half
        self._size = half.size
        self._bad = 0
        self._tries = _Tries(job, f"blob {digest[:12]}")
        self._tries.progress(half.came)

    def run(self) -> Blob:
        """Blocking. Raises as `BlobStore.fetch`."""
        half = self._half
        if self._size > BLOCK and not half.hashes:
            half.hashes = self._again(self._fetch_hashes)
        if not half.came:
            self._take_up()
        while half.offset < self._size:
            self._again(self._fetch_blocks)
        blob = half.writer.seal(durable=self._durable)
        if blob.digest != self._digest:
            self._blobs.drop(blob.digest)
            raise Corrupted(f"blob {self._digest[:12]} is not what the parent sent")
        return blob

    def _take_up(self) -> None:
        """Go on with what an earlier process left, as far as it is good."""
        with contextlib.suppress(_BadBlockError):
            for data in self._half.writer.found():
                self._keep(memoryview(data))
        self._tries.progress(self._half.came)

    def _again(self, work: Callable[[], T]) -> T:
        """Try until it works, makes no more progress, or brings the same bad block twice."""
        while True:
            try:
                return work()
            except CutError as error:
                self._tries.progress(self._half.came)
                self._tries.failed(error)
            except _BadBlockError as error:
                self._bad += 1
                if self._bad > 1:
                    raise Corrupted(f"blob {self._digest[:12]}: {error}") from error

    def _fetch_hashes(self) -> bytes:
        with self._lines.exchange(self._job) as line:
            path = f"/v1/blobs/{self._digest}/blocks"
            answer = line.get(path, 0)
            _expect_blob(answer, path)
            count = -(-self._size // BLOCK)
            data = answer.read(HASH_SIZE * count)
        if hashlib.sha256(data).hexdigest() != self._digest:
            raise _BadBlockError("its list of blocks does not match its digest")
        return data

    def _fetch_blocks(self) -> None:
        half = self._half
        with self._lines.exchange(self._job) as line:
            path = f"/v1/blobs/{self._digest}"
            answer = line.get(path, half.came)
            _expect_blob(answer, path)
            if answer.length != self._size - half.came:
                raise _BadBlockError(f"the parent's copy has not the {self._size} bytes announced")
            lot = memoryview(bytearray(min(LOT, self._size)))
            first, began = half.came, time.monotonic()
            while half.offset < self._size:
                taken, due = len(half.tail), False
                lot[:taken], half.tail = half.tail, b""
                try:
                    wanted = min(len(lot), self._size - half.offset)
                    while taken < wanted and not due:
                        taken += _read_into(answer, lot[taken : min(taken + BLOCK, wanted)])
                        due = self._is_due()
                finally:  # neither a cut nor the end of this process costs a byte that came
                    self._keep(lot[:taken])
                    if half.tail:
                        half.writer.note(half.tail)
                if due:
                    self._comes(self._digest, half.came, self._size)
            self._tell(self._size - first, time.monotonic() - began)

    def _is_due(self) -> bool:
        """Whether what came is to be written down and told of, as now and then on a slow line."""
        now_s = time.monotonic()
        if now_s - self._told_s < TOLD_S:
            return False
        self._told_s = now_s
        return True

    def _tell(self, came: int, took_s: float) -> None:
        """What the line carried; the first bytes came before anybody looked."""
        if came >= 4 * BLOCK and took_s > 0:
            self._came(came / took_s)

    def _keep(self, data: memoryview) -> None:
        """Write the good blocks, keep the rest. Raises `_BadBlockError` for the first that is not good."""
        half = self._half
        whole = len(data) if half.offset + len(data) == self._size else len(data) // BLOCK * BLOCK
        found = hash_blocks(data[:whole])
        good = self._matching(found)
        count = min(whole, good // HASH_SIZE * BLOCK)
        if count:
            half.writer.write(data[:count], found[:good])
            half.offset += count
            self._bad = 0
        if good < len(found):
            raise _BadBlockError(f"the block at byte {half.offset} does not match its hash")
        half.tail = bytes(data[whole:])

    def _matching(self, found: bytes) -> int:
        """Bytes of the leading hashes that are those announced."""
        hashes = self._half.hashes
        if not hashes:  # a single block
            return len(found) if hashlib.sha256(found).hexdigest() == self._digest else 0
        first = self._half.offset // BLOCK * HASH_SIZE
        pairs = range(0, len(found), HASH_SIZE)
        wrong = (
            at for at in pairs if found[at : at + HASH_SIZE] != hashes[first + at : first + at + HASH_SIZE]
        )
        return next(wrong, len(found))


class Upload:
    """One contribution to the parent."""

    def __init__(
        self, lines: Lines, job: Job, manifest: Contribution, body: Blob | None, went: Paced = _not_paced
    ) -> None:
        self._went = went
        self._lines = lines
        self._job = job
        self._manifest = manifest
        self._body = body
        message = encode(manifest)
        self._head = len(message).to_bytes(4, "little") + message
        self._tries = _Tries(job, f"contribution to round {manifest.round}")

    def run(self) -> Receipt:
        """Blocking. Raises `Refused`, `PermissionDenied`, `Unreachable`.

        The first try sends everything. After a cut the next one offers no byte, which the
        parent answers with the receipt or with the place to go on from.
        """
        place, asking = Place(0), False
        while True:
            try:
                outcome = self._put(place)
            except CutError as error:
                self._tries.failed(error)
                place, asking = Place(self._manifest.size), True
                continue
            if isinstance(outcome, Receipt):
                return outcome
            self._tries.progress(outcome.came)
            if outcome.came <= place.came and not asking:
                self._tries.failed(_BadBlockError(f"the parent asks again for byte {outcome.came}"))
            place, asking = outcome, False

    def _put(self, place: Place) -> Receipt | Place:
        """The receipt, or the place that the parent asks for. Raises `CutError`."""
        left = self._manifest.size - place.offset
        length = len(self._head) + left + HASH_SIZE * -(-left // BLOCK) - place.held
        with self._lines.exchange(self._job) as line:
            began = time.monotonic()
            answer = line.put("/v1/contributions", place, length, self._frames(place))
            body = answer.read(1_048_576)
            if answer.status == 200:  # else not all of it was sent
                rate = rate_of(length, time.monotonic() - began, line.carries())
                if rate is not None:
                    self._went(rate)
        if answer.status == 200:
            return _receipt(body, self._manifest)
        if answer.status == 409:
            return _wanted(answer, self._manifest.size)
        raise _refusal(answer.status, body)

    def _frames(self, place: Place) -> Iterator[bytes]:
        yield self._head
        for at in range(place.offset, self._manifest.size, LOT):
            if self._body is None:
                raise Refused("digest", "the contribution announces a body that is not there")
            lot = _lot(self._body, at, min(LOT, self._manifest.size - at))
            yield lot[place.held :] if at == place.offset else lot


def _lot(body: Blob, at: int, count: int) -> bytes:
    """Blocks with their hashes before them."""
    data = memoryview(body.read(at, count))
    first = at // BLOCK * HASH_SIZE
    known = body.hashes[first : first + HASH_SIZE * -(-count // BLOCK)] or hash_blocks(data)
    parts: list[bytes | memoryview] = []
    for index in range(-(-count // BLOCK)):
        parts.append(known[index * HASH_SIZE : (index + 1) * HASH_SIZE])
        parts.append(data[index * BLOCK : (index + 1) * BLOCK])
    return b"".join(parts)


def _read_into(answer: HttpAnswer, block: memoryview) -> int:
    """Bytes of what there is, at least one."""
    count = answer.readinto(block)
    if not count:
        raise ConnectionResetError("the line was cut within a block")
    return count


def _expect_blob(answer: HttpAnswer, path: str) -> None:
    """Raises what an answer without a blob means."""
    if answer.status in (200, 206):
        return
    problem = _problem(answer.read(BLOCK))
    if answer.status == 404:
        raise BlobNotFound(problem.message or f"the parent does not hold {path}")
    if answer.status == 403:
        raise PermissionDenied(problem.message)
    raise CutError(f"the parent answers {answer.status} {problem.message}")


def _receipt(body: bytes, manifest: Contribution) -> Receipt:
    try:
        receipt = decode(Receipt, body)
    except BadMessage as error:
        raise CutError(f"the parent's receipt: {error}") from error
    if (receipt.run, receipt.round, receipt.attempt, receipt.sender) != manifest.key:
        raise CutError("the parent's receipt is for another contribution")
    return receipt


def _wanted(answer: HttpAnswer, size: int) -> Place:
    """Raises `CutError` for a place that is not in the body."""
    offset, held = answer.header("upload-offset"), answer.header("upload-held", "0")
    if not (is_number(offset) and is_number(held)):
        raise CutError(f"the parent asks for byte {offset[:15]!r}, which is not in the body")
    place = Place(int(offset), int(held))
    if place.offset > size or (place.held and place.held >= HASH_SIZE + min(BLOCK, size - place.offset)):
        raise CutError(f"the parent asks for byte {place.came}, which is not in the body")
    return place


def _refusal(status: int, body: bytes) -> Refused | Unreachable | CutError:
    """What an upload's answer means: final, later, or soon."""
    problem = _problem(body)
    if status == 422:
        return Refused(problem.reason, problem.message)
    if status == 403:
        return Refused("identity", problem.message)
    if status == 507:
        return Unreachable(f"the parent cannot take it now: {problem.message}")
    return CutError(f"the parent answers {status} {problem.message}")


def _problem(body: bytes) -> _Problem:
    try:
        return msgspec.msgpack.decode(body, type=_Problem)
    except UNREADABLE:
        return _Problem()
