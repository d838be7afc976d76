"""Commits at a parent: together where they wait for each other, alone where they take long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from reuna.adapters.commits import LARGE, Commits
from reuna.core.errors import Refused, ReunaError
from reuna.core.records import Receipt


class Disk:
    """A depot whose receivers are words; each group of them waits until it is let go."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.told: list[str] = []
        self.begun, self.free = threading.Semaphore(0), threading.Semaphore(0)

    def commit(self, receivers: Sequence[Any]) -> list[Receipt | ReunaError]:
        self.groups.append(list(receivers))
        self.begun.release()
        assert self.free.acquire(timeout=10)
        if "fault" in receivers:
            raise ZeroDivisionError
        return [Refused("range", "x") if each == "bad" else receipt(each) for each in receivers]

    async def received(self, receipt: Receipt) -> None:
        self.told.append(receipt.sender)

    async def busy(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=10)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
async def commits(disk: Disk) -> AsyncIterator[Commits]:
    made = Commits(disk)  # type: ignore[arg-type]
    yield made
    disk.free.release(100)
    await made.ended()


def receipt(sender: str) -> Receipt:
    return Receipt("r-1", 1, 1, sender, "d")


def begun(commits: Commits, *words: str, quick: bool = True) -> list[asyncio.Task[Receipt]]:
    return [asyncio.create_task(commits(word, quick)) for word in words]  # type: ignore[arg-type]


async def test_those_that_come_while_one_is_written_go_together(disk: Disk, commits: Commits) -> None:
    first = begun(commits, "a")
    await disk.busy()
    later = begun(commits, "b", "c", "d")
    await asyncio.sleep(0)
    disk.free.release(2)
    ends = await asyncio.gather(*first, *later)
    assert [each.sender for each in ends] == disk.told == ["a", "b", "c", "d"]
    assert disk.groups == [["a"], ["b", "c", "d"]]


async def test_one_that_is_refused_takes_no_other_with_it(disk: Disk, commits: Commits) -> None:
    tasks = begun(commits, "bad", "b")
    disk.free.release(2)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(ends[0], Refused)
    assert ends[1] == receipt("b")
    assert disk.told == ["b"]


async def test_nobody_waits_for_one_that_takes_long(disk: Disk, commits: Commits) -> None:
    long = begun(commits, "long", quick=False)
    await disk.busy()
    quick = begun(commits, "quick")
    await disk.busy()
    assert disk.groups == [["long"], ["quick"]]
    disk.free.release(2)
    await asyncio.gather(*long, *quick)


async def test_so_many_that_take_long_go_at_once_and_a_quick_one_waits_for_none_of_them(
    disk: Disk, commits: Commits
) -> None:
    long = begun(commits, *map(str, range(LARGE + 1)), quick=False)
    for _ in range(LARGE):
        await disk.busy()
    quick = begun(commits, "quick")
    await disk.busy()
    assert disk.groups == [*([str(each)] for each in range(LARGE)), ["quick"]]
    disk.free.release(LARGE + 2)
    await asyncio.gather(*long, *quick)
    assert disk.groups[-1] == [str(LARGE)]


async def test_a_commit_is_carried_out_and_told_when_its_sender_is_gone(disk: Disk, commits: Commits) -> None:
    (gone,) = begun(commits, "a")
    await disk.busy()
    (waits,) = begun(commits, "b")
    await asyncio.sleep(0)
    gone.cancel()
    waits.cancel()
    disk.free.release(2)
    await asyncio.wait([gone, waits])
    await commits.ended()
    assert disk.told == ["a", "b"]
    assert not [each for each in threading.enumerate() if each.name.startswith("commit")]


async def test_a_fault_of_ours_is_raised_where_each_is_waited_for_and_others_go_on(
    disk: Disk, commits: Commits
) -> None:
    broken = begun(commits, "fault")
    await disk.busy()
    good = begun(commits, "b")
    disk.free.release(2)
    with pytest.raises(ZeroDivisionError):
        await broken[0]
    assert (await good[0]).sender == "b"
