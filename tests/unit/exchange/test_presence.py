"""A node says that it is there sooner while it is new, and at once when something changed."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from reuna.exchange.presence import CALM_S, JUST_S, SOON_S, STEADY_S, Presence
from reuna.sim.clock import run_virtual


def said(
    every_s: float, until_s: float, changes: tuple[float, ...] = (), takes_s: float = 0.0
) -> list[float]:
    """When a node says hello, seconds since it began; ``changes`` is when what it says becomes another thing."""

    async def live() -> list[float]:
        loop, moments = asyncio.get_running_loop(), []

        async def say(_next: float) -> None:
            moments.append(loop.time())
            await asyncio.sleep(takes_s)

        presence = Presence(say, every_s)
        for moment in changes:
            loop.call_at(moment, presence.changed)
        keeping = asyncio.create_task(presence.keep())
        await asyncio.sleep(until_s)
        keeping.cancel()
        return moments

    return run_virtual(live())


def test_a_new_node_says_it_sooner_and_then_every_so_often() -> None:
    assert said(5.0, 20.0) == pytest.approx([0.0, 0.5, 1.5, 3.5, 7.5, 12.5, 17.5])
    assert said(0.1, 0.35) == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_a_change_is_said_at_once_and_those_that_come_together_are_said_together() -> None:
    assert said(3600.0, 10_000.0, (9_000.0,))[-1] == 9_000.0
    assert said(3600.0, 10_000.0, (9_000.0, 9_000.1, 9_000.2))[-2:] == pytest.approx(
        [9_000.0, 9_000.0 + SOON_S]
    )


def test_who_is_asked_says_that_it_is_there_unless_it_has_just_said_so() -> None:
    async def live() -> list[float]:
        loop, moments, heard = asyncio.get_running_loop(), list[float](), list[bytes]()

        async def say(_next: float) -> None:
            moments.append(loop.time())

        async def handle(plan: bytes, _signed: bytes, _terms: object) -> None:
            heard.append(plan)

        presence = Presence(say, 600.0)
        asked = presence.answering(handle)
        keeping = asyncio.create_task(presence.keep())
        for moment in (4_000.0, 4_001.0, 4_000.0 + JUST_S + 0.5, 4_020.0):
            await asyncio.sleep(moment - loop.time())
            await asked(b"plan", b"signed", None)
        await asyncio.sleep(1.0)
        keeping.cancel()
        assert heard == [b"plan"] * 4
        return [each for each in moments if each >= 4_000.0]

    assert run_virtual(live()) == pytest.approx([4_000.0, 4_000.5 + JUST_S, 4_020.0])


def test_a_change_while_a_hello_is_on_its_way_is_said_after_it() -> None:
    assert said(3600.0, 0.9, (0.2,), takes_s=0.3) == pytest.approx([0.0, 0.3 + SOON_S])


def test_a_node_of_which_nothing_is_new_says_it_less_often_until_something_is() -> None:
    moments = said(5.0, 2000.0, (1500.0,))
    before = [after - first for first, after in pairwise(moments) if STEADY_S + 120 < after <= 1500]
    assert before[:-1] == pytest.approx([CALM_S] * len(before[:-1]))
    assert 1500.0 in moments
    then = [after - first for first, after in pairwise(moments) if 1500 < first < 1900]
    assert then == pytest.approx([5.0] * len(then))
    assert said(120.0, 5000.0)[-2:] == pytest.approx(
        [said(120.0, 5000.0)[-1] - 120.0, said(120.0, 5000.0)[-1]]
    )


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
