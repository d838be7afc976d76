"""The guard in a node's egress: what it fetches, keeps and lets through."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reuna.adapters.trust_store import TrustStore
from reuna.core.errors import BadMessage, KeyProblem, Unreachable, Untrusted
from reuna.core.records import Grid, Plan
from reuna.exchange.trust import CodeRole, TrustGuard
from reuna.trust.metadata import complete
from reuna.trust.plans import PlanSigner, sign_plan
from reuna.trust.publish import DAY, key_of, public_of
from reuna.wire import encode
from tests.unit.trust.house import FLEET, NOW, House, key, thing

PLAN = Plan("r-1", 2, 1, "train", "ab" * 32, 72, 10, ("e1",), 1, 30.0, Grid(16, -10), 100, 4, 7, "cd" * 32, 5)
SIGNER = PlanSigner(FLEET, key_of(public_of(key("plans-1"))).keyid, key("plans-1"))


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.at = now
        self.slept: list[float] = []
        self.gate = asyncio.Event()

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await self.gate.wait()
        await asyncio.sleep(0)


class Parent:
    """Serves a house's files; remembers what it was asked."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.asked: list[tuple[str, int]] = []
        self.away = False

    async def fetch(self, name: str, limit: int) -> bytes | None:
        if self.away:
            raise Unreachable("the parent is away")
        self.asked.append((name, limit))
        return self.house.files.get(name)


def open_guard(folder: Path, house: House, clock: Any = None) -> TrustGuard:
    return TrustGuard.open(TrustStore(folder), FLEET, house.pin, clock or Clock())


def test_a_node_without_a_root_or_of_another_fleet_says_so(tmp_path: Path) -> None:
    with pytest.raises(KeyProblem, match="no root"):
        TrustGuard.open(TrustStore(tmp_path), FLEET, None, Clock())
    open_guard(tmp_path, House())
    with pytest.raises(KeyProblem, match="trusts fleet"):
        TrustGuard.open(TrustStore(tmp_path), "line-5", None, Clock())


async def test_before_the_first_walk_no_plan_is_accepted(tmp_path: Path) -> None:
    guard = open_guard(tmp_path, House())
    with pytest.raises(Untrusted, match="not yet accepted"):
        guard.plan(sign_plan(encode(PLAN), SIGNER, NOW))


async def test_after_a_walk_plans_pass_and_older_ones_do_not_also_after_a_restart(tmp_path: Path) -> None:
    house = House()
    guard = open_guard(tmp_path, house)
    await guard.refresh(Parent(house).fetch)
    signed = sign_plan(encode(PLAN), SIGNER, NOW)
    assert guard.plan(signed) == encode(PLAN)
    again = open_guard(tmp_path, house)
    assert again.plan(signed) == encode(PLAN)
    older = msgspec.structs.replace(PLAN, round=1)
    with pytest.raises(Untrusted) as caught:
        again.plan(sign_plan(encode(older), SIGNER, NOW))
    assert caught.value.reason == "replayed"
    assert again.target("releases/pump").kind == "release"


async def test_signed_bytes_that_are_no_plan_are_a_bad_message(tmp_path: Path) -> None:
    house = House()
    guard = open_guard(tmp_path, house)
    await guard.refresh(Parent(house).fetch)
    with pytest.raises(BadMessage):
        guard.plan(sign_plan(b"\x01\x05nothing", SIGNER, NOW))


async def test_no_more_is_read_of_a_file_than_it_may_have(tmp_path: Path) -> None:
    parent = Parent(House())
    await open_guard(tmp_path, parent.house).refresh(parent.fetch)
    assert all(0 < limit <= 2 * 1024 * 1024 for _, limit in parent.asked)


async def test_a_refused_walk_leaves_all_as_it_was_but_for_new_roots(tmp_path: Path) -> None:
    house = House()
    guard = open_guard(tmp_path, house)
    await guard.refresh(Parent(house).fetch)
    held = guard.state
    house.root()
    house.list("code", signers=[key("online-1")])
    house.online()
    with pytest.raises(Untrusted):
        await guard.refresh(Parent(house).fetch)
    assert guard.state.root.version == 2
    assert guard.state.files == held.files
    assert open_guard(tmp_path, house).state == guard.state
    assert guard.plan(sign_plan(encode(PLAN), SIGNER, NOW))


async def test_what_a_fog_accepted_its_edges_can_take_over(tmp_path: Path) -> None:
    house = House()
    house.root()
    fog = open_guard(tmp_path / "fog", house)
    await fog.refresh(Parent(house).fetch)
    served = TrustStore(tmp_path / "fog")

    async def from_fog(name: str, limit: int) -> bytes | None:
        return served.file(name)

    edge = open_guard(tmp_path / "edge", house)
    await edge.refresh(from_fog)
    assert complete(edge.state)
    assert edge.state == fog.state


async def test_a_refused_plan_makes_the_node_look_for_newer_keys_soon(tmp_path: Path) -> None:
    house, clock = House(), Clock()
    guard = open_guard(tmp_path, house, clock)
    parent = Parent(house)
    working = asyncio.create_task(guard.keep_fresh(parent.fetch, 3600.0))
    try:
        while not clock.slept:
            await asyncio.sleep(0)
        walked = len(parent.asked)
        house.names["plans"] = ["plans-2"]
        house.list("targets")
        house.list("plans")
        house.online()
        new = PlanSigner(FLEET, key_of(public_of(key("plans-2"))).keyid, key("plans-2"))
        with pytest.raises(Untrusted):
            guard.plan(sign_plan(encode(PLAN), new, NOW))
        clock.gate.set()
        while len(parent.asked) == walked or guard.state.files["plans"].version == 1:
            await asyncio.sleep(0)
        assert guard.plan(sign_plan(encode(PLAN), new, NOW)) == encode(PLAN)
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def test_a_parent_that_is_away_or_lies_ends_nothing(tmp_path: Path) -> None:
    house, clock = House(), Clock()
    guard, parent = open_guard(tmp_path, house, clock), Parent(house)
    parent.away = True
    working = asyncio.create_task(guard.keep_fresh(parent.fetch, 3600.0))
    try:
        while not clock.slept:
            await asyncio.sleep(0)
        parent.away = False
        whole, house.files = house.files, {"timestamp.json": b"[" * 9000}
        clock.gate.set()
        while not parent.asked:
            await asyncio.sleep(0)
        house.files = whole
        while not complete(guard.state):
            await asyncio.sleep(0)
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def test_plans_end_with_the_metadata_and_go_on_after_a_walk(tmp_path: Path) -> None:
    house, clock = House(), Clock()
    guard, parent = open_guard(tmp_path, house, clock), Parent(house)
    await guard.refresh(parent.fetch)
    clock.at += 2 * DAY
    signed = sign_plan(encode(PLAN), SIGNER, clock.at)
    with pytest.raises(Untrusted) as caught:
        guard.plan(signed)
    assert caught.value.reason == "expired"
    house.now = clock.at
    house.online()
    await guard.refresh(parent.fetch)
    assert guard.plan(signed) == encode(PLAN)


# --- code: the site's policy and the fleet's code role must both allow it ----------------------------

BUNDLE = thing("code/detector", "code").digest
NEW = thing("code/evil", "code", b"new code")


async def test_code_that_the_code_role_signed_is_vouched_for_and_other_code_is_not(tmp_path: Path) -> None:
    house = House()
    guard = open_guard(tmp_path, house)
    assert "not yet accepted" in guard.unsigned(BUNDLE)
    await guard.refresh(Parent(house).fetch)
    assert guard.unsigned(BUNDLE) == ""
    assert f"sign {NEW.digest}: reuna trust add PROJECT --kind code" in guard.unsigned(NEW.digest)


async def test_code_signed_meanwhile_is_looked_for_at_once_and_only_once(tmp_path: Path) -> None:
    house = House()
    guard, parent = open_guard(tmp_path, house), Parent(house)
    await guard.refresh(parent.fetch)
    role = CodeRole(guard, parent.fetch)
    assert await role.unsigned(BUNDLE) == ""
    asked = len(parent.asked)
    other = thing("code/other", "code", b"other code").digest
    third = thing("code/third", "code", b"third code").digest
    for code in (other, third):
        assert await role.unsigned(code) != ""
        assert len(parent.asked) > asked
        asked = len(parent.asked)
    assert await role.unsigned(other) != ""
    assert await role.unsigned(third) != ""
    assert len(parent.asked) == asked, "then the ordinary walk goes on"
    house.listed["code"].append(NEW)
    house.list("code")
    house.online()
    assert await role.unsigned(NEW.digest) == ""


@pytest.mark.parametrize("stolen", ["plans-1", "online-1", "release-1", "code-1"])
async def test_a_stolen_key_alone_brings_no_code(tmp_path: Path, stolen: str) -> None:
    """The online keys, or one of two offline ones: the thief signs the lists of code and of plans."""
    house = House()
    guard, parent = open_guard(tmp_path, house), Parent(house)
    await guard.refresh(parent.fetch)
    for role in ("code", "plans"):
        house.listed[role].append(NEW)
        house.list(role, signers=[key(stolen)] if role == "code" else None)
        house.online()
        assert await CodeRole(guard, parent.fetch).unsigned(NEW.digest) != ""
    assert guard.state.files["code"].version == 1


async def test_with_the_code_roles_threshold_the_same_list_brings_it(tmp_path: Path) -> None:
    """What the test above plants, without the guard in its way."""
    house = House()
    guard, parent = open_guard(tmp_path, house), Parent(house)
    house.listed["code"].append(NEW)
    house.list("code")
    house.online()
    assert await CodeRole(guard, parent.fetch).unsigned(NEW.digest) == ""


async def test_code_in_the_list_of_plans_or_of_releases_is_no_code(tmp_path: Path) -> None:
    house = House()
    guard, parent = open_guard(tmp_path, house), Parent(house)
    house.listed["targets"].append(thing("releases/evil", "release", b"new code"))
    house.listed["plans"].append(thing("plans/evil", "plan", b"new code"))
    house.list("targets")
    house.list("plans")
    house.online()
    await guard.refresh(parent.fetch)
    assert "code role" in guard.unsigned(NEW.digest)


async def test_withdrawn_and_expired_code_waits_and_says_what_to_do(tmp_path: Path) -> None:
    house, clock = House(), Clock()
    guard, parent = open_guard(tmp_path, house, clock), Parent(house)
    await guard.refresh(parent.fetch)
    house.listed["code"].clear()
    house.list("code")
    house.online()
    await guard.refresh(parent.fetch)
    assert "reuna trust add" in guard.unsigned(BUNDLE)
    clock.at += 400 * DAY
    assert "over its time" in guard.unsigned(BUNDLE)
    assert "reuna trust renew code" in guard.unsigned(BUNDLE)


async def test_the_slower_of_two_walks_brings_nothing_older_back(tmp_path: Path) -> None:
    house = House()
    guard, fast, slow = open_guard(tmp_path, house), Parent(house), Parent(house)
    old, gate = dict(house.files), asyncio.Event()

    async def held_up(name: str, limit: int) -> bytes | None:
        await gate.wait()
        return await slow.fetch(name, limit) if name not in old else old[name]

    first = asyncio.create_task(guard.walk(held_up))
    await asyncio.sleep(0)
    house.online()
    second = asyncio.create_task(guard.walk(fast.fetch))
    gate.set()
    await asyncio.gather(first, second)
    assert guard.state.files["timestamp"].version == 2
