"""The `Journal` port: what DBOS in a file, DBOS on PostgreSQL and the simulator's journal all promise."""

import asyncio

import pytest

from reuna.core.errors import JournalError, Refused, RunNotFound
from tests.contract.journals import JOURNALS, a_world, value


@pytest.fixture(params=JOURNALS)
def world(request, tmp_path):
    yield from a_world(request, tmp_path)


async def test_steps_that_were_journalled_are_not_run_again_by_the_next_life(world):
    done, waits = [], asyncio.Event()

    async def work(name, loop, stuck=False):
        assert asyncio.get_running_loop() is loop
        done.append(name)
        if stuck and not waits.is_set():
            waits.set()
            await asyncio.sleep(3600)
        return {"name": name}

    loop = asyncio.get_running_loop()

    async def body(journal, spec):
        first = await journal.step("first", lambda: work("first", loop))
        second = await journal.step("second", lambda: work("second", loop, stuck=True))
        return [spec, first, second]

    async with world.host(body) as host:
        await host.submit("kind", "run", "spec")
        await waits.wait()
    async with world.host(body) as host:
        await host.submit("kind", "run", "spec")  # a client that is not sure asks again
        expected = ["spec", {"name": "first"}, {"name": "second"}]
        assert await host.result("run") == expected
    assert done == ["first", "second", "second"]


async def test_a_run_submitted_twice_runs_once(world):
    begun = []

    async def body(journal, spec):
        return await journal.step("begin", lambda: value(begun.append(spec) or spec))

    async with world.host(body) as host:
        await asyncio.gather(*(host.submit("kind", "run", spec) for spec in ("one", "one", "one")))
        assert await host.result("run") == "one"
        await host.submit("kind", "run", "two")
        assert await host.result("run") == "one"
    assert begun == ["one"]


async def test_two_runs_do_not_see_each_other(world):
    async def body(journal, spec):
        return [await journal.step("same name", lambda: value(spec)), await journal.await_event("go", 5)]

    async with world.host(body) as host:
        for run in ("a", "b"):
            await host.submit("kind", run, f"spec of {run}")
        await host.send("b", "go", "to b")
        await host.send("a", "go", "to a")
        assert await host.result("a") == ["spec of a", "to a"]
        assert await host.result("b") == ["spec of b", "to b"]


async def test_a_wait_is_not_begun_again_by_the_next_life(world):
    async def body(journal, spec):
        await journal.sleep_until(world.now() + world.wait)
        return world.now()

    async with world.host(body) as host:
        began = world.now()
        await host.submit("kind", "run", "")
        await asyncio.sleep(0.7)
    again = world.now()
    async with world.host(body) as host:
        ended = await host.result("run")
    assert began + world.wait - 0.05 <= ended < again + world.wait


async def test_a_wait_for_a_moment_that_has_passed_ends_at_once(world):
    async def body(journal, spec):
        await journal.sleep_until(world.now() - 10)
        return "awake"

    async with world.host(body) as host:
        await host.submit("kind", "run", "")
        async with asyncio.timeout(5):
            assert await host.result("run") == "awake"


async def test_messages_arrive_before_or_during_the_wait_each_once_and_in_order(world):
    begun = asyncio.Event()

    async def begin():
        begun.set()
        await asyncio.sleep(0.05)

    async def body(journal, spec):
        await journal.step("begin", begin)
        return [await journal.await_event(topic, 5) for topic in ("approve", "approve", "other")] + [
            await journal.await_event("approve", 0.05)
        ]

    async with world.host(body) as host:
        await host.submit("kind", "run", "")
        await begun.wait()
        await host.send("run", "approve", "early")
        await host.send("run", "approve", "second")
        await asyncio.sleep(0.3)
        await host.send("run", "other", "late")
        assert await host.result("run") == ["early", "second", "late", None]


async def test_a_message_is_taken_once_over_lives(world):
    taken = asyncio.Event()

    async def body(journal, spec):
        first = await journal.await_event("topic", 5)
        taken.set()
        return [first, await journal.await_event("topic", 5)]

    async with world.host(body) as host:
        await host.submit("kind", "run", "")
        await host.send("run", "topic", "one")
        await taken.wait()
    async with world.host(body) as host:
        await host.send("run", "topic", "two")
        assert await host.result("run") == ["one", "two"]


async def test_an_error_of_ours_comes_out_as_itself_and_is_not_tried_again(world):
    tries = []

    async def refuse():
        tries.append(1)
        raise Refused("stale", "round 3 is over")

    async def body(journal, spec):
        return await journal.step("refuse", refuse)

    async with world.host(body) as host:
        await host.submit("kind", "run", "")
        with pytest.raises(Refused, match="round 3 is over") as caught:
            await host.result("run")
    assert (caught.value.reason, caught.value.code) == ("stale", "R303")
    assert tries == [1]


async def test_an_error_that_the_body_handles_is_the_same_in_the_next_life(world):
    stuck = asyncio.Event()

    async def refuse():
        assert not stuck.is_set()
        raise Refused("stale", "round 3 is over")

    async def wait_once():
        if not stuck.is_set():
            stuck.set()
            await asyncio.sleep(3600)

    async def body(journal, spec):
        try:
            await journal.step("refuse", refuse)
        except Refused as error:
            await journal.step("note", wait_once)
            return f"{error.reason}: {error}"

    async with world.host(body) as host:
        await host.submit("kind", "run", "")
        await stuck.wait()
    async with world.host(body) as host:
        assert await host.result("run") == "stale: round 3 is over"


async def test_a_result_is_what_a_replay_will_give(world):
    async def body(journal, spec):
        return repr(await journal.step("pair", lambda: value({"pair": (1, 2.5), 3: None})))

    async with world.host(body) as host:
        await host.submit("kind", "run", "")
        assert await host.result("run") == "{'pair': [1, 2.5], '3': None}"


async def test_a_result_that_is_not_plain_is_refused(world):
    async def body(journal, spec):
        return await journal.step("bytes", lambda: value(b"weights"))

    async with world.host(body) as host:
        await host.submit("kind", "run", "")
        with pytest.raises(JournalError, match="plain JSON"):
            await host.result("run")


async def test_unknown_runs_are_said_to_be(world):
    async with world.host(value) as host:
        with pytest.raises(RunNotFound):
            await host.result("nobody")
        with pytest.raises(RunNotFound):
            await host.send("nobody", "topic", "message")
        with pytest.raises(RunNotFound):
            await host.resume("nobody")
