"""What came down to a node, by kind: payload bytes and how many, kept in a file beside its ledger.

The ledger says what left and is evidence; this is a count for people, so it is written once a second, not
forced to the disk, and a full one costs no round. A payload counts once, however often a cut line began it
again.

    plan       the signed bytes of a round's plan, as they travelled; a small model rides inside
    model      the model of a plan       bundle            its code
    metadata   what the fleet trusts     countersignature  of a head of the ledger
    release    a signed release
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec

from reuna.core.foreign import UNREADABLE
from reuna.wire import decode_plan, unpacked

log = logging.getLogger("reuna.egress")
ARRIVALS = "arrivals.json"  #: in a node's state folder
WRITTEN_S = 1.0  #: what came, and outcomes in the ledger, wait so long to be written down
KNOWN = 64  #: digests whose kind is known, of the latest plans

Counts = Mapping[str, tuple[int, int]]  #: kind -> payload bytes, how many
_counts = msgspec.json.Decoder(dict[str, tuple[int, int]])


class Arrivals:
    """The counts of one node, which go on where an earlier process ended."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._counts = dict(read(file))
        self._kinds: dict[str, str] = {}
        self._is_written = True

    @property
    def counts(self) -> Counts:
        """What came so far."""
        return dict(self._counts)

    def plan(self, open_plan: Callable[[bytes], bytes], came: bytes) -> bytes:
        """Count a plan as it came, whatever becomes of it, and open it.

        Raises what ``open_plan`` raises, and `BadMessage`.
        """
        self.came("plan", len(came))
        data = open_plan(unpacked(came))
        plan = decode_plan(data)
        self._kinds |= {plan.step or plan.model: "model", plan.model: "model", plan.bundle: "bundle"}
        while len(self._kinds) > KNOWN:
            del self._kinds[next(iter(self._kinds))]
        return data

    def releases(self, digests: Collection[str]) -> None:
        """Blobs of these digests are releases."""
        self._kinds |= dict.fromkeys(digests, "release")

    def came(self, what: str, size_bytes: int) -> None:
        """Count a payload: ``what`` is its kind, or the digest of a blob that a plan named."""
        kind = self._kinds.get(what, what if len(what) < 64 else "blob")
        size, times = self._counts.get(kind, (0, 0))
        self._counts[kind] = (size + size_bytes, times + 1)
        self._is_written = False

    def write(self) -> None:
        """Make the file say what came so far. Blocking."""
        if self._is_written:
            return
        self._is_written = True
        beside = self._file.with_suffix(".new")
        try:
            beside.write_bytes(msgspec.json.encode(self.counts))
            beside.replace(self._file)
        except OSError as error:
            log.warning("what came down is not written to %s: %s", self._file, error)


def read(file: Path) -> Counts:
    """Counts of a node so far; empty when there are none that can be read."""
    try:
        return _counts.decode(file.read_bytes())
    except (OSError, *UNREADABLE):
        return {}


def since(before: Counts, now: Counts) -> Counts:
    """What came between two moments; all of it when the file was begun anew."""
    earlier = before if all(now.get(kind, (0, 0)) >= count for kind, count in before.items()) else {}
    gone = {kind: earlier.get(kind, (0, 0)) for kind in now}
    return {
        kind: (size - gone[kind][0], times - gone[kind][1])
        for kind, (size, times) in now.items()
        if times > gone[kind][1]
    }
