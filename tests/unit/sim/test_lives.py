"""A killed process ends whatever it had started, however much had ended before."""

import asyncio
import weakref

from reuna.sim.clock import run_virtual
from reuna.sim.lives import Incarnation, adopting_tasks


def test_a_kill_ends_the_tasks_of_a_life_and_of_no_other() -> None:
    async def wait() -> None:
        await asyncio.sleep(1000)

    async def many() -> list[asyncio.Task[None]]:
        """Waiting tasks among many that end at once."""
        waiting = []
        for _ in range(5):
            waiting.append(asyncio.create_task(wait()))
            for _ in range(20):
                await asyncio.create_task(asyncio.sleep(0))
        return waiting

    async def world() -> tuple[set[bool], set[bool]]:
        killed, spared = Incarnation("a"), Incarnation("b")
        gone, there = await killed.start(many()), await spared.start(many())
        killed.kill()
        await asyncio.sleep(1)
        return {task.cancelled() for task in gone}, {task.done() for task in there}

    assert run_virtual(world(), adopting_tasks) == ({True}, {False})


def test_tasks_that_ended_are_not_kept() -> None:
    async def many() -> int:
        seen = weakref.WeakSet[asyncio.Task[None]]()
        for _ in range(100):
            seen.add(task := asyncio.create_task(asyncio.sleep(0)))
            await task
        return len(seen)

    async def world() -> int:
        return await Incarnation("a").start(many())

    assert run_virtual(world(), adopting_tasks) < 10
