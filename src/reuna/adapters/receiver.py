"""The `Receiver` port on any spool: blocks in, a check of the whole, then the durable row."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial

from reuna.core.errors import Refused, ReunaError
from reuna.core.ports import Blob, BlobWriter, Entry, Receiver, Spool
from reuna.core.records import Contribution, Receipt

#: Judges a whole contribution. Raises `Refused`.
Validate = Callable[[Contribution, Blob | None], None]


class SpoolReceiver:
    """One upload. ``validate`` runs where `commit` runs: off the event loop, before the row."""

    def __init__(self, spool: Spool, manifest: Contribution, validate: Validate) -> None:
        self._spool = spool
        self._manifest = manifest
        self._validate = validate
        self._writer: BlobWriter | None = spool.begin(manifest) if manifest.size else None
        self.offset = spool.held(manifest) if manifest.size else 0

    def write(self, data: bytes | memoryview, hashes: bytes = b"") -> None:
        """Take whole blocks. Raises `Refused` for more bytes than announced, `DiskFull`."""
        if self._writer is None or self.offset + len(data) > self._manifest.size:
            raise Refused("oversized", f"{self._manifest.sender} sent more than it announced")
        self._writer.write(data, hashes)
        self.offset += len(data)

    def suspend(self) -> None:
        """Keep the whole blocks for a later try."""
        self._writer = None

    def commit(self) -> Receipt:
        """Validate, make durable, record. Blocking. Raises `Refused`, `DiskFull`, `Corrupted`."""
        (end,) = commit_all(self._spool, [self])
        if isinstance(end, ReunaError):
            raise end
        return end

    def committing(self) -> Generator[Entry, None, Receipt]:
        """Gives what is to be recorded, and is resumed once it is durable, or with why it is not."""
        try:
            body = self._sealed()
            self._validate(self._manifest, body)
            yield self._manifest, body
        except Refused:
            if self._writer is not None:
                self._writer.abandon()
            raise
        finally:
            self._writer = None
        return receipt_of(self._manifest)

    def _sealed(self) -> Blob | None:
        if not self._manifest.size:
            return None
        if self._writer is None or self.offset != self._manifest.size:
            raise Refused("digest", f"{self._manifest.sender} sent {self.offset} bytes")
        body = self._writer.seal()
        if body.digest != self._manifest.digest:
            raise Refused("digest", f"{self._manifest.sender}'s body does not match its digest")
        return body


def commit_all(spool: Spool, receivers: Sequence[Receiver]) -> list[Receipt | ReunaError]:
    """Commit them together, each as if it were alone: what came of each. Blocking."""
    steps = [each.committing() for each in receivers]
    ends = [_further(partial(next, step)) for step in steps]
    entries = {index: end for index, end in enumerate(ends) if isinstance(end, tuple)}
    errors = spool.commit_all(list(entries.values())) if entries else ()
    for index, error in zip(entries, errors, strict=True):
        step = steps[index]
        ends[index] = _further(partial(next, step) if error is None else partial(step.throw, error))
    return [end for end in ends if not isinstance(end, tuple)]


def _further(go_on: Callable[[], Entry]) -> Entry | Receipt | ReunaError:
    """What a commit comes to next."""
    try:
        return go_on()
    except StopIteration as end:
        receipt: Receipt = end.value
        return receipt
    except ReunaError as error:
        return error


def receipt_of(row: Contribution) -> Receipt:
    """The parent's word for a committed row."""
    return Receipt(row.run, row.round, row.attempt, row.sender, row.digest)
