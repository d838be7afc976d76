"""The `Journal` port: what DBOS in a file, DBOS on PostgreSQL and the simulator's journal all promise.

Lives of a cloud process are lives of a host here: `open_host` starts another one on what the last
one left. The crashes at the end are real ones for DBOS (SIGKILL of a process of its own).
"""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from dbos import DBOS
from dbos._dbos import _get_dbos_instance

from reuna.adapters.clock import SystemClock
from reuna.adapters.journal_dbos import DbosHost, DbosJournal, Durable
from reuna.adapters.postgresql import PostgresqlDatabase
from reuna.core.errors import JournalError, Refused, RunFailed, RunNotFound
from reuna.sim.clock import SimClock, run_virtual
from reuna.sim.faults import Walker, fleet_of
from reuna.sim.fleet import FairWeather, SimFleet, make_spec
from reuna.sim.journal import JournalStore, SimJournal


class SimHost:
    """Runs over `SimJournal`, as `DbosHost` runs them over DBOS. ``disk`` outlives it."""

    def __init__(self, disk):
        self._disk = disk
        self._bodies = {}
        self._tasks = {}

    def register(self, kind, body):
        self._bodies[kind] = body

    async def start(self):
        for run, entry in self._disk.items():
            if not entry["ended"]:
                self._go(run, entry)

    async def stop(self):
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def submit(self, kind, run, spec):
        if run not in self._disk:
            self._disk[run] = {"kind": kind, "spec": spec, "store": JournalStore(), "ended": False}
            self._go(run, self._disk[run])

    async def result(self, run):
        if run not in self._disk:
            raise RunNotFound(run)
        await asyncio.wait([self._tasks[run]])
        if self._tasks[run].cancelled():
            raise RunFailed(f"the run {run} was cancelled")
        return self._tasks[run].result()

    async def send(self, run, topic, message):
        if run not in self._disk:
            raise RunNotFound(run)
        self._disk[run]["store"].send(topic, message)

    async def cancel(self, run):
        self._disk[run]["ended"] = True
        self._tasks[run].cancel()
        await asyncio.wait([self._tasks[run]])

    async def resume(self, run):
        if run not in self._disk:
            raise RunNotFound(run)
        if self._tasks[run].done() and (self._tasks[run].cancelled() or self._tasks[run].exception()):
            self._disk[run]["ended"] = False
            self._disk[run]["store"].resume(failed=not self._tasks[run].cancelled())
            self._go(run, self._disk[run])

    def _go(self, run, entry):
        journal = SimJournal(entry["store"])
        self._tasks[run] = asyncio.ensure_future(self._run(entry, journal))

    async def _run(self, entry, journal):
        result = await self._bodies[entry["kind"]](journal, entry["spec"])
        entry["ended"] = True
        return result


@pytest.fixture(params=["dbos", pytest.param("postgresql", marks=pytest.mark.servers), "sim"])
def world(request, tmp_path):
    server = None
    if request.param == "postgresql":
        server = PostgresqlDatabase(request.getfixturevalue("postgresql").url(), "journal")
    yield World(request.param, tmp_path, server)
    if server is not None:
        server.close()


class World:
    """One disk, on which one host after the other lives."""

    def __init__(self, kind, folder, server=None):
        self.now = SimClock().now if kind == "sim" else time.time
        self.wait = 4.0 if kind == "postgresql" else 1.8  # longer than a host needs to go on with its runs
        self._disk = {}
        self._make = (
            (lambda: SimHost(self._disk)) if kind == "sim" else (lambda: DbosHost(folder, server=server))
        )

    @asynccontextmanager
    async def host(self, body):
        host = self._make()
        host.register("kind", body)
        await host.start()
        try:
            yield host
        finally:
            await host.stop()


async def _value(value):
    return value


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
        return await journal.step("begin", lambda: _value(begun.append(spec) or spec))

    async with world.host(body) as host:
        await asyncio.gather(*(host.submit("kind", "run", spec) for spec in ("one", "one", "one")))
        assert await host.result("run") == "one"
        await host.submit("kind", "run", "two")
        assert await host.result("run") == "one"
    assert begun == ["one"]


async def test_two_runs_do_not_see_each_other(world):
    async def body(journal, spec):
        return [await journal.step("same name", lambda: _value(spec)), await journal.await_event("go", 5)]

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
        return repr(await journal.step("pair", lambda: _value({"pair": (1, 2.5), 3: None})))

    async with world.host(body) as host:
        await host.submit("kind", "run", "")
        assert await host.result("run") == "{'pair': [1, 2.5], '3': None}"


async def test_a_result_that_is_not_plain_is_refused(world):
    async def body(journal, spec):
        return await journal.step("bytes", lambda: _value(b"weights"))

    async with world.host(body) as host:
        await host.submit("kind", "run", "")
        with pytest.raises(JournalError, match="plain JSON"):
            await host.result("run")


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


async def test_unknown_runs_are_said_to_be(world):
    async with world.host(_value) as host:
        with pytest.raises(RunNotFound):
            await host.result("nobody")
        with pytest.raises(RunNotFound):
            await host.send("nobody", "topic", "message")
        with pytest.raises(RunNotFound):
            await host.resume("nobody")


# --- crashes ---------------------------------------------------------------------------------

STEPS = ("first", "second", "third")
MOMENTS = ("before", "during", "done", "after")


async def three_steps(journal, crash, effect):
    """Each step does its effect halfway; ``crash`` may end the process at each moment."""
    total = 0
    for number, name in enumerate(STEPS, 1):

        async def work(name=name, number=number, total=total):
            effect(name)
            await asyncio.sleep(0)
            crash("during", name)
            return {"total": total + number}

        total = (await journal.step(name, work))["total"]
    return total


class Crash(BaseException):
    """Ends a life in the simulator."""


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("step", STEPS)
def test_simulated_crashes_end_in_the_same_result(moment, step):
    store, effects = JournalStore(), []

    def crash(at, name):
        if (at, name) == (moment, step):
            raise Crash

    with pytest.raises(Crash):
        run_virtual(three_steps(SimJournal(store, hook=crash), crash, effects.append))
    calm = three_steps(SimJournal(store), lambda at, name: None, effects.append)
    assert run_virtual(calm) == 6
    _check_lives(moment, step, effects, [name for name, _ in store.results])


#: Makes one process of its own for each life, without importing DBOS in each anew.
_LIVES = """
    import asyncio, os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from test_journal import MOMENTS, STEPS, DbosHost, three_steps

    async def life(folder, moment, step):
        def crash(at, name):
            if (at, name) == (moment, step):
                os.kill(os.getpid(), signal.SIGKILL)

        def effect(name):
            with open(folder / "effects", "a") as file:
                file.write(name + "\\n")

        class Crashing:
            def __init__(self, journal):
                self._journal = journal

            async def step(self, name, work):
                async def whole():
                    result = await work()
                    crash("done", name)
                    return result
                crash("before", name)
                result = await self._journal.step(name, whole)
                crash("after", name)
                return result

        host = DbosHost(folder)
        host.register("kind", lambda journal, spec: three_steps(Crashing(journal), crash, effect))
        await host.start()
        await host.submit("kind", "run", "")
        (folder / "result").write_text(str(await host.result("run")))
        await host.stop()

    def fork(*arguments):
        child = os.fork()
        if child == 0:
            asyncio.run(life(*arguments))
            os._exit(0)
        return child

    cases = [(moment, step) for moment in MOMENTS for step in STEPS]
    folders = [Path(sys.argv[1]) / "-".join(case) for case in cases]
    for folder in folders:
        folder.mkdir()
    for ends, killed in ((-signal.SIGKILL, True), (0, False)):
        for half in (slice(0, 6), slice(6, 12)):
            children = [
                fork(folder, *(case if killed else (None, None)))
                for folder, case in zip(folders[half], cases[half])
            ]
            for child in children:
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                assert status == ends, (status, ends)
"""


def test_real_kills_end_in_the_same_result(tmp_path):
    script = textwrap.dedent(_LIVES).format(tests=str(Path(__file__).parent))
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], check=True, timeout=90, env=os.environ.copy()
    )
    for moment in MOMENTS:
        for step in STEPS:
            folder = tmp_path / f"{moment}-{step}"
            assert (folder / "result").read_text() == "6"
            _check_lives(moment, step, (folder / "effects").read_text().split(), _journalled(folder))


def _journalled(folder):
    database = sqlite3.connect(folder / "journal.sqlite")
    rows = database.execute("SELECT function_name FROM operation_outputs ORDER BY function_id").fetchall()
    database.close()
    return [name for (name,) in rows]


def _check_lives(moment, step, effects, journalled):
    """Each effect is journalled once; only a step that was cut off is done again."""
    assert journalled == list(STEPS)
    again = {step} if moment in ("during", "done") else set()
    assert {name: effects.count(name) for name in STEPS} == {
        name: 2 if name in again else 1 for name in STEPS
    }


# --- DBOS alone ------------------------------------------------------------------------------


async def test_the_journal_outlives_a_power_cut_and_holds_no_pickle(tmp_path):
    async def body(journal, spec):
        await journal.step("one", lambda: _value({"model": "abc"}))
        return await journal.step("two", lambda: _value(2))

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
        await journal.step(f"life {len(lives)}", lambda: _value(1))
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
        return [await journal.step("one", lambda: _value(1)), await journal.step("two", wait)]

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
    from reuna.core.errors import Corrupted

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
