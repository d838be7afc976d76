"""A node that starts again reads the end of its ledger: what was before, it has noted and signed.

LEDGER/resume = msgpack [body, signature of the ledger's key]; body = where the ledger ended, and what
`SiteFlows` knew then. It lies in the ledger's folder, so that both are moved or restored together.
Without it, or with one that does not fit, the whole ledger is read. Only `reuna ledger verify` looks
at every record.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from reuna.adapters.files import replace_file
from reuna.adapters.ledger_file import LedgerFile, Mark, is_there
from reuna.core.foreign import UNREADABLE
from reuna.exchange.flows import Memory, SiteFlows
from reuna.trust.dsse import authenticated, is_signed
from reuna.trust.publish import PrivateKey

NOTE = "resume"
EVERY = 2000  #: records; a start reads at most so many more than it must
KIND = b"application/vnd.reuna.ledger-resume.v1"


class Resume(msgspec.Struct, frozen=True):
    """Where the ledger ended, and what was known then."""

    mark: Mark
    memory: Memory


class Resumer:
    """Notes where a node is to go on."""

    def __init__(
        self, ledger_folder: Path, ledger: LedgerFile, flows: SiteFlows, private: PrivateKey
    ) -> None:
        self._file = ledger_folder / NOTE
        self._ledger = ledger
        self._flows = flows
        self._private = private
        self._seq = 0

    def save_if_due(self) -> None:
        """Note it when there is much more than at the last time. Raises `DiskFull`."""
        if self._ledger.state.seq - self._seq >= EVERY:
            self.save()

    def save(self) -> None:
        """Raises `DiskFull`."""
        mark, memory = self._flows.memory(self._ledger.mark)
        body = msgspec.msgpack.encode(Resume(mark, memory))
        signature = self._private.sign(authenticated(KIND, body))
        replace_file(self._file, msgspec.msgpack.encode([body, signature]))
        self._seq = mark.state.seq


def resume(ledger_folder: Path, public: bytes) -> Resume | None:
    """What was noted, None when the whole ledger has to be read. ``public``: the ledger's key."""
    try:
        body, signature = msgspec.msgpack.decode(
            (ledger_folder / NOTE).read_bytes(), type=tuple[bytes, bytes]
        )
        if not is_signed(public, KIND, body, signature):
            return None
        found = msgspec.msgpack.decode(body, type=Resume)
    except (OSError, *UNREADABLE):
        return None
    return found if is_there(ledger_folder, found.mark.place) else None
