"""A node says that it is there sooner while it is new; a fog says at once who came and went."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from reuna.exchange.presence import CALM_S, SOON_S, STEADY_S, BelowKeeper, Presence
from reuna.sim.clock import run_virtual


def said(every_s: float, until_s: float) -> list[float]:
    """When a node says hello, seconds since it began."""

    async def live() -> list[float]:
        loop, moments = asyncio.get_running_loop(), []

        async def say(_next: float) -> None:
            moments.append(loop.time())

        keeping = asyncio.create_task(Presence(say, every_s).keep())
        await asyncio.sleep(until_s)
        keeping.cancel()
        return moments

    return run_virtual(live())


def told(look_s: float, until_s: float, changes: tuple[float, ...], takes_s: float = 0.0) -> list[float]:
    """When a fog tells who is below it; ``changes`` is when somebody comes or goes."""

    async def live() -> list[float]:
        loop, moments = asyncio.get_running_loop(), []

        async def tell(_names: object) -> None:
            moments.append(loop.time())
            await asyncio.sleep(takes_s)

        keeper = BelowKeeper(tuple, tell, look_s)
        for moment in changes:
            loop.call_at(moment, keeper.changed)
        keeping = asyncio.create_task(keeper.keep())
        await asyncio.sleep(until_s)
        keeping.cancel()
        return moments

    return run_virtual(live())


def test_a_new_node_says_it_sooner_and_then_every_so_often() -> None:
    assert said(5.0, 20.0) == pytest.approx([0.0, 0.5, 1.5, 3.5, 7.5, 12.5, 17.5])
    assert said(0.1, 0.35) == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_a_node_that_has_been_there_for_a_while_says_it_less_often() -> None:
    moments = said(5.0, 2000.0)
    late = [after - first for first, after in pairwise(moments) if first > STEADY_S + CALM_S]
    assert late == pytest.approx([CALM_S] * len(late))
    assert len(late) > 10
    assert said(120.0, 5000.0)[-1] - said(120.0, 5000.0)[-2] == pytest.approx(120.0)


def test_who_comes_is_told_at_once_and_those_that_come_together_are_told_together() -> None:
    assert told(3600.0, 3000.0, (900.0, 900.1, 900.2)) == pytest.approx([900.0 + SOON_S])


def test_who_comes_while_a_fog_tells_is_told_after_it() -> None:
    assert told(3600.0, 100.0, (1.0, 1.3), takes_s=0.3) == pytest.approx([1.0 + SOON_S, 1.55 + SOON_S])


def test_who_went_without_a_word_is_looked_for_now_and_then() -> None:
    assert told(5.0, 16.0, ()) == pytest.approx([5.0, 10.0, 15.0])


def test_each_hello_tells_when_the_next_one_comes() -> None:
    async def live() -> list[tuple[float, float]]:
        loop, told = asyncio.get_running_loop(), list[tuple[float, float]]()

        async def say(next_s: float) -> None:
            told.append((loop.time(), next_s))

        keeping = asyncio.create_task(Presence(say, 5.0).keep())
        await asyncio.sleep(1000)
        keeping.cancel()
        return told

    for (at, next_s), (then, _) in pairwise(run_virtual(live())):
        assert then - at == pytest.approx(next_s)
