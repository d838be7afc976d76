"""Virtual time: it jumps, it is the same every time, and it says when the world stands still."""

import asyncio
import gc
import random
import time

import pytest

from reuna.sim.clock import Deadlock, InPlace, SimClock, run_virtual
from reuna.sim.faults import fleet_of
from reuna.sim.part import Part


async def _wander(seed: int) -> list[tuple[float, int]]:
    """Twenty tasks that sleep for random times and note when they woke."""
    rng = random.Random(seed)
    woke: list[tuple[float, int]] = []

    async def walk(number: int) -> None:
        for _ in range(10):
            await asyncio.sleep(rng.choice([0.0, 1.0, rng.uniform(0, 100)]))
            woke.append((asyncio.get_running_loop().time(), number))

    await asyncio.gather(*(walk(number) for number in range(20)))
    return woke


def test_the_same_world_takes_the_same_course():
    assert run_virtual(_wander(1)) == run_virtual(_wander(1))
    assert run_virtual(_wander(1)) != run_virtual(_wander(2))


def test_time_never_goes_back():
    moments = [moment for moment, _ in run_virtual(_wander(3))]
    assert moments == sorted(moments)


def test_a_year_passes_at_once_and_to_the_second():
    async def year() -> float:
        clock = SimClock()
        began = clock.now()
        await clock.sleep(365 * 86_400)
        return clock.now() - began

    began = time.perf_counter()
    assert run_virtual(year()) == pytest.approx(365 * 86_400)
    assert time.perf_counter() - began < 1.0


@pytest.mark.parametrize("start", [0.0, 1e9, 1e9 + 1 / 3])
def test_tiny_sleeps_end_at_large_times(start):
    async def nap() -> float:
        for _ in range(100):
            await asyncio.sleep(1e-7)
        return asyncio.get_running_loop().time()

    assert run_virtual(nap(), start=start) == pytest.approx(start, abs=1e-3)


def test_a_world_that_stands_still_is_a_deadlock():
    async def wait_for_nobody() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="no timer is left"):
        run_virtual(wait_for_nobody())


def test_a_timeout_is_no_deadlock():
    async def wait() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run_virtual(wait()) == pytest.approx(3600)


def test_tasks_left_over_are_cancelled_and_cleaned_up():
    ended = []

    async def lingering() -> None:
        try:
            await asyncio.sleep(1e9)
        finally:
            ended.append(True)

    async def main() -> None:
        main.task = asyncio.ensure_future(lingering())
        await asyncio.sleep(1)

    run_virtual(main())
    assert ended == [True]


def test_threads_are_refused_because_they_take_real_time():
    async def thread() -> None:
        await asyncio.to_thread(time.time)

    with pytest.raises(RuntimeError, match="Offload port"):
        run_virtual(thread())


def test_work_in_place_runs_at_once():
    async def work() -> int:
        return await InPlace()(lambda: 7)

    assert run_virtual(work()) == 7


def test_a_skewed_clock_is_off_by_its_skew():
    async def both() -> float:
        return SimClock(skew=-300.0).now() - SimClock().now()

    assert run_virtual(both()) == pytest.approx(-300.0)


def test_a_hundred_thousand_timers_take_seconds_not_minutes():
    async def ticks() -> None:
        async def tick(number: int) -> None:
            for _ in range(1_000):
                await asyncio.sleep(1.0 + number / 1000)

        await asyncio.gather(*(tick(number) for number in range(100)))

    began = time.perf_counter()
    run_virtual(ticks())
    assert time.perf_counter() - began < 15.0  # about 1 s on a free core


def test_the_search_for_cycles_is_as_before_when_the_world_has_ended():
    before = gc.get_threshold()

    async def look(fails: bool) -> int:
        if fails:
            raise ValueError
        return gc.get_threshold()[0]

    assert run_virtual(look(False)) > before[0]
    with pytest.raises(ValueError):
        run_virtual(look(True))
    assert gc.get_threshold() == before


def test_a_part_of_a_fleet_searches_seldom_for_as_long_as_it_lives():
    before = gc.get_threshold()
    part = Part(fleet_of(1, 2), {})
    assert gc.get_threshold()[0] > before[0]
    part.end()
    assert gc.get_threshold() == before
