"""Threads of its own: what comes back, how many there are, and how they end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from reuna.adapters.threads import Threads


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    made = Threads(2, "made")
    yield made
    await made.close()


def named(name: str) -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith(name)]


async def test_work_is_carried_out_in_a_thread_and_gives_what_it_returns_or_raises(threads: Threads) -> None:
    assert (await threads(threading.current_thread)).name == "made-0"
    assert await threads(lambda: None) is None
    with pytest.raises(ZeroDivisionError):
        await threads(lambda: 1 // 0)


async def test_an_iterator_that_ends_in_a_thread_is_an_error_like_any_other(threads: Threads) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(threads(lambda: next(iter(()))), 10)


async def test_one_thread_does_what_comes_one_after_the_other_and_no_more_than_allowed_run() -> None:
    threads, gate = Threads(2, "few"), threading.Event()
    for _ in range(3):
        await threads(lambda: None)
    assert len(named("few")) == 1
    waiting = [asyncio.ensure_future(threads(gate.wait)) for _ in range(5)]
    await asyncio.sleep(0)
    assert len(named("few")) == 2
    gate.set()
    assert await asyncio.gather(*waiting) == [True] * 5
    await threads.close()


async def test_closing_waits_for_what_is_under_way_and_leaves_no_thread() -> None:
    threads, gate, done = Threads(2, "ends"), threading.Event(), list[bool]()
    work = asyncio.ensure_future(threads(lambda: done.append(gate.wait())))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(threads.close())
    await asyncio.sleep(0)
    assert not done
    gate.set()
    await asyncio.gather(work, closing)
    assert done == [True]
    assert not named("ends")


async def test_who_is_cancelled_leaves_its_work_to_end_and_the_thread_goes_on(threads: Threads) -> None:
    gate, done = threading.Event(), list[bool]()
    work = asyncio.ensure_future(threads(lambda: done.append(gate.wait())))
    await asyncio.sleep(0)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    gate.set()
    assert (await threads(threading.current_thread)).name.startswith("made")
    await threads.close()
    assert done == [True]


def test_a_loop_that_has_ended_meanwhile_ends_the_thread_in_silence(
    capfd: pytest.CaptureFixture[str],
) -> None:
    threads, gate = Threads(1, "alone"), threading.Event()

    async def begin() -> None:
        waiting = asyncio.ensure_future(threads(gate.wait))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(begin())
    (alone,) = named("alone")
    gate.set()
    alone.join(10)
    assert not alone.is_alive()
    assert not capfd.readouterr().err
