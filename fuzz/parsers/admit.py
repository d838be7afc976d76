"""`reuna.loop.train.admit`: manifests as a parent decodes them, and what it does with those it takes."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from fuzz.kit import DIGEST, PLAN, UPDATE, attempt
from reuna.core.errors import BadMessage, Refused
from reuna.core.records import Contribution, Member
from reuna.loop import train
from reuna.wire import LIMITS, decode, encode

CHILDREN = ("edge-1", "edge-2", "fog-1")


def seeds() -> Iterator[bytes]:
    members = (replace(UPDATE.members[0], weight=3), Member("edge-2", 4))
    partial = replace(UPDATE, sender="fog-1", kind="partial", weight=7, width=8, size=32, members=members)
    absent = Member("edge-1", absent="no data")
    report = train.answer(PLAN, DIGEST, absent)
    yield from map(encode, (UPDATE, partial, report))


def check(data: bytes) -> None:
    manifest = attempt(lambda: decode(Contribution, data), BadMessage)
    if manifest is None:
        return
    for sender in CHILDREN:
        _judge(replace(manifest, sender=sender, run=PLAN.run, round=1, attempt=1, plan=DIGEST))
    _judge(manifest)


def _judge(manifest: Contribution) -> None:
    def admit() -> Contribution:
        train.admit(PLAN, DIGEST, manifest, manifest.sender, CHILDREN, closed=False)
        return manifest

    row = attempt(admit, Refused)
    if row is None:
        return
    assert row.size in {0, *(PLAN.params * width for width in (1, 2, 4, 8))}
    assert 0 <= row.weight <= PLAN.max_weight * PLAN.capacity
    closing = train.closing_row(PLAN, DIGEST, "fog-1", PLAN.cohort, [row])
    total = train.with_sum(closing, PLAN, [row], DIGEST)
    assert len(encode(total)) <= LIMITS[Contribution]
    train.reaches_quorum(PLAN, [row])
    assert train.largest_value(PLAN, row) < 2**63
