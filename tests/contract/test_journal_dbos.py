"""What only the journal with DBOS promises: what it writes, other versions of it, damage, a full disk."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import pytest
from dbos import DBOS
from dbos._dbos import _get_dbos_instance

from reuna.adapters.clock import SystemClock
from reuna.adapters.journal_dbos import DbosHost, DbosJournal, Durable
from reuna.core.errors import Corrupted, JournalError, RunFailed, RunNotFound
from reuna.sim.faults import Walker, fleet_of
from reuna.sim.fleet import FairWeather, SimFleet, make_spec
from tests.contract.journals import World, value


async def test_the_journal_outlives_a_power_cut_and_holds_no_pickle(tmp_path):
    async def body(journal, spec):
        await journal.step("one", lambda: value({"model": "abc"}))
        return await journal.step("two", lambda: value(2))

    host = DbosHost(tmp_path)
    host.register("kind", body)
    await host.start()
    await host.submit("kind", "run", "spec")
    await host.result("run")
    with _get_dbos_instance()._sys_db.engine.connect() as connection:  # whose commits they are
        assert isinstance(connection.connection.driver_connection, Durable)
        assert connection.exec_driver_sql("PRAGMA synchronous").fetchone() == (2,)
    await host.stop()
    database = host_database(tmp_path)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    rows = database.execute("SELECT output, serialization FROM operation_outputs").fetchall()
    rows += database.execute("SELECT inputs, serialization FROM workflow_status").fetchall()
    rows += database.execute("SELECT output, serialization FROM workflow_status").fetchall()
    database.close()
    assert {kind for _, kind in rows} == {"reuna_json"}
    values = [json.loads(text) for text, _ in rows if text is not None]
    assert values[:2] == [{"model": "abc"}, 2]
    assert (tmp_path / "journal.sqlite").stat().st_mode & 0o077 == 0


def host_database(folder):
    return sqlite3.connect(folder / "journal.sqlite")


async def test_the_loop_keeps_its_threads_after_the_host_stopped(tmp_path):
    host = DbosHost(tmp_path)
    await host.start()
    await host.stop()
    assert await asyncio.to_thread(lambda: 7) == 7


async def test_a_second_host_on_a_journal_is_refused(tmp_path):
    host = DbosHost(tmp_path)
    await host.start()
    try:
        script = (
            "import asyncio, sys; from pathlib import Path; from reuna.adapters.journal_dbos import DbosHost;"
        )
        script += "asyncio.run(DbosHost(Path(sys.argv[1])).start())"
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
        assert "another process uses the journal" in done.stderr
        with pytest.raises(JournalError, match="already opened"):
            await DbosHost(tmp_path / "other").start()
    finally:
        await host.stop()


async def test_other_steps_than_those_journalled_are_an_error_that_says_so(tmp_path):
    stuck, lives = asyncio.Event(), []

    async def wait():
        stuck.set()
        await asyncio.sleep(3600)

    async def body(journal, spec):
        lives.append(1)
        await journal.step(f"life {len(lives)}", lambda: value(1))
        await journal.step("wait", wait)

    world = World("dbos", tmp_path)
    async with world.host(body) as host:
        await host.submit("kind", "run", "")
        await stuck.wait()
    async with world.host(body) as host:
        with pytest.raises(JournalError, match="life 1"):
            await host.result("run")


class Upgraded(DbosHost):
    """A later version of ours: what DBOS hashes, the source of its workflow, is another."""

    def _executor(self):
        execute = super()._executor()

        async def execute_as_a_later_version(kind, spec):
            return await execute(kind, spec)

        return execute_as_a_later_version


def test_the_journal_knows_the_time_as_dbos_asks_for_it_also_where_sqlite_does_not(tmp_path):
    database = sqlite3.connect(tmp_path / "journal.sqlite", factory=Durable)
    before = time.time()
    database.execute("CREATE TABLE t (x INTEGER, at INTEGER NOT NULL DEFAULT (unixepoch('subsec') * 1000))")
    database.execute("INSERT INTO t (x) VALUES (1)")
    ((at,),) = database.execute("SELECT at FROM t").fetchall()
    database.close()
    assert before - 0.002 <= at / 1000 <= time.time() + 0.002


async def test_a_run_goes_on_after_an_upgrade(tmp_path):
    stuck, go = asyncio.Event(), asyncio.Event()

    async def wait():
        stuck.set()
        await go.wait()
        return 2

    async def body(journal, spec):
        return [await journal.step("one", lambda: value(1)), await journal.step("two", wait)]

    first = DbosHost(tmp_path)
    first.register("kind", body)
    await first.start()
    computed = _get_dbos_instance()._registry.compute_app_version("reuna")
    await first.submit("kind", "run", "")
    await stuck.wait()
    await first.stop()
    go.set()
    later = Upgraded(tmp_path)
    later.register("kind", body)
    await later.start()
    try:
        assert _get_dbos_instance()._registry.compute_app_version("reuna") != computed
        async with asyncio.timeout(60):
            assert await later.result("run") == [1, 2]
    finally:
        await later.stop()


class Handed(DbosJournal):
    """Its steps are taken by the body of a host's run."""

    life = 1

    def __init__(self):
        self._steps = asyncio.Queue()

    async def step(self, name, work):
        done = asyncio.get_running_loop().create_future()
        await self._steps.put((name, work, done))
        return await done

    async def body(self, journal, spec):
        while True:
            name, work, done = await self._steps.get()
            done.set_result(await journal.step(name, work))


async def test_a_round_is_one_commit_and_no_update_is_in_it(tmp_path):
    rounds, size = 5, 200_000
    fogs = fleet_of(2, 3)
    for edges in fogs.values():
        for edge in edges:
            edges[edge] = replace(edges[edge], learner=Walker(size))
    handed = Handed()
    fleet = SimFleet(fogs, SystemClock(), lambda: handed, FairWeather())
    spec, model, bundle = make_spec(fogs, Walker(size), rounds, strategy="fedavgm", evaluate=True)
    host = DbosHost(tmp_path)
    host.register("kind", handed.body)
    await host.start()
    await host.submit("kind", "run", "")
    await fleet.run(spec, model, bundle)
    await host.stop()
    database = host_database(tmp_path)
    query = "SELECT function_name, output FROM operation_outputs ORDER BY function_id"
    kept = database.execute(query).fetchall()
    database.close()
    assert [name for name, _ in kept] == [*(f"round {number + 1}" for number in range(rounds)), "evaluate"]
    names = {"model", "state", "base", "step", "step_size", "carried", "exponent"}
    assert all({"model", "state"} <= set(json.loads(output)) <= names for _, output in kept[:-1])
    assert max(len(output) for _, output in kept[:-1]) < 1000
    assert all(len(output) < 1000 for _, output in kept), "digests and metrics"
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 4 * size, (
        "less than one model, all tables"
    )


async def test_an_unexpected_error_ends_the_run_with_its_name(tmp_path, caplog):
    async def body(journal, spec):
        raise ZeroDivisionError("by 0")

    async with World("dbos", tmp_path).host(body) as host:
        await host.submit("kind", "run", "")
        with pytest.raises(RunFailed, match="ZeroDivisionError: by 0"):
            await host.result("run")
        assert await host.status("run") == {
            "state": "failed",
            "message": "the run met ZeroDivisionError: by 0",
            "code": "R307",
        }
    assert "Traceback" in caplog.text


async def test_states_of_a_run(tmp_path):
    go = asyncio.Event()

    async def body(journal, spec):
        await go.wait()
        return {"model": "abc"}

    async with World("dbos", tmp_path).host(body) as host:
        await host.submit("kind", "run", "what was asked")
        assert await host.status("run") == {"state": "running"}
        assert await host.spec("run") == "what was asked"
        with pytest.raises(RunNotFound):
            await host.spec("another")
        go.set()
        await host.result("run")
        assert await host.status("run") == {"state": "done", "result": {"model": "abc"}}
        with pytest.raises(JournalError, match="no runs of kind"):
            await host.submit("other", "run-2", "")


async def test_that_a_run_goes_on_is_said_without_reading_the_journal(tmp_path, monkeypatch):
    began, go = asyncio.Event(), asyncio.Event()

    async def body(journal, spec):
        began.set()
        await go.wait()
        return {"model": "abc"}

    async def read(*_args, **_named):
        raise AssertionError("whoever follows a run asks five times a second")

    async with World("dbos", tmp_path).host(body) as host:
        await host.submit("kind", "run", "")
        await began.wait()
        with monkeypatch.context() as patched:
            patched.setattr(DBOS, "get_workflow_status_async", read)
            patched.setattr(DBOS, "list_workflows_async", read)
            assert await host.status("run") == {"state": "running"}
            with pytest.raises(AssertionError):
                await host.status("run-2")
        go.set()
        await host.result("run")
        assert (await host.status("run"))["state"] == "done"


async def test_a_damaged_journal_is_said_to_be_one(tmp_path):
    (tmp_path / "journal.sqlite").write_bytes(b"no database" * 1000)
    for _ in range(2):  # and the process may open another
        with pytest.raises(Corrupted, match=r"journal\.sqlite"):
            await DbosHost(tmp_path).start()


#: A disk without room for the journal for a while: no file of the process may grow past 2 MB.
_FULL_DISK = """
    import asyncio, resource, signal, sys
    from pathlib import Path
    from reuna.adapters import journal_dbos

    journal_dbos.RETRY_S = 0.3
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    began = []

    async def fill(number):
        began.append(number)
        return "x" * 200_000

    async def body(journal, spec):
        for number in range(20):
            await journal.step(f"fill {number}", lambda: fill(number))
        return "complete"

    async def main():
        host = journal_dbos.DbosHost(Path(sys.argv[1]))
        host.register("kind", body)
        await host.start()
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, -1))
        await host.submit("kind", "run", "")
        await asyncio.sleep(2)
        assert await host.status("run") == {"state": "running"}
        assert len(set(began)) < 20
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
        assert await host.result("run") == "complete"
        assert set(began) == set(range(20))
        assert began[:5] == list(range(5)) and began.count(0) == 1
        await host.stop()

    asyncio.run(main())
"""


def test_a_run_waits_while_the_disk_is_full_and_then_goes_on(tmp_path):
    script = textwrap.dedent(_FULL_DISK)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be written" in done.stderr
