"""What a hostile edge, or a hostile fog, hands up or asks for over HTTPS.

Edge-2 is stopped and its key is used: the update sent in its place is 1000 in every value. What
the attacker wants is a receipt, which is the parent's word that it counts.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from drills.hostile_peers.attack import Attack, Do
from drills.hostile_peers.lines import Answer, frames, stays_open
from drills.hostile_peers.world import Round, World
from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.files import FileBlobs
from reuna.adapters.tls import client_context
from reuna.core.records import Contribution, Member
from reuna.learn.grid import pack, update_width
from reuna.loop import train
from reuna.wire import VERSION, digest_bytes, encode, message_digest
from reuna.wire.codec import FIRST

FOG = "fog-1/place.log"
TRICKLE_S = 50.0  #: longer than it takes to see that nobody is that slow
HUGE = 32 << 20  #: bytes of a manifest
TAG = 2  #: of a contribution


def _update(
    beside: Round, node: str = "edge-2", wider: int = 1, lowest: bool = False
) -> tuple[Contribution, bytes]:
    """An update that is good in all but its values, and its body."""
    width = wider * update_width(beside.plan.grid)
    value = -(2 ** (8 * width - 1)) if lowest else 1000
    body = bytes(pack(np.full(beside.plan.params, value), width))
    member = Member(node, 1, digest_bytes(body), {"loss": 0.0})
    manifest = train.answer(beside.plan, message_digest(beside.plan_bytes), member, member.digest, width)
    return manifest, body


def _with_member(manifest: Contribution, **changes: Any) -> Contribution:
    member = replace(manifest.members[0], **changes)
    return replace(manifest, weight=member.weight, members=(member,))


def _counts(answer: Answer) -> bool:
    return answer.status == 200


def _altered(alter: Callable[[Contribution], Contribution], **made: Any) -> Do:
    """Hand up an update whose manifest was altered."""

    async def do(world: World, beside: Round) -> bool:
        manifest, body = _update(beside, **made)
        return _counts(await world.freight("edge", "edge-2").put(alter(manifest), body))

    return do


def _weight(weight: int) -> Do:
    return _altered(lambda manifest: _with_member(manifest, weight=weight))


not_finite = _altered(lambda manifest: _with_member(manifest, metrics={"loss": math.nan}))
other_plan = _altered(lambda manifest: replace(manifest, plan="0" * 64))
too_wide = _altered(lambda manifest: manifest, wider=2)
off_grid = _altered(lambda manifest: manifest, lowest=True)
late = _altered(lambda manifest: manifest)


async def as_another(world: World, beside: Round) -> bool:
    """Edge-2 gives in the name of edge-1, which has not answered yet."""
    manifest, body = _update(beside, "edge-1")
    return _counts(await world.freight("edge", "edge-2").put(manifest, body))


async def second_answer(world: World, beside: Round) -> bool:
    """Once the node has answered, another update for the same round."""
    database = world.path("fog-1/state/spool/spool.db")

    def answered() -> bool:
        import sqlite3

        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as rows:
            asked = (beside.run, "edge-2")
            return (
                rows.execute("SELECT 1 FROM rows WHERE run = ? AND sender = ?", asked).fetchone() is not None
            )

    assert await world.wait(answered)
    manifest, body = _update(beside)
    return _counts(await world.freight("edge", "edge-2").put(manifest, body))


async def announces_much(world: World, beside: Round) -> bool:
    """A body of 8 MiB for a model of 8 kB, announced as it is."""
    body = bytes(8 << 20)
    manifest = replace(_update(beside)[0], digest=digest_bytes(body), size=len(body))
    return _counts(await world.freight("edge", "edge-2").put(manifest, body))


async def sends_more(world: World, beside: Round) -> bool:
    """More bytes behind a body than were announced."""
    manifest, body = _update(beside)
    return _counts(await world.freight("edge", "edge-2").put(manifest, body, extra=4096))


async def trickles(world: World, beside: Round) -> bool:
    """A good head, then a byte now and then: never silent, and never done."""
    manifest, body = _update(beside)
    message = encode(manifest)
    data = len(message).to_bytes(4, "little") + message + frames(body)
    reader, writer = await world.freight("edge", "edge-2").open()
    head = f"PUT /v1/contributions HTTP/1.1\r\nHost: fog\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data[:300])

    async def trickle() -> None:
        for at in range(300, 300 + int(TRICKLE_S)):
            writer.write(data[at : at + 1])
            await asyncio.sleep(1.0)

    trickling = asyncio.create_task(trickle())
    try:
        return await stays_open(reader, writer, TRICKLE_S)
    finally:
        trickling.cancel()


async def huge_manifest(world: World, beside: Round) -> bool:
    """A manifest of 32 MiB; the fog has taken it when it says what it thinks of the whole."""

    def pieces() -> Iterator[bytes]:
        yield HUGE.to_bytes(4, "little")
        for _ in range(HUGE >> 16):
            yield bytes(1 << 16)

    answer = await world.freight("edge", "edge-2").put_bytes(HUGE + 4, pieces())
    return answer.reason == "malformed"


def _plain(manifest: Contribution) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(manifest)
    return plain


async def other_types(world: World, beside: Round) -> bool:
    """Text and fractions where whole numbers belong."""
    manifest, body = _update(beside)
    plain = {**_plain(manifest), "params": str(manifest.params), "weight": 1.0, "round": "1"}
    data = bytes((VERSION, TAG)) + msgspec.msgpack.encode(plain)
    return _counts(await world.freight("edge", "edge-2").put_raw(data, body))


async def other_protocol(world: World, beside: Round) -> bool:
    """The same bytes under the number of another protocol."""
    manifest, body = _update(beside)
    data = bytes((FIRST - 1,)) + encode(manifest)[1:]
    return _counts(await world.freight("edge", "edge-2").put_raw(data, body))


async def anothers_members(world: World, beside: Round) -> bool:
    """Fog-1 gives the cloud a sum that counts an edge of fog-2."""
    params = beside.plan.params
    body = bytes(pack(np.full(params, 1000), 4))
    members = tuple(Member(node, 1, "", {"loss": 0.0}) for node in ("edge-2", "edge-3"))
    manifest = Contribution(
        beside.run, 1, 1, "fog-1", message_digest(beside.plan_bytes), "partial", params, 4, 2,
        digest_bytes(body), len(body), members,
    )  # fmt: skip
    return _counts(await world.freight("fog", "fog-1", "cloud").put(manifest, body))


async def neighbours_sum(world: World, beside: Round) -> bool:
    """Edge-2 gives a sum as fogs do, in which its neighbour counts as well."""
    manifest, body = _update(beside)
    members = (Member("edge-1", 1, "", {"loss": 0.0}), *manifest.members)
    summed = replace(manifest, kind="partial", weight=2, members=members)
    return _counts(await world.freight("edge", "edge-2").put(summed, body))


async def name_of_a_fog(world: World, beside: Round) -> bool:
    """Fog-1's own authority makes an edge that is called fog-2, which asks the cloud for its model."""
    issuer = CertificateAuthority.load(world.path("fog-1/issuer"))
    pair = issuer.issue("edge", "fog-2")
    tls = client_context(pair.certificate, pair.key, Path(world.fleet.setting("tls.authority", "fog-1")))
    line = world.freight_with(tls, "cloud")
    return _counts(await line.get(f"/v1/blobs/{beside.plan.model}"))


async def others_model(world: World, beside: Round) -> bool:
    """A model of another run, which lies on the fog's disk, where one too large to ride in a plan would."""
    model = np.arange(beside.plan.params, dtype=np.float32).tobytes()
    digest = FileBlobs(world.path("fog-1/state/blobs")).put(model).digest
    answer = await world.freight("edge", "edge-2").get(f"/v1/blobs/{digest}")
    return _counts(answer) and digest_bytes(answer.body) == digest


async def path_upwards(world: World, beside: Round) -> bool:
    """The fog's own signing key, by a name that climbs out of the folder."""
    answer = await world.freight("edge", "edge-2").get("/v1/trust/..%2f..%2fledger.key")
    return _counts(answer) and b"PRIVATE KEY" in answer.body


def _attack(name: str, story: str, guard: str, reason: str, do: Do, **more: Any) -> Attack:
    return Attack(name, "edge", story, (guard,), (FOG, f"refused edge-2: {reason}:"), do, **more)


ATTACKS = (
    _attack("upload-in-anothers-name", "hands up an update in the name of its neighbour",
            "sender", "identity", as_another, paused=("edge-1",)),
    _attack("sum-with-a-neighbour", "gives a sum, as only fogs do, in which its neighbour counts",
            "members", "identity", neighbours_sum),
    _attack("weight-zero", "gives a body that counts nothing", "weight", "weight", _weight(0)),
    _attack("weight-negative", "counts less than nothing, which takes away a neighbour's",
            "weight", "weight", _weight(-1)),
    _attack("weight-huge", "counts a thousandfold", "weight", "weight", _weight(1000)),
    _attack("value-off-the-grid", "sends the one integer that is no value", "range", "range", off_grid),
    _attack("metric-not-finite", "reports a loss that is no number", "metrics", "metrics", not_finite),
    _attack("second-answer", "replaces its answer when it has seen more",
            "one-answer", "conflict", second_answer, paused=("edge-1",)),
    _attack("answer-after-the-close", "comes when the sum was made",
            "closed", "closed", late, deadline_s=3.0, quorum=0.5, closes=True),
    _attack("answer-to-another-plan", "gives an update that was made for something else",
            "plan-digest", "plan", other_plan),
    _attack("oversized-body", "announces a thousand times the model", "shape", "oversized", announces_much),
    _attack("wider-integers", "sends integers of twice the plan's width", "shape", "shape", too_wide),
    _attack("body-beyond-its-length", "sends more than it announced", "length", "malformed", sends_more),
    _attack("huge-manifest", "announces a manifest of 32 MiB", "manifest-limit", "oversized", huge_manifest),
    _attack("trickle", "sends its update a byte a second, for ever", "pace", "slow", trickles),
    _attack("type-confusion", "writes text and fractions where integers belong", "types", "malformed", other_types),
    _attack("other-protocol", "speaks a protocol that nobody speaks any more", "protocol", "malformed", other_protocol),
    Attack("sum-with-anothers-edge", "fog", "counts an edge of another site in its sum", ("members",),
           ("cloud/place.log", "refused fog-1: identity:"), anothers_members),
    Attack("edge-with-the-name-of-a-fog", "fog", "certifies an edge under the name of another fog", ("admission",),
           ("cloud/place.log", "refused a request: .*edge/fog-2 is not admitted"), name_of_a_fog),
    _attack("model-of-another-round", "asks for a blob that its round does not offer",
            "offered", "R306", others_model),
    _attack("path-upwards", "asks for a file by a path that climbs", "names", "R306", path_upwards),
)  # fmt: skip
