"""A node's releases: taken as signed, read whole, kept, and told of; what does not hold leaves all as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from reuna.adapters.checked_file import CheckedFile
from reuna.adapters.files import FileBlobs
from reuna.core.errors import (
    BadMessage,
    BlobNotFound,
    Corrupted,
    DiskFull,
    PermissionDenied,
    ReunaError,
    Unreachable,
    Untrusted,
)
from reuna.core.ports import Blob
from reuna.core.records import Event, Holding
from reuna.exchange.choices import ProjectChoice, choices_file
from reuna.exchange.releases import FIELD, ReleaseHolder, drop_old, event_of, passed_on, read_event
from reuna.exchange.trust import TrustGuard
from reuna.loop.operate import Choice, Which
from reuna.sim.storage import MemoryBlobs
from reuna.trust.publish import DAY
from reuna.trust.releases import MOST
from reuna.trust.stages import Stage
from reuna.trust.targets import Target
from reuna.wire import encode
from reuna.wire.release import MAX_RELEASE
from tests.releases import release, target
from tests.unit.exchange.test_trust import Clock, Parent, open_guard
from tests.unit.trust.house import House


async def at_once(work: Callable[[], Any]) -> Any:
    return work()


class Store:
    """The parent's freight: what it has by digest, or the error it has for it."""

    def __init__(self, shelf: FileBlobs) -> None:
        self.shelf = shelf
        self.has: dict[str, bytes | ReunaError] = {}
        self.asked: list[str] = []

    async def fetch(self, digest: str, size: int) -> Blob:
        self.asked.append(digest)
        found = self.has.get(digest, BlobNotFound("no such blob"))
        if isinstance(found, ReunaError):
            raise found
        return self.shelf.put(found)


class Node:
    """An edge with its metadata, its disk, its parent, and what it told the cloud."""

    def __init__(self, folder: Path, house: House) -> None:
        self.folder, self.house, self.clock = folder, house, Clock()
        self.shelf = FileBlobs(folder / "releases")
        self.store = Store(self.shelf)
        self.told: list[Event] = []
        self.lets = True
        self.guard: TrustGuard = open_guard(folder / "trust", house, self.clock)
        self.start()

    def start(self) -> None:
        self.boot = f"b{len(self.told)}"
        store: Any = self.store
        self.holder = ReleaseHolder(
            ("e1", "north"),
            self.boot,
            self.guard,
            store,
            self.shelf,
            self.folder,
            self.emit,
            self.clock,
            at_once,
        )

    async def emit(self, event: Event) -> bool:
        if self.lets:
            self.told.append(event)
        return self.lets

    def sign(self, *listed: Target) -> None:
        self.house.listed["targets"] = list(listed)
        self.house.list("targets")
        self.house.online()

    def stage(self, *staged: Stage) -> None:
        self.house.staged = staged
        self.house.list("plans")
        self.house.online()

    def choices(self) -> list[ProjectChoice]:
        return choices_file(self.folder).read() or []

    def bring(self, *files: bytes) -> None:
        for number, data in enumerate(files):
            self.store.has[target(data, number + 1).digest] = data

    async def look(self) -> bool:
        await self.guard.refresh(Parent(self.house).fetch)
        return await self.holder.take()

    def held(self) -> list[int]:
        return [each.version for each in self.holder.report() if not each.refused]

    def refused(self) -> dict[int, str]:
        return {each.version: each.refused for each in self.holder.report() if each.refused}

    def on_disk(self) -> set[str]:
        return {path.name for path in (self.folder / "releases").iterdir()}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path, House())


ONE, TWO, THREE = release(1), release(2), release(3)


async def test_a_signed_release_is_taken_verified_and_kept(node: Node) -> None:
    node.sign(target(ONE, 1))
    node.bring(ONE)
    assert await node.look()
    assert node.holder.report() == [
        Holding("releases/pumps-1", "pumps", 1, target(ONE, 1).sha256, node.clock.at)
    ]
    assert node.on_disk() == {target(ONE, 1).digest}
    await node.look()
    assert node.store.asked == [target(ONE, 1).digest], "once"


async def test_the_newest_two_are_kept_and_older_ones_go(node: Node) -> None:
    for number, data in enumerate((ONE, TWO, THREE), 1):
        node.sign(target(data, number, name="pumps"))
        node.bring(data)
        await node.look()
    assert node.held() == [2, 3]
    assert node.on_disk() == {target(TWO, 2).digest, target(THREE, 3).digest}


async def test_what_was_held_is_still_held_after_a_restart_without_a_line(node: Node) -> None:
    node.sign(target(ONE, 1, name="pumps"))
    node.bring(ONE)
    await node.look()
    node.sign(target(TWO, 2, name="pumps"))
    node.bring(TWO)
    await node.look()
    node.store.has.clear()
    node.start()
    node.holder._recall()
    assert await node.holder.take()
    assert node.held() == [1, 2], "the one before is not listed any more, and was accepted when it was"
    assert len(node.store.asked) == 2


def flipped(data: bytes) -> bytes:
    return data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]


BAD = {
    "no release": (b"no release", 2, "malformed"),
    "a release cut short": (TWO[: len(TWO) // 2], 2, "malformed"),
    "one bit of a part turned": (flipped(TWO), 2, ""),
    "another project's": (release(2, "ovens"), 2, "mismatch"),
    "another version": (release(4), 2, "mismatch"),
}


@pytest.mark.parametrize("what", BAD)
async def test_what_was_signed_and_is_no_such_release_is_refused_and_the_one_before_stays(
    node: Node, what: str
) -> None:
    data, number, reason = BAD[what]
    node.sign(target(ONE, 1), target(data, number))
    node.bring(ONE, data)
    assert await node.look(), "it will not become better"
    assert node.held() == [1]
    assert node.refused()[2] in ({reason} if reason else {"malformed", "mismatch"})
    assert node.on_disk() == {target(ONE, 1).digest}
    asked = len(node.store.asked)
    node.house.online()
    await node.look()
    assert len(node.store.asked) == asked, "nor is it fetched again at each walk"


async def test_a_file_of_another_size_or_other_sums_than_its_target_says_is_refused(node: Node) -> None:
    import msgspec

    one = msgspec.structs.replace(target(ONE, 1), size=len(ONE) + 1)
    two = msgspec.structs.replace(target(TWO, 2), sha256="0" * 64)
    node.sign(one, two)
    node.bring(ONE, TWO)
    assert await node.look()
    assert node.refused() == {1: "mismatch", 2: "mismatch"}
    assert node.on_disk() == set()


async def test_one_that_is_too_large_is_not_even_begun(node: Node) -> None:
    import msgspec

    node.sign(msgspec.structs.replace(target(ONE, 1), size=MAX_RELEASE + 1))
    node.bring(ONE)
    assert await node.look()
    assert node.refused() == {1: "oversized"}
    assert node.store.asked == []


@pytest.mark.parametrize(
    "error",
    [DiskFull("no space"), Corrupted("tampered on its way"), BlobNotFound("gone"), PermissionDenied("no")],
)
async def test_what_may_get_better_is_said_and_tried_again_and_the_one_before_stays(
    node: Node, error: ReunaError
) -> None:
    node.sign(target(ONE, 1), target(TWO, 2))
    node.bring(ONE)
    node.store.has[target(TWO, 2).digest] = error
    assert not await node.look()
    assert (node.held(), node.refused()) == ([1], {2: error.code})
    node.bring(ONE, TWO)
    assert await node.holder.take()
    assert (node.held(), node.refused()) == ([1, 2], {})


async def test_a_line_that_is_cut_is_no_refusal(node: Node) -> None:
    node.sign(target(ONE, 1))
    node.store.has[target(ONE, 1).digest] = Unreachable("the parent is away")
    assert not await node.look()
    assert node.holder.report() == []


async def test_nothing_new_is_taken_under_metadata_whose_time_is_over(node: Node) -> None:
    node.sign(target(ONE, 1))
    node.bring(ONE)
    await node.guard.refresh(Parent(node.house).fetch)
    node.clock.at += 2 * DAY
    assert await node.holder.take()
    assert node.refused() == {1: "expired"}
    assert node.store.asked == []


async def test_a_release_for_others_is_not_taken(node: Node) -> None:
    node.sign(target(ONE, 1, where=("e2",)), target(TWO, 2, where=("north",)))
    node.bring(ONE, TWO)
    await node.look()
    assert node.held() == [2], "for the site is for its edges"


async def test_a_damaged_file_is_fetched_again(node: Node) -> None:
    node.sign(target(ONE, 1))
    node.bring(ONE)
    await node.look()
    (node.folder / "releases" / target(ONE, 1).digest).write_bytes(b"x" * len(ONE))
    node.shelf = node.store.shelf = FileBlobs(node.folder / "releases")
    node.start()
    node.holder._recall()
    assert node.held() == []
    await node.holder.take()
    assert node.held() == [1]
    assert len(node.store.asked) == 2


@pytest.mark.parametrize("instead", [b"", b"x" * 40, None])
async def test_a_damaged_list_of_what_was_accepted_forgets_what_nobody_signs_for(
    node: Node, instead: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    for number, data in ((1, ONE), (2, TWO)):
        node.sign(target(data, number, name="pumps"))
        node.bring(data)
        await node.look()
    file = node.folder / "releases.state"
    file.write_bytes(file.read_bytes()[:-1] + b"!" if instead is None else instead)
    node.start()
    node.holder._recall()
    await node.holder.take()
    assert node.held() == [2], "it is listed, and is there: no fetch"
    assert len(node.store.asked) == 2
    assert node.on_disk() == {target(TWO, 2).digest}


async def test_what_is_held_is_told_when_it_changes_and_only_then(node: Node) -> None:
    telling = asyncio.create_task(node.holder.tell())
    try:
        await node.look()
        await settle()
        assert node.told == [], "a fleet without releases says nothing"
        node.sign(target(ONE, 1), target(b"no release", 2))
        node.bring(ONE, b"no release")
        await node.look()
        await node.look()
        await settle()
        (event,) = node.told
        assert (event.node, event.what, event.run) == ("e1", "releases", "")
        assert read_event(event) == node.holder.report()
        node.sign(target(ONE, 1))
        await node.look()
        await settle()
        assert [event.seq for event in node.told] == [0, 1]
        assert [each.refused for each in read_event(node.told[-1])] == [""]
    finally:
        telling.cancel()


async def test_what_a_policy_keeps_here_is_offered_again(node: Node) -> None:
    node.lets = False
    telling = asyncio.create_task(node.holder.tell())
    try:
        node.sign(target(ONE, 1))
        node.bring(ONE)
        await node.look()
        await settle()
        assert node.clock.slept == [60.0]
        node.lets = True
        node.clock.gate.set()
        await settle()
        assert len(node.told) == 1
    finally:
        telling.cancel()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_it_keeps_taking_what_is_signed_and_comes_back_to_what_failed(node: Node) -> None:
    node.store.has[target(ONE, 1).digest] = Unreachable("away")
    keeping = asyncio.create_task(node.holder.keep())
    try:
        node.sign(target(ONE, 1))
        await node.guard.refresh(Parent(node.house).fetch)
        while not node.clock.slept:
            await asyncio.sleep(0)
        assert node.clock.slept == [1.0]
        node.bring(ONE)
        node.clock.gate.set()
        while node.held() != [1]:
            await asyncio.sleep(0)
        node.sign(target(ONE, 1), target(TWO, 2))
        node.bring(ONE, TWO)
        await node.guard.refresh(Parent(node.house).fetch)
        while node.held() != [1, 2]:
            await asyncio.sleep(0)
    finally:
        keeping.cancel()


# --- a fog's cache ------------------------------------------------------------------------------------


async def test_a_fog_lets_go_of_what_no_edge_may_ask_for(tmp_path: Path) -> None:
    house, cache = House(), MemoryBlobs()
    guard, expected = open_guard(tmp_path, house), list[Any]()
    files = [release(number) for number in (1, 2, 3)]
    for data in (b"a model", *files[:2]):
        cache.put(data)
    house.listed["targets"] = [target(data, number) for number, data in enumerate(files[:2], 1)]
    house.list("targets")
    house.online()
    keeping = asyncio.create_task(drop_old(guard, cache, at_once, expected.append))
    try:
        await guard.refresh(Parent(house).fetch)
        await settle()
        house.listed["targets"].append(target(files[2], 3))
        house.list("targets")
        house.online()
        await guard.refresh(Parent(house).fetch)
        await settle()
        left = {data for data in (b"a model", *files) if cache.get(target(data, 1).digest)}
        assert left == {b"a model", files[1]}
        assert expected[-1] == passed_on(guard) == {target(data, 1).digest for data in files[1:]}
    finally:
        keeping.cancel()


# --- what the cloud reads -----------------------------------------------------------------------------

HELD = Holding("releases/pumps", "pumps", 1, "0" * 64, 1.0)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[{}]", "[1]", '[{"path":"p","project":"p","version":0,"digest":"x","at":1}]'],
)
def test_what_cannot_be_read_of_a_node_is_a_bad_message(text: str) -> None:
    with pytest.raises(BadMessage):
        read_event(Event("e1", "b", 1, 0.0, "releases", fields={FIELD: text}))
    with pytest.raises(BadMessage):
        read_event(Event("e1", "b", 1, 0.0, "releases"))


def test_a_node_cannot_say_that_it_holds_more_than_one_can() -> None:
    with pytest.raises(BadMessage, match="33 releases"):
        read_event(event_of("e1", "b", 1, 0.0, [HELD] * (2 * MOST + 1)))


def test_the_longest_report_fits_a_message() -> None:
    longest = Holding("p" * 140, "ä" * 200, 2**31, "0" * 64, 1e10, "r" * 40)
    event = event_of("e1", "b", 1, 0.0, [longest] * (2 * MOST))
    assert read_event(event) == [longest] * (2 * MOST)
    assert len(encode(event)) < 65_536


# --- what is to run ---------------------------------------------------------------------------------


def which(data: bytes, number: int, rollout: str = "") -> Which:
    return Which(number, target(data, number).sha256, rollout)


def staged(data: bytes, number: int, **more: Any) -> Stage:
    return Stage("pumps", number, target(data, number).sha256, **more)


async def test_the_agent_is_told_what_is_here_and_where_it_lies(node: Node) -> None:
    node.sign(target(ONE, 1), target(TWO, 2))
    node.bring(ONE, TWO)
    await node.look()
    (told,) = node.choices()
    assert told.choice == Choice((which(TWO, 2), which(ONE, 1)))
    assert told.blobs[target(TWO, 2).sha256] == target(TWO, 2).digest
    assert (node.folder / "releases" / told.blobs[target(ONE, 1).sha256]).read_bytes() == ONE


async def test_the_agent_is_told_what_stages_say_also_of_what_is_not_here_yet(node: Node) -> None:
    node.sign(target(ONE, 1), target(TWO, 2))
    node.bring(ONE)
    node.stage(staged(TWO, 2, mode="shadow", rollout="r-1"), staged(ONE, 1, where=("north",)))
    await node.look()
    (told,) = node.choices()
    assert told.choice == Choice((which(ONE, 1),), which(ONE, 1), which(TWO, 2, "r-1"))


async def test_a_release_that_a_stage_names_is_taken_although_two_are_newer_and_offered_by_the_fog(
    node: Node,
) -> None:
    node.sign(target(ONE, 1), target(TWO, 2), target(THREE, 3))
    node.bring(ONE, TWO, THREE)
    await node.look()
    assert node.held() == [2, 3]
    assert target(ONE, 1).digest not in passed_on(node.guard)
    node.stage(staged(ONE, 1))
    await node.look()
    assert node.held() == [1, 2, 3]
    assert target(ONE, 1).digest in passed_on(node.guard)
    await node.look()
    assert node.store.asked.count(target(ONE, 1).digest) == 1


async def test_what_the_list_does_not_name_any_more_is_kept_and_is_not_to_go_live(node: Node) -> None:
    node.sign(target(ONE, 1), target(TWO, 2))
    node.bring(ONE, TWO)
    await node.look()
    node.sign(target(ONE, 1))
    await node.look()
    assert node.held() == [1, 2]
    (told,) = node.choices()
    assert told.choice.held == (which(ONE, 1),)


async def test_stages_that_cannot_be_read_leave_those_before(node: Node) -> None:
    node.sign(target(ONE, 1))
    node.bring(ONE)
    node.stage(staged(ONE, 1, rollout="r-1"))
    await node.look()
    with mock.patch("reuna.exchange.releases.read", side_effect=Untrusted("malformed", "x")):
        await node.holder.take()
    (told,) = node.choices()
    assert told.choice.live == which(ONE, 1, "r-1")


async def test_a_full_disk_has_the_agent_told_later(node: Node) -> None:
    node.sign(target(ONE, 1))
    node.bring(ONE)
    with mock.patch.object(CheckedFile, "write", side_effect=DiskFull("full")):
        assert not await node.look()
    assert node.choices() == []
    assert await node.holder.take()
    assert node.choices() != []
