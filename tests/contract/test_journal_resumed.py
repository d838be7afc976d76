"""The `Journal` port: a run that was cancelled or failed, and goes on when somebody resumes it."""

import asyncio
import sqlite3

import pytest

from reuna.adapters.journal_dbos import DbosHost
from reuna.core.errors import Refused, RunFailed, RunNotFound
from tests.contract.journals import JOURNALS, a_world


@pytest.fixture(params=JOURNALS)
def world(request, tmp_path):
    yield from a_world(request, tmp_path)


@pytest.mark.parametrize("where", ["step", "sleep", "event"])
async def test_cancelling_reaches_the_work_and_is_final(world, where):
    begun, reached = asyncio.Event(), []

    async def endless():
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            reached.append(where)
            raise

    async def body(journal, spec):
        if where == "step":
            await journal.step("endless", endless)
        begun.set()
        if where == "sleep":
            await journal.sleep_until(world.now() + 3600)
        await journal.await_event("never", 3600)
        reached.append("end")

    async with world.host(body) as host:
        await host.submit("kind", "run", "")
        await begun.wait()
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            await host.cancel("run")
            with pytest.raises(RunFailed, match="cancelled"):
                await host.result("run")
    assert reached == (["step"] if where == "step" else [])


@pytest.mark.parametrize("end", ["cancelled", "failed", "cancelled after an error that was handled"])
async def test_a_run_that_ended_early_goes_on_where_it_ended_when_somebody_resumes_it(world, end):
    done, stuck, calm = [], asyncio.Event(), asyncio.Event()

    async def work(name):
        done.append(name)
        if name == "second" and not calm.is_set():
            stuck.set()
            if end == "failed":
                raise Refused("stale", "round 2 is over")
            await asyncio.sleep(3600)
        if name == "first" and end.endswith("handled"):
            raise Refused("stale", "round 1 is over")
        return name

    async def body(journal, spec):
        try:
            found = [spec, journal.life, await journal.step("first", lambda: work("first"))]
        except Refused as error:
            found = [spec, journal.life, error.reason]
        return [
            *found,
            await journal.step("second", lambda: work("second")),
            await journal.step("third", three),
        ]

    async def three():
        return await work("third")

    async with world.host(body) as host:
        await host.submit("kind", "run", "spec")
        await stuck.wait()
        if end != "failed":
            await host.cancel("run")
        with pytest.raises((RunFailed, Refused)):
            await host.result("run")
        calm.set()
        await host.resume("run")
        first = "stale" if end.endswith("handled") else "first"
        assert await host.result("run") == ["spec", 2, first, "second", "third"]
        await host.resume("run")
        assert await host.result("run") == ["spec", 2, first, "second", "third"], "it is done"
    assert done == ["first", "second", "second", "third"]


async def test_a_resumed_run_may_end_and_be_resumed_again_and_outlives_its_host(world):
    tries, waits = [], asyncio.Event()

    async def work(life):
        tries.append(life)
        if life == 3 and tries.count(3) == 1:
            waits.set()
            await asyncio.sleep(3600)
        if life < 3:
            raise Refused("stale", f"life {life}")

    async def body(journal, spec):
        await journal.step("try", lambda: work(journal.life))
        return [spec, journal.life]

    async with world.host(body) as host:
        await host.submit("kind", "run", "spec")
        for life in (1, 2):
            with pytest.raises(Refused, match=f"life {life}"):
                await host.result("run")
            await host.resume("run")
        await waits.wait()
        await host.resume("run")  # it is on its way: nothing happens
    async with world.host(body) as host:
        await host.submit("kind", "run", "spec")
        assert await host.result("run") == ["spec", 3]
    assert tries == [1, 2, 3, 3]


async def test_lives_of_a_run_are_one_run_to_whoever_lists_them(tmp_path):
    async def fail(journal, spec):
        raise Refused("stale", f"life {journal.life}")

    host = DbosHost(tmp_path)
    host.register("kind", fail)
    await host.start()
    try:
        for run in ("run", "r_n"):
            await host.submit("kind", run, f"spec of {run}")
            with pytest.raises(Refused):
                await host.result(run)
        await host.resume("run")
        with pytest.raises(Refused, match="life 2"):
            await host.result("run")
        found = [(run, state, spec) for run, state, _, spec in await host.runs(50, "kind")]
        assert await host.runs(50) == [], "runs of another kind are listed apart"
        assert found == [("run", "failed", "spec of run"), ("r_n", "failed", "spec of r_n")]
        with pytest.raises(Refused, match="life 1"):
            await host.result("r_n")
        assert await host.spec("run") == "spec of run"
        with pytest.raises(RunNotFound):
            await host.spec("run~2")
        with sqlite3.connect(tmp_path / "journal.sqlite") as database:
            assert database.execute("SELECT count(*) FROM workflow_status").fetchone() == (3,), (
                "none is rewritten"
            )
    finally:
        await host.stop()
