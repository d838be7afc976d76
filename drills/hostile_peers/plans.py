"""What a hostile coordinator, or a hostile fog below an honest one, sends down as a plan.

What they want: that a node trains for a plan that the cloud has not signed now, for it, once, or
that what it learnt leaves in a cohort in which it does not hide.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import zipfile
from collections.abc import Callable

import msgspec

from drills.hostile_peers.attack import Attack
from drills.hostile_peers.world import Round, World
from reuna.adapters.files import FileBlobs
from reuna.adapters.ledger_file import read
from reuna.adapters.nats_bus import NatsBus
from reuna.adapters.trust_keys import read_key
from reuna.core.errors import Corrupted
from reuna.core.records import Plan
from reuna.fleet.officer import approve, key_file
from reuna.loop.plan import shared
from reuna.trust.ledger import read_record
from reuna.trust.plans import opened
from reuna.wire import decode, encode

AGAIN_S = 0.5
EDGE = "edge-1/place.log"


def _evil(beside: Round, **changes: object) -> Plan:
    """The honest plan under another run's name, with changes."""
    return msgspec.structs.replace(beside.plan, **{"run": f"{beside.run}-evil", **changes})


async def _trains(world: World, beside: Round, signed: bytes, run: str, times: int = 1) -> bool:
    """Hand edge-1 a plan as its fog does; whether it then trains for the run once more."""
    fog = await world.bus("gateway", "fog-1")
    log = world.path(EDGE)

    def trained() -> bool:
        return log.read_text().count(f"trained round 1 attempt 1 of {run}\n") >= times

    await _answered(world, beside)
    return await _insists(world, fog, "plan.edge-1", signed, trained)


async def _insists(
    world: World, bus: NatsBus, subject: str, signed: bytes, success: Callable[[], bool]
) -> bool:
    """Say it until it is refused or has success: who is busy with the honest plan does not listen."""

    async def again_and_again() -> None:
        while True:
            await bus.publish(subject, signed)
            await asyncio.sleep(AGAIN_S)

    saying = asyncio.create_task(again_and_again())
    try:
        return await world.settled(success)
    finally:
        saying.cancel()


async def unsigned(world: World, beside: Round) -> bool:
    plan = _evil(beside)
    return await _trains(world, beside, encode(plan), plan.run)


async def old_key(world: World, beside: Round) -> bool:
    plan = _evil(beside)
    return await _trains(world, beside, world.trust.sign_with_old_key(encode(plan)), plan.run)


async def changed(world: World, beside: Round) -> bool:
    """The signature of the honest plan over another one."""
    plan = _evil(beside)
    outer = msgspec.msgpack.decode(beside.signed[1:])
    body = msgspec.msgpack.decode(outer[0])
    body[3] = encode(plan)
    outer[0] = msgspec.msgpack.encode(body)
    return await _trains(world, beside, beside.signed[:1] + msgspec.msgpack.encode(outer), plan.run)


async def other_fleet(world: World, beside: Round) -> bool:
    plan = _evil(beside)
    return await _trains(world, beside, world.trust.sign(encode(plan), fleet="line-5"), plan.run)


async def replayed(world: World, beside: Round) -> bool:
    """The first round of a run that went on: the fog has kept the cloud's own bytes."""
    plans = {signed: decode(Plan, opened(signed)) for signed in world.heard}
    newest = {plan.run: plan.round for plan in plans.values()}
    old = next(s for s, plan in plans.items() if plan.round == 1 and newest[plan.run] > 1)
    return await _trains(world, beside, old, plans[old].run, times=2)


async def second_plan(world: World, beside: Round) -> bool:
    """Another plan for the round that edge-1 has answered: two updates, whose difference tells."""
    plan = msgspec.structs.replace(beside.plan, seed=beside.plan.seed + 1)
    return await _trains(world, beside, world.trust.sign(encode(plan)), beside.run, times=2)


async def two_models(world: World, beside: Round) -> bool:
    """Another model for edge-1's round than for the other site's; then both are to go on together."""
    given = _evil(beside)
    elsewhere = msgspec.structs.replace(given, model="0" * 64, inline=None)
    assert await _trains(world, beside, world.trust.sign(encode(given)), given.run)
    common = msgspec.structs.replace(given, round=2, before=shared(elsewhere))
    fog, line = await world.bus("gateway", "fog-1"), f"trained round 2 attempt 1 of {given.run}\n"
    log = world.path(EDGE)
    return await _insists(
        world, fog, "plan.edge-1", world.trust.sign(encode(common)), lambda: line in log.read_text()
    )


async def _answered(world: World, beside: Round) -> None:
    """Edge-1 has done its honest part, so that nothing calls it back from what comes now."""
    line = f"trained round 1 attempt 1 of {beside.run}\n"
    assert await world.wait(lambda: line in world.path(EDGE).read_text())


async def _leaves(world: World, cohort: tuple[str, ...], beside: Round) -> bool:
    """A plan of the cloud itself for that cohort; whether edge-1's update leaves."""
    await _answered(world, beside)
    plan = _evil(beside, cohort=cohort)
    cloud = await world.bus("cloud", "cloud", "cloud")
    signed = world.trust.sign(encode(plan))

    def left() -> bool:
        entries = []
        with contextlib.suppress(Corrupted):  # its last record is being written
            entries = [read_record(raw).entry for raw in read(world.path("edge-1/state/ledger"))]
        return any(e.kind == "intent" and e.flow == "model_update" and e.run == plan.run for e in entries)

    return await _insists(world, cloud, "plan.fog-1", signed, left)


async def cohort_of_one(world: World, beside: Round) -> bool:
    return await _leaves(world, ("edge-1",), beside)


async def cohort_of_doubles(world: World, beside: Round) -> bool:
    return await _leaves(world, ("edge-1", "edge-1", "edge-1"), beside)


async def invented_neighbours(world: World, beside: Round) -> bool:
    return await _leaves(world, ("edge-1", "ghost-1", "ghost-2"), beside)


async def stolen_online_key(world: World, beside: Round) -> bool:
    """New code in a plan under the cloud's own key; a deceived officer has approved it at the site."""
    blobs = FileBlobs(world.path("edge-1/state/blobs"))
    honest = blobs.get(beside.plan.bundle)
    assert honest is not None
    evil = io.BytesIO(honest.read(0, honest.size))
    with zipfile.ZipFile(evil, "a") as bundle:
        bundle.writestr("evil.py", "# what else the thief would like to run\n")
    given = blobs.put(evil.getvalue())  # as the fog would serve it
    approve(world.path("edge-1/policy.toml"), read_key(key_file(world.fleet.folder)), given.digest)
    plan = _evil(beside, bundle=given.digest, bundle_size=given.size)
    return await _trains(world, beside, world.trust.sign(encode(plan)), plan.run)


ATTACKS = (
    Attack("unsigned-plan", "fog", "gives its edge a plan that nobody has signed",
           ("plan-signature",), (EDGE, "refused a plan: .*cannot be read|refused a plan: .*no signed"), unsigned),
    Attack("changed-plan", "fog", "puts another plan under the cloud's signature",
           ("plan-signature",), (EDGE, "refused a plan: .*not signed by a key"), changed),
    Attack("stolen-old-key", "neighbour", "signs a plan with a stolen key that was replaced since",
           ("plan-signature",), (EDGE, "refused a plan: .*not signed by a key"), old_key),
    Attack("plan-of-another-fleet", "coordinator", "uses one key for two fleets and mixes up their plans",
           ("plan-fleet",), (EDGE, "refused a plan: .*for fleet 'line-5'"), other_fleet),
    Attack("replayed-plan", "fog", "lets its edge train again for a round of a run that went on",
           ("plan-floor",), (EDGE, "refused a plan: .*was accepted before"), replayed),
    Attack("second-plan-for-a-round", "coordinator", "asks a node twice in one round, with other work",
           ("plan-floor",), (EDGE, "refused a plan: .*two different plans"), second_plan),
    Attack("two-sites-two-models", "coordinator", "gives two sites other models in a round, then goes on with both",
           ("plan-history",), (EDGE, "refused a plan: .*goes on from another round 1 than"), two_models),
    Attack("cohort-of-one", "coordinator", "asks one edge alone, so that the sum is its update",
           ("cohort",), (EDGE, "nodes in the sum: 1, at least 2"), cohort_of_one),
    Attack("cohort-of-doubles", "coordinator", "fills up the cohort with the same name",
           ("cohort-names", "roster"), (EDGE, "nodes in the sum: 1, at least 2"), cohort_of_doubles),
    Attack("code-by-stolen-online-key", "coordinator", "names code in a plan that the fleet's code role did not sign",
           ("code-role",), (EDGE, "waits for the fleet's code role"), stolen_online_key),
    Attack("invented-neighbours", "coordinator", "asks one edge in a cohort with names that it made up",
           ("roster",), (EDGE, "nodes in the sum: 1, at least 2"), invented_neighbours),
)  # fmt: skip
