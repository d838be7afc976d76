"""Bytes of any length into a writer that takes whole blocks."""

from __future__ import annotations

from reuna.core.ports import Blob, BlobWriter
from reuna.wire import BLOCK


class InBlocks:
    """Gathers what is written until it fills blocks; what is left goes when it is sealed."""

    def __init__(self, writer: BlobWriter, first: bytes = b"") -> None:
        self._writer = writer
        self._pending = bytearray(first)

    def write(self, data: bytes | memoryview) -> None:
        """Raises what the writer raises."""
        self._pending += data
        whole = len(self._pending) // BLOCK * BLOCK
        if whole:
            with memoryview(self._pending) as pending:
                self._writer.write(pending[:whole])
            del self._pending[:whole]

    def seal(self) -> Blob:
        """The blob of all that was written."""
        if self._pending:
            self._writer.write(bytes(self._pending))
        return self._writer.seal()

    def abandon(self) -> None:
        """Forget what was written."""
        self._writer.abandon()
