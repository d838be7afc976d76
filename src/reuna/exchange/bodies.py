"""Bodies of contributions: their integers, plain or packed, and how they are written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import msgspec
import numpy as np

from reuna.core.errors import BadMessage, Refused
from reuna.core.ports import Blob, BlobWriter
from reuna.core.records import Contribution, Plan
from reuna.learn.grid import ALIGNED, LOT, Ints, pack, unpack, within
from reuna.learn.lots import Lots, written
from reuna.loop import train
from reuna.wire import BLOCK

SAMPLE = 4 * LOT  #: values by which is judged whether packing pays
AHEAD = 4  #: pieces
Begin = Callable[[Contribution], BlobWriter]
Between = Callable[[int, int], Ints]  #: so many integers from one on, where a lot begins


class Whole:
    """Passes bytes on to a writer in whole blocks."""

    def __init__(self, writer: BlobWriter) -> None:
        self._writer = writer
        self._pending = bytearray()
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Any number of bytes. Raises what the writer raises."""
        self.size += len(data)
        if not self._pending and len(data) % BLOCK == 0:
            self._writer.write(data)
            return
        self._pending += data
        whole = len(self._pending) // BLOCK * BLOCK
        if whole:
            with memoryview(self._pending) as pending:
                self._writer.write(pending[:whole])
            del self._pending[:whole]

    def seal(self, durable: bool = True) -> Blob:
        """All that was written."""
        if self._pending:
            self._writer.write(bytes(self._pending))
        return self._writer.seal(durable)

    def abandon(self) -> None:
        """Forget what was written."""
        self._writer.abandon()


class Behind(Whole):
    """The same in a thread of its own, at most `AHEAD` pieces behind: they are hashed while others are made.

    A piece stays as it is until it is written. What failed is raised by a later call.
    """

    def __init__(self, writer: BlobWriter) -> None:
        super().__init__(writer)
        self._thread = ThreadPoolExecutor(1, "writes")
        self._ahead: deque[Future[None]] = deque()

    def write(self, data: bytes | memoryview) -> None:
        """As `Whole.write`, soon."""
        self._wait(AHEAD - 1)
        self._ahead.append(self._thread.submit(super().write, data))

    def seal(self, durable: bool = True) -> Blob:
        """All that was written."""
        self._wait(0)
        self._thread.shutdown()
        return super().seal(durable)

    def abandon(self) -> None:
        """Forget what was written."""
        self._thread.shutdown(cancel_futures=True)
        super().abandon()

    def _wait(self, left: int) -> None:
        while len(self._ahead) > left:
            self._ahead.popleft().result()


def open_body(manifest: Contribution, body: Blob) -> Between:
    """Reads integers of a body. Raises `BadMessage`, then or later, for a packed one that is none."""
    if manifest.packed:
        return Lots(body.read, manifest.size, manifest.params).between
    width = manifest.width

    def plain(first: int, count: int) -> Ints:
        return unpack(body.read(first * width, count * width), width)

    return plain


def open_each(manifest: Contribution, body: Blob) -> list[Between]:
    """The same for each update in a body, in the order of its members, and from any integer on.

    Of what is packed the lot read last is kept, so that reading in order unpacks each once.
    """
    size, width, times = manifest.params, manifest.width, train.updates_in(manifest)
    if manifest.packed:
        lots = Lots(body.read, manifest.size, size, times)
        return [_Anywhere(partial(lots.between, time=time), size) for time in range(times)]

    def plain(time: int, first: int, count: int) -> Ints:
        return unpack(body.read((time * size + first) * width, count * width), width)

    each: list[Between] = [partial(plain, time) for time in range(times)]
    return each if width in train.SINGLE_WIDTHS else [_Anywhere(between, size) for between in each]


class _Anywhere:
    """Reads from any integer on what can be read from where a lot begins."""

    def __init__(self, between: Between, params: int) -> None:
        self._between = between
        self._params = params
        self._held: tuple[int, Ints] | None = None

    def __call__(self, first: int, count: int) -> Ints:
        end = first + count
        found = [
            self._lot(number)[max(0, first - number * LOT) : end - number * LOT]
            for number in range(first // LOT, -(-end // LOT))
        ]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _lot(self, number: int) -> Ints:
        if self._held is None or self._held[0] != number:
            first = number * LOT
            self._held = number, self._between(first, min(LOT, self._params - first))
        return self._held[1]


def integers(manifest: Contribution, body: Blob) -> Iterator[Ints]:
    """All integers of a body, lot by lot; of several updates one after the other. Raises `BadMessage`."""
    for between in open_each(manifest, body):
        yield from lot_by_lot(between, manifest.params)


def lot_by_lot(between: Between, params: int) -> Iterator[Ints]:
    """All integers of a sum or an update, lot by lot."""
    return (between(first, min(LOT, params - first)) for first in range(0, params, LOT))


class Check:
    """Judges the body of one contribution: has it only values of the grid, and as many as it must.

    Of plain integers that have a type of their own each block tells, as it comes: what was seen whole is not
    read back. All else, and what came in several tries, is read from where it lies.
    """

    def __init__(self, plan: Plan, manifest: Contribution) -> None:
        bound, fits = train.largest_value(plan, manifest), 2 ** (8 * manifest.width - 1)
        self._width, self._size = manifest.width, manifest.size
        self._holds_all = bound >= fits and not manifest.packed  #: so few bytes hold no other value
        self._bound = min(bound, fits - 1)
        self._sees = manifest.width in ALIGNED and not manifest.packed
        self._seen = 0
        self._outside = False

    def see(self, data: bytes | memoryview) -> None:
        """The next blocks of the body, whole ones but for the last."""
        self._seen += len(data)
        if self._sees and not (self._holds_all or self._outside):
            self._outside = not within(unpack(data, self._width), self._bound)

    def end(self, manifest: Contribution, body: Blob | None) -> None:
        """All has come, and ``body`` is what lies there of it. Raises `Refused`."""
        if body is None or self._holds_all:
            return
        seen = self._sees and self._seen == self._size
        try:
            outside = self._outside if seen else not self._is_within(manifest, body)
        except BadMessage as error:
            raise Refused("malformed", f"{manifest.sender}: {error.message}") from error
        if outside:
            raise Refused("range", f"{manifest.sender} sent values outside the grid")

    def _is_within(self, manifest: Contribution, body: Blob) -> bool:
        return all(within(values, self._bound) for values in integers(manifest, body))


def write_body(
    draft: Contribution, packs: bool, lots: Callable[[], Iterator[Ints]], begin: Begin
) -> tuple[Contribution, Blob]:
    """Integers as a body, packed where that ``packs`` and makes it smaller, and its manifest.

    ``draft`` is the manifest of the plain body, without a digest; ``lots`` gives whole lots, but for the
    last of a sum or an update, each time it is called. Raises `DiskFull`.
    """
    count = draft.params * train.updates_in(draft)
    packed = pack_lots(begin(draft), lots(), draft.width, count) if packs else None
    if packed is not None:
        return train.in_lots(draft, packed.digest, packed.size), packed
    writer = Whole(begin(draft))
    for values in lots():
        writer.write(pack(values, draft.width))
    plain = writer.seal()
    return msgspec.structs.replace(draft, digest=plain.digest), plain


def pack_lots(
    writer: BlobWriter, lots: Iterator[Ints], width: int, count: int, durable: bool = True
) -> Blob | None:
    """``count`` integers, packed; None where that takes ``width`` bytes each, or more.

    The first lots are a sample of the rest. Raises `DiskFull`.
    """
    out, seen = Whole(writer), 0
    for values in lots:
        for lot in written(values):
            out.write(lot)
        seen += len(values)
        if out.size >= seen * width and seen >= min(SAMPLE, count):
            out.abandon()
            return None
    return out.seal(durable)
