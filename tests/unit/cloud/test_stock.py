"""Who may fetch which release: at the cloud what is published, at a fog what its edges may still take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reuna.adapters.files import FileBlobs
from reuna.adapters.trust_store import TrustStore
from reuna.adapters.tuf_repository import TufRepository
from reuna.cloud.stock import Stock
from reuna.core.errors import BlobNotFound, Corrupted, Unreachable
from reuna.core.ports import Blob
from reuna.exchange.intake import Intake
from reuna.fleet.trust import Ceremony, add_bytes, make_trust
from reuna.fog.stock import Stock as FogStock
from reuna.sim.storage import MemoryBlobs
from tests.releases import release, target
from tests.unit.exchange.test_trust import Parent, open_guard
from tests.unit.trust.house import House, thing

ONE = release(1)
SIGNED = [target(release(number), number) for number in (2, 3)]


async def at_once(work: Callable[[], Any]) -> Any:
    return work()


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    make_trust(tmp_path / "trust", "demo", 1_795_000_000.0)
    return tmp_path / "trust"


def add(trust: Path, data: bytes, kind: str, name: str) -> str:
    add_bytes(Ceremony(trust, 1_795_000_000.0, lambda _path: b""), data, kind, name)
    return target(data, 1).digest


def stock(trust: Path) -> Stock:
    return Stock(TufRepository(trust / "public"), trust / "targets", at_once)


async def test_the_cloud_gives_listed_releases_and_nothing_else_that_lies_there(trust: Path) -> None:
    digests = [
        add(trust, ONE, "release", "pumps"),
        add(trust, b"a template", "policy-template", "works"),
        add(trust, b"not a release", "release", "old"),
    ]
    found = [await stock(trust).get(digest) for digest in digests]
    assert found[0] is not None
    assert found[0].read(0, found[0].size) == ONE
    assert found[1:] == [None, None]
    assert await stock(trust).get("../public/root") is None


async def test_bytes_that_were_changed_in_the_trust_folder_are_not_given(trust: Path) -> None:
    digest = add(trust, ONE, "release", "pumps")
    kept = stock(trust)
    assert await kept.get(digest) is not None
    beside = trust / "beside"
    beside.write_bytes(ONE[:-1] + b"!")
    beside.replace(trust / "targets" / digest)
    with pytest.raises(Corrupted, match="not what its name says"):
        await kept.get(digest)
    (trust / "targets" / digest).unlink()
    assert await kept.get(digest) is None


async def test_a_release_is_offered_to_every_child_without_a_round(trust: Path) -> None:
    digest = add(trust, ONE, "release", "pumps")
    intake = Intake("cloud", MemoryBlobs(), None, released=stock(trust).get)  # type: ignore[arg-type]
    assert (await intake.blob("north", digest)).digest == digest
    with pytest.raises(BlobNotFound):
        await intake.blob("north", "0" * 64)
    with pytest.raises(BlobNotFound):
        await Intake("cloud", MemoryBlobs(), None).blob("north", digest)  # type: ignore[arg-type]


class Above:
    """A fog's egress: fetches into the folder that both share."""

    def __init__(self, folder: Path) -> None:
        self.blobs = FileBlobs(folder)
        self.asked: list[str] = []
        self.away = False

    async def fetch(self, digest: str, size: int) -> Blob:
        self.asked.append(digest)
        await asyncio.sleep(0)
        if self.away:
            raise Unreachable("the cloud is away")
        return self.blobs.put(ONE)


async def fog(folder: Path) -> tuple[FogStock, Above]:
    house = House()
    house.listed["targets"] += [target(ONE, 4), thing("releases/old", "release", b"old"), *SIGNED]
    house.list("targets")
    house.online()
    await open_guard(folder / "trust", house).refresh(Parent(house).fetch)
    above = Above(folder / "blobs")
    return FogStock(TrustStore(folder / "trust"), above.fetch, FileBlobs(folder / "blobs"), at_once), above


async def test_a_fog_fetches_a_release_once_for_all_its_edges(tmp_path: Path) -> None:
    passing, above = await fog(tmp_path)
    digest = target(ONE, 1).digest
    found = await asyncio.gather(*(passing.get(digest) for _ in range(5)))
    assert [each.digest for each in found if each] == [digest] * 5
    assert above.asked == [digest]


async def test_a_fog_asks_for_nothing_that_no_edge_of_it_may_take(tmp_path: Path) -> None:
    passing, above = await fog(tmp_path)
    for digest in ("0" * 64, thing("x", "x", b"old").digest, SIGNED[0].digest):
        assert await passing.get(digest) is None
    assert above.asked == []
    new = FogStock(TrustStore(tmp_path / "new"), above.fetch, MemoryBlobs(), at_once)
    assert await new.get(target(ONE, 1).digest) is None, "nothing was accepted yet"


async def test_a_fog_without_a_line_says_so(tmp_path: Path) -> None:
    passing, above = await fog(tmp_path)
    above.away = True
    with pytest.raises(Unreachable):
        await passing.get(target(ONE, 1).digest)
