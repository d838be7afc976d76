"""Room for what is taken in is made once, is few, and goes to who waits longest."""

from __future__ import annotations

import asyncio

import pytest

from reuna.adapters.turns import Turns

pytestmark = pytest.mark.asyncio


async def test_who_waits_longest_gets_the_next_room() -> None:
    turns, order = Turns(1, 4), []
    room = await turns.take()

    async def next_one(name: str) -> None:
        taken = await turns.take()
        order.append((name, taken is room))
        turns.give(taken)

    async with asyncio.TaskGroup() as group:
        for name in ("first", "second", "third"):
            group.create_task(next_one(name))
        await asyncio.sleep(0)
        assert not order
        turns.give(room)
    assert order == [("first", True), ("second", True), ("third", True)], "and it is the same memory"


async def test_in_place_of_a_room_that_is_still_used_a_new_one_is_made() -> None:
    turns = Turns(1, 4)
    room = await turns.take()
    turns.give(None)
    other = await turns.take()
    assert other is not room
    assert len(other) == 4
